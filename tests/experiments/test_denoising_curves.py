"""The experiment on both PSNRs runs at its smallest, resumes, and says what is so of any fit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.experiments import check_smallest_run, images_in


@pytest.mark.long
def test_smallest_run(tmp_path: Path) -> None:
    tables = {"results.csv": 10, "criterion.csv": 24, "curves.csv": 7}
    check_smallest_run(
        "denoising_curves", tmp_path, tables, {"curves", "images"}, "report_fits", rewritten=True
    )
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert set(rows.image) == {"astronaut", "chelsea-jpeg", "rocket-jpeg"}
    known = rows[rows.image != "rocket-jpeg"]
    assert rows[rows.image == "rocket-jpeg"].peak_psnr.isna().all()
    # The gap is positive exactly where less than half of the corruption is fitted.
    np.testing.assert_array_equal(known.final_gap > 0, known.final_share < 0.5)
    assert (known.peak_psnr >= known.final_psnr).all()
    for file in (tmp_path / "report_fits").glob("*.nc"):
        first = "-0-" in file.name
        best = {"best"} if "rocket" not in file.name else set()  # it has no truth
        assert images_in(file) == ({"output", "final"} | best if first else set())
