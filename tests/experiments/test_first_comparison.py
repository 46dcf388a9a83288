"""The first comparison at its smallest."""

from pathlib import Path

from helpers.experiments import ROOT, check_smallest_run


def test_smallest_run_writes_its_table_and_resumes(tmp_path: Path) -> None:
    check_smallest_run("first_comparison", tmp_path, {"summary.csv": 1}, set())
    assert (tmp_path / "out" / "report.html").exists()
    drawn = {path.name for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert drawn == {path.name for path in (ROOT / "first_comparison").glob("*.png")}
