"""Everything runs on a device that no machine has, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "fakegpu"
ADDOPTS = "--strict-markers --import-mode=importlib --tb=short -q"


def run(marker: str, files: list[str]) -> None:
    """Registering a device changes a process for good: not the one that runs other tests."""
    paths = [str(FOLDER / name) for name in files]
    command = [sys.executable, "-m", "pytest", "-o", f"addopts={ADDOPTS}", "-m", marker, *paths]
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider"],
        cwd=FOLDER.parent.parent,
        env={**os.environ, "DIPKERNELS_FAKE_DEVICE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("test_*.py")))
def test_on_a_device_that_is_not_there(name: str) -> None:
    run("not long", [name])


@pytest.mark.long
def test_the_whole_grid_on_a_device_that_is_not_there() -> None:
    run("long", ["test_fits.py"])
