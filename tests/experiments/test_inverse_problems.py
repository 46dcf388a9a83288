"""The study of a blur and of few angles runs at its smallest, and resumes."""

import csv
from pathlib import Path

import pytest

from helpers.experiments import script


def rows_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_smoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = script("inverse_problems")
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    experiment.main(arguments)
    table = tmp_path / "results.csv"
    rows = rows_of(table)
    assert {row["problem"] for row in rows} == {"blur", "tomography"}
    assert all(float(row["seen"]) > 0 and float(row["unseen"]) > 0 for row in rows)
    scored = [row for row in rows if row["method"] != "clean image"]
    assert all(5 < float(row["peak_psnr"]) < 40 for row in scored)
    for row in scored:  # the split sums to the error, of which the score is made
        if row["end_psnr"] and "decoder" not in row["method"]:
            error = float(row["seen"]) + float(row["unseen"])
            assert 10 ** (-float(row["peak_psnr"]) / 10) == pytest.approx(error, rel=0.01)
    assert {path.name for path in tmp_path.glob("*.png")} == {"blur.png", "tomography.png"}
    assert len(rows_of(tmp_path / "uncertainty.csv")) == 4
    before = (tmp_path / "summary.csv").read_text(encoding="utf-8")
    capsys.readouterr()
    kept = table.read_text(encoding="utf-8").splitlines(keepends=True)
    table.write_text("".join(kept[:-1]), encoding="utf-8")
    experiment.main(arguments)
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert (tmp_path / "summary.csv").read_text(encoding="utf-8") == before
