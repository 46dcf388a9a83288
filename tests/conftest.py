"""Settings of all tests: shapes in signatures are checked, one thread, no display."""

import os
import warnings

os.environ.setdefault("MPLBACKEND", "Agg")

# Before the package is imported: every annotated shape and type is checked at every call.
from jaxtyping import install_import_hook

_hook = install_import_hook("dipkernels", "beartype.beartype")

import pytest
import torch

torch.set_num_threads(1)  # tiny tensors gain nothing from more, and lose much to other processes


@pytest.fixture(autouse=True)
def no_local_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests pass on any checkout: the folder of standard images is never looked at."""
    monkeypatch.delenv("DIPKERNELS_DATA", raising=False)


@pytest.fixture(autouse=True)
def torch_tracing_warnings():
    """torch.func.linearize announces its own internals; everything else stays an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        yield


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that this machine has."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return str(request.param)
