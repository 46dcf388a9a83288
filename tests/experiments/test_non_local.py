"""Tachella et al.'s filters at their smallest."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dipkernels import networks
from dipkernels.storage.netcdf import load, save
from helpers.experiments import check_smallest_run, script


@pytest.mark.slow
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    tables = {"vanilla.csv": 4, "angles.csv": 8, "along_fit.csv": 5}
    check_smallest_run("non_local", tmp_path, tables, {"filters"})
    kept = {p.stem: load(p) for p in (tmp_path / "out").glob("*.nc")}
    pictures = {
        name: {key for key, value in found.items() if "output" in value.dims}
        for name, found in kept.items()
    }
    drawn = {
        "vanilla-brick-0": {"limit_row", "means_row", "noisy"},
        "along-conv-brick-adam": {"filter"},
    }
    assert {name: found for name, found in pictures.items() if found} == drawn


def test_of_fits_of_full_size_little_is_kept_and_the_report_stays(tmp_path: Path) -> None:
    run = script("non_local")
    draw, size, times = np.random.default_rng(0), 128, [0, 100, 1000, 3000]
    over = ("kind", "iteration", "pixel")
    scalars = ("cosine", "diagonal", "rank_correlation", "share_outside")
    whole = xr.Dataset(
        {
            "filter": ((*over, "output"), draw.random((2, 4, 9, size**2))),
            "image": (("iteration", "output"), draw.random((4, size**2))),
            "psnr": ("iteration", draw.random(4)),
            **{key: (over[:2], draw.random((2, 4))) for key in scalars[2:]},
            **{key: (over, draw.random((2, 4, 9))) for key in scalars[:2]},
        },
        {"kind": ["tangent", "preconditioned"], "iteration": times, "pixel": run.grid(size)},
        {"prior": "conv"},
    )
    # the filters of one pixel in float32, and 30 KB of netCDF itself
    for drawn, most in ((True, 2 * 4 * size**2 * 4 + 30_000), (False, 30_000)):
        save(run.told(whole, with_filters=drawn), tmp_path / "along.nc")
        assert (tmp_path / "along.nc").stat().st_size < most
        found = load(tmp_path / "along.nc")
        rows = [run.along_rows(each, "conv", "brick", "adam") for each in (found, whole)]
        assert rows[0] == rows[1]
        if drawn:
            one, other = run.drawn(found, size), run.drawn(whole, size)
            assert list(one) == list(other)
            for title, picture in one.items():
                np.testing.assert_allclose(picture, other[title], rtol=1e-7)  # of float32


def test_networks_of_all_presets_have_their_options() -> None:
    run = script("non_local")
    for name in ("smoke", "cpu", "paper"):
        preset = run.settings(run.__file__, name, run.Preset)
        for network in preset.networks:
            prior = networks.create(network, image_size=32, channels=1, **preset.options)
            assert prior.shape == (1, 32, 32)
