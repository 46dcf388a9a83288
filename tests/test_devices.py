"""Everything runs on a device that no machine has; and the same tests on a GPU, where there is one.

Registering a device changes a process for good, so that these files run in processes of their own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent / "fakegpu"
KERNELS = ["test_kernels.py"]  # takes as long as all others
OTHERS = sorted({path.name for path in FOLDER.glob("test_*.py")} - {*KERNELS})
OPTIONS = ["-q", "-o", "addopts=--strict-markers --import-mode=importlib --tb=short"]


def run(names: list[str], device: str, marker: str = "not long") -> None:
    command = [sys.executable, "-m", "pytest", *OPTIONS, "-p", "no:cacheprovider", "-m", marker]
    ended = subprocess.run(
        [*command, *(str(FOLDER / name) for name in names)],
        cwd=FOLDER.parent.parent,
        env={**os.environ, "DIPKERNELS_REHEARSAL": device},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("names", [KERNELS, OTHERS], ids=["kernels", "others"])
def test_on_a_device_that_is_not_there(names: list[str]) -> None:
    run(names, "fakegpu")


@pytest.mark.long
@pytest.mark.parametrize("name", ["test_fits.py", "test_kernels.py"])
def test_the_rest_on_a_device_that_is_not_there(name: str) -> None:
    run([name], "fakegpu", "long")


@pytest.mark.cuda
@pytest.mark.parametrize("names", [KERNELS, OTHERS], ids=["kernels", "others"])
def test_the_same_on_a_gpu(names: list[str]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run(names, "cuda")
