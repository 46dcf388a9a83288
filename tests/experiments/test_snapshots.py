"""The experiment on outputs over a fit runs at its smallest, and resumes."""

from pathlib import Path

import pandas as pd
import pytest

from helpers.experiments import check_smallest_run, images_in


@pytest.mark.slow
def test_smallest_run(tmp_path: Path) -> None:
    tables = {"grid.csv": 9, "references.csv": 2}
    check_smallest_run(
        "snapshots", tmp_path, tables, {"grid", "outputs"}, "report_fits", rewritten=True
    )
    rows = pd.read_csv(tmp_path / "out" / "grid.csv").set_index(["network", "iteration"])
    assert rows.loc[("vit", 0)].comb > 100 > rows.loc[("skip", 0)].comb
    for file in (tmp_path / "report_fits").glob("*.nc"):
        assert images_in(file) == {"output", "best", "final"}
