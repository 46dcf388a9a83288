"""The experiment on volumes runs at its smallest, and resumes."""

import csv
from pathlib import Path

import pytest

from helpers.experiments import script


@pytest.mark.slow
def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = script("volumes")
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    experiment.main(arguments)
    table = tmp_path / "results.csv"
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == set(experiment.METHODS)
    assert all(5 < float(row["peak_psnr"]) < 40 for row in rows)
    assert {path.name for path in tmp_path.glob("*.png")} == {"process.png", "ensemble.png"}
    capsys.readouterr()
    kept = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(kept[:-1]), encoding="utf-8")
    experiment.main(arguments)
    again = table.read_text(encoding="utf-8").splitlines(keepends=True)
    seconds = kept[-1].rfind(",")
    assert again[:-1] == kept[:-1]
    assert again[-1][:seconds] == kept[-1][:seconds]
    assert len(capsys.readouterr().out.splitlines()) == 1
