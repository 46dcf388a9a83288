"""The first comparison at its smallest."""

from pathlib import Path

import pandas as pd
import pytest

from helpers.experiments import ROOT, script


def test_smallest_run_writes_its_report_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, output = script("first_comparison"), tmp_path / "out"
    arguments = ["--preset", "smoke", "--output", str(output)]
    run.main(arguments)
    assert list(pd.read_csv(output / "summary.csv").prior) == ["deep-decoder"]
    drawn = {path.name for path in (output / "figures").glob("*.png")}
    assert drawn == {path.name for path in (ROOT / "first_comparison").glob("*.png")}
    stored = {path: path.stat().st_mtime_ns for path in output.rglob("*.nc")}
    first = min(stored)
    first.unlink()
    monkeypatch.setattr(run, "write_report", lambda folder, _: folder.path / "report.html")
    run.main(arguments)
    assert {p for p in stored if p.stat().st_mtime_ns != stored[p]} == {first}
