"""Settings of all tests and doctests: one thread, no display, and shapes checked if wanted."""

import gc
import importlib
import importlib.util
import os
import signal
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")
# Commands that tests start have as many threads: two tests side by side on two cores, each with as
# many threads as cores, wait for each other ten times as long as they compute.
THREADS = os.environ.get("DIPKERNELS_TEST_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", THREADS)

# Before the package is imported: every annotated shape and type is checked at every call, which
# takes half as long again. CI does so in its second run.
if os.environ.get("DIPKERNELS_TEST_SHAPES"):
    from helpers import checking

    checking.install("dipkernels")

import pytest
import torch

# Tiny tensors gain nothing from more than one thread, and lose much to other processes.
torch.set_num_threads(int(THREADS))

# A shell ignores Ctrl-C for what it starts in the background; some tests send it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent
# its doctests need the extra
collect_ignore = [] if importlib.util.find_spec("jax") else ["dipkernels/bridges/jax.py"]


def pytest_collect_file(file_path: Path) -> None:
    """Import the package's modules as Python does: pytest alone may run a package's code twice."""
    if file_path.suffix == ".py" and file_path.is_relative_to(ROOT / "dipkernels"):
        module = file_path.relative_to(ROOT).with_suffix("")
        if module.name != "__main__":
            importlib.import_module(".".join(module.parts).removesuffix(".__init__"))


@pytest.fixture(autouse=True, scope="module")
def quick_collection() -> None:
    """What was imported is no garbage: a kernel collects twice, each time over all there is."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_local_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests pass on any checkout: the folder of standard images is never looked at."""
    monkeypatch.delenv("DIPKERNELS_DATA", raising=False)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this machine has."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)
