"""The smoke preset of the ranking of architectures, and that a second run does nothing."""

import csv
from pathlib import Path

import pytest

from helpers.experiments import script


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_smoke_preset_runs_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = script("kernel_ranking")
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    assert len(rows(tmp_path / "measured.csv")) == 6
    kernels = {row["kernel"] for row in rows(tmp_path / "correlations.csv")}
    assert {"initialisation", "after 2, cross-fitted", "covariance's Wiener filter"} <= kernels
    assert (tmp_path / "ranking.png").stat().st_size > 10_000
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    first = capsys.readouterr().out
    run.main(["--preset", "smoke", "--output", str(tmp_path)])
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == before
    assert len(capsys.readouterr().out) < len(first)
