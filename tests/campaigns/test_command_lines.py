"""Wrong command lines: an exit code and a sentence; no traceback, no hang."""

import logging
import random
import signal
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import click
import jaxtyping
import pytest
import typer
from typer.testing import CliRunner

from dipkernels.cli import app
from dipkernels.errors import ArgumentsError, DipkernelsError
from helpers.campaigns import sizes

SECONDS = 10
# Right lines that take no time, to which something wrong is done.
LINES = {
    "fit": ["deep-decoder", "--size", "8", "--iterations", "1", "--options", "width=3"],
    "ntk": ["deep-decoder", "--size", "8", "--steps", "2", "--probes", "2"],
    "posterior": ["deep-decoder", "--size", "8", "--iterations", "2", "--chains", "2"],
    "compare": ["--priors", "deep-decoder", "--size", "8", "--iterations", "1"],
    "fingerprint": ["deep-decoder", "--size", "8"],
    "spectrum": ["deep-decoder", "--size", "8", "--steps", "2", "--probes", "2"],
    "score": ["deep-decoder", "--size", "8"],
    "audit": ["deep-decoder", "--size", "8", "--iterations", "2", "--checks", "2"],
    "covariance": ["deep-decoder", "--size", "8", "--samples", "4"],
    "gp": ["deep-decoder", "--size", "8", "--kernel", "samples", "--samples", "4"],
    "experiment": ["low_pass", "--preset", "nonsense"],
    "sweep": ["plan.yaml"],
    "sweep-status": ["store"],
    "sweep-table": ["store"],
    "list": [],
}
# Of each the option that any wrong number makes certainly wrong.
CERTAIN = {
    **{"fit": "--iterations", "ntk": "--steps", "posterior": "--chains", "spectrum": "--steps"},
    **{"score": "--seeds", "audit": "--iterations", "covariance": "--samples", "gp": "--samples"},
}
WORDS = (
    *("", "0", "-1", "1.9", "nan", "inf", "-inf", "1e400", "99999999999", "9" * 5000, "1/0", "0/0"),
    *(
        "x" * 5000,
        "nonsense",
        "a\tb",
        "../..",
        "/",
        ".",
        "/dev/null",
        "/dev/zero",
        "\udcff",
        "0x10",
    ),
    *("8x8x8", "x", "8x", "-8x8", "1e9", "True", "None", "[]", "{}", "cuda:99", "cpu:7", "~", "--"),
)
OPTIONS = (
    *("width=" + "-" * 4000 + "1", "width=4 width=5", "width", "=", "width=", "width=1e9", "a=b"),
    *("width=" + "(" * 500, "width=[" + "1," * 50 + "]", "width=-1", "width=None", "width=2**62"),
    *("__class__=1", "width=9999999999999999999", "width='4", "width=4;ls", "lambda=1"),
)


class Hang(BaseException):
    """A line that took too long."""


def end_it(*_: Any) -> None:
    raise Hang


def wrong_line(rng: random.Random) -> list[str]:
    name = rng.choice(list(LINES))
    line = list(LINES[name])
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    known = [
        option
        for each in group.commands[name].params  # type: ignore[union-attr]
        for option in each.opts
        if option.startswith("--") and option not in ("--help", "--progress", "--workers")
    ]
    kind = rng.randrange(6)
    if kind == 0 and line:
        line[rng.randrange(len(line))] = rng.choice(WORDS)
    elif kind == 1 and "--options" in known:
        line += ["--options", rng.choice(OPTIONS)]
    elif kind == 2:
        line.append(rng.choice(["--zebra", "--size", "-q", "---", "--=3", "extra", "--iterations"]))
    else:
        line += [rng.choice(known or ["--x"]), rng.choice(WORDS)]
    # Whatever is right after all ends at once: one more thing is certainly wrong.
    wrong = CERTAIN.get(name)
    if wrong and rng.random() < 0.9:
        line += [wrong, rng.choice(["-1", "0", "x", "99999999999999999999"])]
    elif name in ("compare", "fingerprint"):
        line += ["--device", rng.choice(["nothing", "cuda:99", ""])]
    return [name, *line]


@pytest.mark.parametrize("count", sizes(60, 1_000))
def test_a_wrong_line_ends_in_a_sentence(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.chdir(tmp_path)
    rng, seen, raw = random.Random(count), Counter[str](), []
    before = signal.signal(signal.SIGALRM, end_it)
    CliRunner().invoke(app, ["fit", *LINES["fit"], "--output", "first"])  # all that is imported is
    try:
        for _ in range(count):
            line = wrong_line(rng)
            shown = " ".join(line)[:200]
            signal.alarm(SECONDS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    result = CliRunner().invoke(app, line)
                error = result.exception
                if error is None or isinstance(error, SystemExit):
                    seen[f"exit {result.exit_code}"] += 1
                elif isinstance(error, DipkernelsError):
                    seen["a sentence"] += 1
                    if isinstance(error, ArgumentsError):
                        raw.append(f"{shown}: {error}")
                else:
                    raw.append(f"{shown}: {type(error).__name__}: {error}")
            except Hang:
                raw.append(f"{shown}: over {SECONDS} s")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
        logging.getLogger("dipkernels").handlers.clear()
        sys.stdout.flush()
    print(f"{count} command lines: {dict(seen)}, raw or too long: {len(raw)}")
    assert raw == []
    assert seen["a sentence"] > count / 10
