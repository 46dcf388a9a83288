"""Networks of the user's own, by FILE.py:FACTORY and MODULE:FACTORY, in every command."""

import json
from pathlib import Path

import pytest
import torch

from dipkernels.errors import InvalidInputError
from dipkernels.specs.prior import build_prior, labels, words_of
from dipkernels.storage import load
from helpers.commands import call

NETS = """
import torch
from torch import nn
from dipkernels import ImagePrior
from beside import CHANNELS

class Small(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.first = nn.Conv2d(CHANNELS, width, 3, padding=1)
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, code):
        return self.last(self.first(code).relu()).sigmoid()

class Broken(Small):
    def forward(self, code):
        return divide(super().forward(code))

def divide(image):
    return image / image.missing

def prior(shape, width=4):
    code = torch.linspace(0, 1, 2 * shape[1] * shape[2]).reshape(1, 2, *shape[1:])
    return ImagePrior(lambda: nn.Conv2d(2, shape[0], 3, padding=1), code, name="other")

def fails():
    raise ValueError("no weights today")

def seven():
    return 7

def large():
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 1))

def talks():
    return nn.Linear(5, 5)

value, made, ready = 7, Small(), prior((3, 8, 8))
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of networks, which is entered."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "beside.py").write_text("CHANNELS = 6")
    monkeypatch.chdir(tmp_path)
    # without the folders of other tests, whose modules may have the same names
    places = [place for place in __import__("sys").path if "pytest-of" not in place]
    monkeypatch.setattr("sys.path", ["/nowhere", *places])
    monkeypatch.delitem(__import__("sys").modules, "beside", raising=False)
    monkeypatch.delitem(__import__("sys").modules, "nets", raising=False)
    return tmp_path


SPECTRUM = ("--size", "8", "--steps", "3", "--quiet")
FIT = ("--size", "8", "--iterations", "2", "--quiet")


def test_one_is_fitted_and_remembered(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("fit", "nets.py:Small", *FIT, "--output", "out")
    assert call(*command, "--figures", "svg,pdf") == 0
    assert (nets / "out" / "curves.pdf").exists() and not (nets / "out" / "curves.png").exists()
    assert capsys.readouterr().out.startswith("Small: peak")
    assert load(nets / "out" / "fit.nc").prior == "Small"
    record = json.loads((nets / "out" / "run.json").read_text())
    assert record["loaded"]["Small"]["file"] == str(nets / "nets.py")
    assert record["command_line"].startswith("dipkernels fit nets.py:Small --size 8 ")
    assert record["started"] <= record["finished"]
    (nets / "nets.py").write_text(NETS.replace(".relu()", ".tanh()"))
    assert call(*command) == 2  # the same shapes and code: only the text tells
    assert "(another content of Small)" in capsys.readouterr().err


@pytest.mark.slow
def test_folders_of_several_know_each_by_its_file(
    nets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (nets / "more.py").write_text(NETS)
    both = ("nets.py:Small", "more.py:Small", "nets.py:prior")
    assert call("spectrum", *both, *SPECTRUM, "--output", "out") == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert rows[1:4] == ["nets.Small", "more.Small", "prior"]
    assert call("spectrum", "nets:prior", *SPECTRUM, "--output", "out") == 0  # of the same file
    (nets / "nets.py").write_text(NETS + "\n")
    capsys.readouterr()
    assert call("spectrum", "nets.py:prior", *SPECTRUM, "--output", "out") == 2
    assert "nets.py has another content" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("none.py:Small", (), "there is no file none.py"),
        ("nets.py:Smal", (), "has no function 'Smal'; it has Small, Broken, divide, prior"),
        ("nets.py", (), "expected FILE.py:NAME or MODULE:NAME"),
        ("no_such_module:Net", (), "No module named 'no_such_module'"),
        ("nets.py:value", (), "is a int, where a function or a class"),
        ("nets.py:seven", (), "returned a int: it must return a torch.nn.Module"),
        ("nets.py:made", (), "whose weights are drawn already"),
        ("nets.py:fails", (), "nets.py:fails failed: ValueError: no weights today"),
        ("nets.py:Broken", (), "has no attribute 'missing'"),
        ("nets.py:large", (), "makes images of 3x16x16 (channels x sides), 3x8x8 are asked for"),
        ("nets.py:talks", (), "failed on a code of shape (1, 32, 8, 8)"),
        ("nets.py:Small", ("--options", "depth=2"), "got an unexpected keyword argument 'depth'"),
        ("nets.py:Small", ("--code", "noise:5"), "failed on a code of shape (1, 5, 8, 8)"),
        ("nets.py:Small", ("--code", "noise:"), "--code must be like noise, noise:32"),
        ("nets.py:Small", ("--code", "static:6"), "code must be one of noise"),
        ("nets.py:Small", ("--variant", "wide"), "--variant has no effect"),
        ("nets.py:prior", ("--code", "noise"), "--code has no effect on nets.py:prior"),
        ("nets.py:prior", ("--initialisation", "orthogonal"), "--initialisation has no effect"),
        ("skip", ("--code", "noise:4x8x8"), "says itself which size its code has"),
    ],
)
def test_what_does_not_fit_is_said(
    nets: Path,
    name: str,
    options: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("fit", name, *FIT, *options, "--output", "out") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1] and lines[-1].startswith("dipkernels: ")
    assert not (nets / "out").exists()
    # where it began in the user's file, and no line of this package or of torch
    own = [line for line in lines if line.startswith('  File "')]
    began = message.endswith(("(1, 5, 8, 8)", "'missing'", "no weights today"))
    assert bool(own) == began
    assert all(str(nets) in line for line in own)


def test_a_code_is_for_ones_own_alone(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("spectrum", "deep-decoder", *SPECTRUM, "--code", "noise:4") == 2
    assert "--code noise:4 has no effect" in capsys.readouterr().err


def made(name: str, **said: object) -> torch.Tensor:
    prior = build_prior(words_of(name, **said), (3, 8, 12))
    assert prior.shape == (3, 8, 12)
    return prior.code_tensors[0]


def test_codes_follow_the_stated_rule(nets: Path) -> None:
    assert made("nets.py:Small").shape == (1, 6, 8, 12)  # as the first convolution takes
    assert made("nets.py:Small", code="phases:6").abs().amax() > 0.5
    assert made("nets.py:Small", code="noise:6x8x12").amax() <= 0.1
    assert not torch.equal(made("nets.py:Small"), made("nets.py:Small", code_seed=1))
    assert made("nets.py:prior").shape == (1, 2, 8, 12)  # its own
    assert made("skip", code="noise:4").shape[1] == 4  # of a registered one, too
    assert made("nets.py:prior", output="none").shape == (1, 2, 8, 12)  # as covariances ask for
    with pytest.raises(InvalidInputError, match="--output-range has no effect"):
        made("nets.py:prior", output="sigmoid")
    with pytest.raises(InvalidInputError, match="makes images of 3x8x8"):
        made("nets.py:ready")
    assert build_prior(words_of("nets.py:ready"), (3, 8, 8)).name == "ready"


def test_labels_are_short_and_their_own() -> None:
    names = ["a/x.py:f", "b/x.py:f", "pkg.mod:f", "x.py:skip", "skip", "m:g", "m:g"]
    assert list(labels(names)) == ["x.f", "x.f-2", "mod.f", "x.skip", "skip", "g"]
