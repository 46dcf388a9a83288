"""``dipkernels experiment``: finds, lists and runs experiments, and says what is wrong."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dipkernels import cli
from dipkernels.cli import experimenting

SCRIPT = '''
from pathlib import Path
from experiments.harness import parse
from dipkernels.errors import InvalidInputError

def main(arguments=None):
    """Do as the preset says."""
    options = parse(__file__, "Nothing.", arguments)
    if options.preset == "paper":
        raise KeyboardInterrupt
    if options.preset == "cpu":
        raise InvalidInputError("no such kernel")
    options.output.mkdir(parents=True)
    (options.output / "device").write_text(str(options.device))
'''
INDEX = """
| folder | claim | verdict | run on |
|---|---|---|---|
| [`told`](told/README.md) | all is well | holds | paper |
"""
HARNESS = Path(__file__).parents[1] / "experiments" / "harness.py"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Enter a folder deep inside a repository of two experiments."""
    root = tmp_path / "clone" / "experiments"
    for name in ("told", "untold"):
        (root / name).mkdir(parents=True)
        (root / name / "run.py").write_text(SCRIPT)
    (root / "harness.py").write_text(HARNESS.read_text(encoding="utf-8"))
    (root / "README.md").write_text(INDEX)
    deep = tmp_path / "clone" / "docs" / "experiments"  # of this name, but nothing to be run
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.setattr(sys, "path", list(sys.path))
    kept = {n: sys.modules.pop(n) for n in list(sys.modules) if n.split(".")[0] == "experiments"}
    yield tmp_path / "clone"
    for name in [n for n in sys.modules if n.split(".")[0] == "experiments"]:
        del sys.modules[name]
    sys.modules.update(kept)


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dipkernels", "experiment", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_runs_the_nearest_experiment(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experimenting.find_experiments() == clone / "experiments"
    assert call(monkeypatch, "told", "--preset", "smoke") == 0
    assert (clone / "docs/experiments/runs/told-smoke/device").read_text() == "cpu"
    assert "Results: runs/told-smoke" in capsys.readouterr().out
    given = clone / "mine"
    assert call(monkeypatch, "untold", "--preset", "smoke", "--output", str(given)) == 0
    assert (given / "device").exists()


def test_lists_claims_and_verdicts(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--list") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == ["told", "claim:   all is well", "verdict: holds"]
    assert lines[3:5] == ["untold", "claim:   not in the index yet"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--list to see them all"),
        (("told", "--list"), 2, "--list to see them all"),
        (("--list", "--preset", "smoke"), 2, "no effect"),
        (("tolt",), 2, "no experiment 'tolt' in .*; it has: told, untold"),
        (("../told",), 2, "no experiment"),
        (("told", "--preset", "big"), 2, "one of smoke, cpu, paper, got 'big'"),
        (("told", "--preset", "smoke", "--device", "gpu"), 2, "no such device: 'gpu'"),
        (("told", "--preset", "smoke", "--output", "{clone}/experiments/harness.py"), 2, "a file"),
        (("told",), 2, "^dipkernels: no such kernel$"),
        (("told", "--preset", "paper"), 130, "runs/told-paper; the same command continues"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    clone: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    filled = [argument.format(clone=clone) for argument in arguments]
    assert call(monkeypatch, *filled) == code
    shown = capsys.readouterr().err.strip()
    assert re.search(message, shown), shown
    assert len(shown.splitlines()) == 1


def test_without_a_checkout_says_to_clone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert experimenting.find_experiments() == HARNESS.parent  # beside the editable package
    monkeypatch.setattr(experimenting, "CHECKOUT", tmp_path / "site-packages")
    assert call(monkeypatch, "--list") == 2
    assert "clone the repository" in capsys.readouterr().err


def test_scripts_that_cannot_run_are_refused(
    clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = clone / "experiments" / "told" / "run.py"
    script.write_text("import no_such_module_at_all")
    assert call(monkeypatch, "told") == 2
    assert "needs what can't be imported" in capsys.readouterr().err
    script.write_text("main = 3")
    assert call(monkeypatch, "told") == 2
    assert "has no function main" in capsys.readouterr().err
