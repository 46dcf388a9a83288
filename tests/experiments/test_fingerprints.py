"""The experiment's smallest preset runs, and what it has made isn't made again."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from dipkernels import theory

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    path = ROOT / "experiments" / "fingerprints" / "run.py"
    spec = importlib.util.spec_from_file_location("fingerprints_run", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = load()
    experiment.run("smoke", tmp_path / "out", progress=False)
    names = experiment.PRESETS["smoke"].names
    for name in names:
        assert (tmp_path / "out" / f"{name}.png").exists()
    lines = (tmp_path / "out" / "summary.csv").read_text().splitlines()
    assert len(lines) == 1 + len(names)
    with Image.open(tmp_path / "out" / "all.png") as sheet:
        width = experiment.SHEET_COLUMNS * experiment.SHEET_WIDTH
        assert sheet.width == width

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was computed again")

    monkeypatch.setattr(theory, "fingerprint", never)
    experiment.run("smoke", tmp_path / "out", progress=False)
