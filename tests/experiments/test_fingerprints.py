"""The experiment's smallest preset runs, and what it has made isn't made again."""

from pathlib import Path

import pytest
from PIL import Image

from dipkernels import theory
from helpers.experiments import script


def test_smoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = script("fingerprints")
    arguments = ["--preset", "smoke", "--output", str(tmp_path / "out")]
    experiment.main(arguments)
    names = ("deep-decoder", "mixer")
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
    experiment.main(arguments)
