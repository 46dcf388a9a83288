"""The smoke preset of super-resolution and flash, the pair with a truth, and the calibration."""

import importlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from helpers.experiments import check_smallest_run, harness, images_in, script

PACKAGE = "experiments.super_resolution_and_flash"


@pytest.mark.slow
def test_smoke_runs_and_resumes(tmp_path: Path) -> None:
    tables = {"train.csv": 10, "calibration.csv": 18, "test.csv": 6, "summary.csv": 6}
    figures = {"curves", "images", "pairs"}
    check_smallest_run("super_resolution_and_flash", tmp_path, tables, figures, rewritten=True)
    test = pd.read_csv(tmp_path / "out" / "test.csv")
    row = test[(test.task == "flash")].iloc[0]
    kept = xr.load_dataset(tmp_path / "out" / "flash-SkipNet-0.0-chelsea-1.nc")
    module = script("super_resolution_and_flash")
    chosen = harness.settings(module.__file__, "smoke", module.Settings)
    clean = module.make_problems(chosen)["flash", "chelsea"].clean.numpy()
    error = np.square(kept.at_stop.values - clean).mean()
    # 8 bits add 1.3e-6 to an error of some 0.05, and move it at random by as much.
    assert row.psnr_median == pytest.approx(-10 * np.log10(error), abs=1e-2)
    assert row.psnr_median == pytest.approx(kept.attrs["psnr_at_stop"], abs=1e-3)
    assert row.peak - row.psnr_median == pytest.approx(row.loss_median, abs=1e-3)
    tested = {file for file in (tmp_path / "out").glob("*.nc") if file.stem.endswith("-1")}
    assert len(tested) == len(test) + 2  # and the real pair
    for file in (tmp_path / "out").glob("*.nc"):
        assert images_in(file) == ({"at_stop"} if file in tested else set())
        # The picture's bytes, and what netCDF needs; a whole fit holds 80 kB of images.
        assert file.stat().st_size < 3 * 32 * 32 + 35_000


def fitted(curve: list[float]) -> xr.Dataset:
    return xr.Dataset(
        {"psnr_clean": (("iteration", "region"), np.array(curve)[:, None])}, {"region": ["whole"]}
    )


def test_calibration_by_hand() -> None:
    script("super_resolution_and_flash")  # puts the root on the path
    calibration = importlib.import_module(f"{PACKAGE}.calibration")

    def unit(image: str, weight: float) -> tuple[str, ...]:
        return SimpleNamespace(task="flash", network="A", weight=weight, image=image)

    curves = {
        "x": [1.0, 9.0, 2.0, 2.0, 1.0],
        "y": [1.0, 2.0, 7.0, 3.0, 2.0],
        "z": [1, 2, 3, 4, 6.0],
    }
    units = [(unit(image, 0.0), fitted(curve)) for image, curve in curves.items()]
    units += [(unit("x", weight), fitted([weight] * 3)) for weight in (1.0, 3.0, 2.0)]

    class Pairs(list):
        def items(self) -> list:
            return self

    table = calibration.calibrate(Pairs(units))
    rows = table[table.weight == 0].set_index("rule")
    # Peaks are at 1, 2 and 4; the mean curve is 1, 13/3, 4, 3, 3.
    assert rows.iteration.to_dict() == {"median": 2, "mean": 2, "common": 1}
    assert rows.psnr["common"] == pytest.approx(13 / 3)
    assert rows.loss["median"] == pytest.approx((9 + 7 + 6 - (2 + 7 + 3)) / 3)
    assert calibration.chosen_weights(table) == {("flash", "A"): [0.0, 3.0]}


def test_lit_pair_has_a_truth_and_a_highlight_of_the_flash_alone() -> None:
    script("super_resolution_and_flash")
    problems = importlib.import_module(f"{PACKAGE}.problems")
    task = problems.lit_pair(problems.load("astronaut", 64, 48), 0.1)
    noise = task.measurement - task.clean
    # 6912 draws: the deviation is known to 0.9 %.
    assert noise.std().item() == pytest.approx(0.1, rel=0.04)
    assert task.clean.min() >= 0 and task.clean.max() <= 1
    share = task.guide.sum(0) / (task.clean.sum(0) + 0.05)
    highlight = torch.zeros(48, 48, dtype=torch.bool)
    highlight[14:20, 26:32] = True
    assert share[highlight].mean() > 1.3 * share[~highlight].mean()
