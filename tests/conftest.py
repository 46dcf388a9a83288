"""Settings of all tests: shapes in signatures are checked, one thread, no display."""

import os

os.environ.setdefault("MPLBACKEND", "Agg")

# Before the package is imported: every annotated shape and type is checked at every call.
from jaxtyping import install_import_hook

_hook = install_import_hook("dipkernels", "beartype.beartype")

import pytest
import torch

# Tiny tensors gain nothing from more than one thread, and lose much to other processes.
torch.set_num_threads(int(os.environ.get("DIPKERNELS_TEST_THREADS", "1")))


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
