"""The smoke preset of the ranking of architectures, and that a second run does nothing."""

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load_run() -> ModuleType:
    path = ROOT / "experiments" / "kernel_ranking" / "run.py"
    spec = importlib.util.spec_from_file_location("kernel_ranking_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_smoke_preset_runs_and_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = load_run()
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
