"""Heckel & Soltanolkotabi's figures at their smallest."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from dipkernels.storage.netcdf import load, save
from helpers.experiments import check_smallest_run, script

TABLES = {
    "dual_kernels.csv": 6,
    "jacobian_norms.csv": 8,
    "jacobian_along_fit.csv": 8,
    "fitting_speed.csv": 16,
}
CURVES = ("misfit", "misfit_lower", "misfit_upper", "measured")


@pytest.mark.slow
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    figures = {"dual_kernels", "jacobian_norms", "jacobian_along_fit", "fitting_speed"}
    check_smallest_run("low_pass", tmp_path, TABLES, figures)
    # curves of the first seed are drawn: of five iterations all
    kept = {p.stem: load(p).iteration.values for p in (tmp_path / "out").glob("speed-*.nc")}
    for network in ("deep-decoder", "conv"):
        np.testing.assert_array_equal(kept[f"speed-{network}-0"], range(6))
        np.testing.assert_array_equal(kept[f"speed-{network}-1"], [5])


def test_of_fits_of_published_length_little_is_kept_and_the_table_stays(tmp_path: Path) -> None:
    run = script("low_pass")
    draw, count = np.random.default_rng(0), 100_001
    targets = ["image", "noise", "centred image", "centred noise"]
    curves = {name: (("target", "iteration"), draw.random((4, count))) for name in CURVES}
    whole = xr.Dataset(
        {**curves, "rate": ("target", draw.random(4))},
        {"target": targets, "iteration": np.arange(count)},
    )
    kept = [run.told(whole, seed) for seed in (0, 1)]
    pd.testing.assert_frame_equal(
        run.speed_rows({"conv": kept}), run.speed_rows({"conv": [whole] * 2})
    )
    at = kept[0].iteration.values
    np.testing.assert_array_equal(kept[0].measured, whole.measured.values[:, at])
    assert at[:100].tolist() == list(range(100))
    # four curves and their iterations, 8 bytes a number, and 30 KB of netCDF itself
    for result, most in zip(kept, (2000 * (4 * 4 + 1) * 8 + 30_000, 30_000), strict=True):
        save(result, tmp_path / "speed.nc")
        assert (tmp_path / "speed.nc").stat().st_size < most
