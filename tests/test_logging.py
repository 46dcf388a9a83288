"""What the library says while it works: under its own name, and to nobody who doesn't listen."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dipkernels
from dipkernels import ImagePrior, Task, fit, networks, tasks
from dipkernels.storage.runs import RunFolder

PACKAGE = Path(dipkernels.__file__).parent


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """All that the package says."""
    caplog.set_level(logging.DEBUG, logger="dipkernels")
    return caplog


def said(heard: pytest.LogCaptureFixture, level: int, module: str) -> str:
    """What a module said on a level."""
    lines = [r.getMessage() for r in heard.records if (r.levelno, r.name) == (level, module)]
    assert lines, [(r.levelname, r.name, r.getMessage()) for r in heard.records]
    return "\n".join(lines)


def small(output: str = "sigmoid") -> tuple[ImagePrior, Task]:
    prior = networks.create("deep-decoder", image_size=16, width=8, output=output)
    return prior, tasks.denoise(torch.full((3, 16, 16), 0.5))


def test_loggers_have_the_names_of_their_modules() -> None:
    found = 0
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger":
                name = ast.unparse(node.args[0])
                found += 1
                assert name == "__name__" or (path.parent.name, name) == ("cli", "'dipkernels'")
            if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("logging."):
                assert ast.unparse(node.func) not in ("logging.basicConfig", "logging.warning")
    assert found > 10


def test_who_does_not_listen_hears_nothing() -> None:
    code = (
        "import logging, dipkernels; logger = logging.getLogger('dipkernels.fitting.fits');"
        "logger.error('lost'){}"
    )
    for more, expected in (("", ""), ("; logging.basicConfig(); logger.error('found')", "found")):
        silent = subprocess.run(
            [sys.executable, "-c", code.format(more)], capture_output=True, text=True, check=True
        )
        assert silent.stderr.strip().endswith(expected)
        assert "lost" not in silent.stderr


def test_a_fit_says_how_it_went_and_that_it_continues(
    heard: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    prior, task = small()
    fit(prior, task, iterations=2, checkpoint=tmp_path / "fit.safetensors")
    words = said(heard, logging.INFO, "dipkernels.fitting.fits")
    assert words.startswith("the fit (deep-decoder, adam) ended after 2 iterations, ")
    assert "fit: saved to" in said(heard, logging.DEBUG, "dipkernels.storage.checkpoints")
    heard.clear()
    fit(prior, task, iterations=3, checkpoint=tmp_path / "fit.safetensors")
    words = said(heard, logging.INFO, "dipkernels.storage.checkpoints")
    assert words == f"fit: continued from {tmp_path / 'fit.safetensors'}"


def test_a_fit_that_diverges_or_is_stopped_is_said(heard: pytest.LogCaptureFixture) -> None:
    prior, task = small(output="none")
    fit(prior, task, iterations=60, optimiser="gradient-descent", learning_rate=1e9, seed=[0, 1])
    words = said(heard, logging.WARNING, "dipkernels.fitting.fits")
    assert words == "the fit (deep-decoder, gradient-descent) diverged in 2 of 2 runs"
    prior, task = small()
    stopped = fit(prior, task, iterations=400, learning_rate=0.05, stop="discrepancy")
    assert stopped.status == "stopped"
    words = said(heard, logging.INFO, "dipkernels.fitting.stopper")
    assert f"stops run 0 at iteration {int(stopped.stopped)} " in words
    assert words.endswith(f"keeps the image of {int(stopped.chosen)}")


def test_a_run_folder_says_what_it_reads_and_what_it_makes_anew(
    heard: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    prior, task = small()
    folder = RunFolder.open(tmp_path, {})
    for _ in range(2):
        folder.stage("fit", lambda: fit(prior, task, iterations=1))
    words = said(heard, logging.INFO, "dipkernels.storage.runs").split("\n")
    assert words == ["fit begins", f"fit was done before: read from {tmp_path / 'fit.nc'}"]
    folder.file("fit").write_text("no netCDF")
    folder.stage("fit", lambda: fit(prior, task, iterations=1))
    assert said(heard, logging.WARNING, "dipkernels.storage.runs").startswith(
        "fit counts as not done: "
    )
