"""The experiment on convolutions and a ViT runs at its smallest, and resumes."""

from pathlib import Path

import pandas as pd
import pytest

from helpers.experiments import check_smallest_run, images_in


@pytest.mark.slow
def test_smallest_run(tmp_path: Path) -> None:
    tables = {"results.csv": 3, "summary.csv": 3}
    check_smallest_run(
        "conv_placement", tmp_path, tables, {"curves", "gains"}, "report_fits", rewritten=True
    )
    rows = pd.read_csv(tmp_path / "out" / "results.csv")
    assert (rows[rows.network == "vit"].peak_gain == 0).all()
    assert set(rows.network) == {"vit", "conv3-vit", "vit-conv1"}
    for file in (tmp_path / "report_fits").glob("*.nc"):
        # Those that denoising_curves shares have what it draws.
        shared = {"output", "best", "final"} if file.name.startswith("vit-astronaut") else set()
        assert images_in(file) == shared
