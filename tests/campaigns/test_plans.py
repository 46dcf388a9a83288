"""YAML plans that are mutated: each is read, or refused with a sentence; none hangs."""

import logging
import random
import signal
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dipkernels import sweep
from dipkernels.errors import DipkernelsError
from helpers.campaigns import sizes

SECONDS = 20  # of a plan, which may make a few networks
PLAN = """\
priors: {name: conv, options: {width: 3}}
tasks: {name: denoise, noise_sigma: 0.1}
images: camera
sizes: 8
seeds: {from: 0, count: 2}
measure: {name: fit, iterations: 2}
"""
WORDS = (
    *("1e12", "-1", "0", ".nan", ".inf", "null", "yes", "~", "''", "[]", "{}", "nonsense", "1.5"),
    *("99999999999999999999", "1000000", "native", "8x8x8", "2024-13-45", "!!binary x", "*a"),
    *("!!python/object/apply:os.system [ls]", "&a [*a]", "[" * 3000, "{a: " * 60, "x" * 5000),
    *("{from: 0, count: 1000000000000}", "{count: -1}", "{name: fit}", "[1, 1]", "[a, [b, [c]]]"),
    *("skip", "conv", "inpaint", "camera", "../..", "/dev/zero", "sys", "this_is_no_module"),
)
KEYS = ("priors", "tasks", "images", "sizes", "seeds", "measure", "imports", "blocks", "zebra")
BOMB = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 8)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


def mutated(rng: random.Random) -> str:
    """Change a line, a word, some letters, or append something."""
    lines = PLAN.splitlines()
    for _ in range(rng.choice([1, 1, 2])):
        kind, at = rng.randrange(7), rng.randrange(len(lines))
        key, _, value = lines[at].partition(": ")
        if kind <= 1:
            lines[at] = f"{key}: {rng.choice(WORDS)}"
        elif kind == 2:
            lines.append(f"{rng.choice(KEYS)}: {rng.choice(WORDS)}")
        elif kind == 3:
            inside = value.rstrip("}").split(": ")
            inside[rng.randrange(len(inside))] = rng.choice(WORDS)
            lines[at] = f"{key}: {': '.join(inside)}" + "}" * value.endswith("}")
        elif kind == 4 and lines[at]:
            letter = rng.choice("\t{}[]:,&*#?|>!%@`'\"\0\u2028 -x")
            place = rng.randrange(len(lines[at]))
            lines[at] = lines[at][:place] + letter + lines[at][place + 1 :]
        elif kind == 5:
            del lines[at]
            lines = lines or [""]
        else:
            lines.insert(at, rng.choice([BOMB, "- a", "---", "  " * 50 + "a: b", "<<: 3"]))
    return "\n".join(lines)


class Hang(BaseException):
    """A plan that took too long."""


def end_it(*_: Any) -> None:
    raise Hang


@pytest.mark.parametrize("count", sizes(40, 1_000))
def test_a_plan_is_read_or_refused(count: int, tmp_path: Path) -> None:
    rng, seen, raw = random.Random(count), Counter[str](), []
    file = tmp_path / "plan.yaml"
    file.write_text(PLAN, encoding="utf-8")
    assert len(sweep.load(file)) == 2  # and all that is imported at first is
    before = signal.signal(signal.SIGALRM, end_it)
    logging.disable(logging.CRITICAL)
    try:
        for _ in range(count):
            text = mutated(rng)
            file.write_text(text, encoding="utf-8")
            signal.alarm(SECONDS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    sweep.load(file)
                seen["read"] += 1
            except DipkernelsError as error:
                seen["a sentence"] += 1
                if "can't use these arguments" in str(error):
                    raw.append(f"{text}\n{error}")
            except (Exception, Hang) as error:
                raw.append(f"{text}\n{type(error).__name__}: {error}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
        logging.disable(logging.NOTSET)
    print(f"{count} plans: {dict(seen)}, raw or too long: {len(raw)}")
    assert raw == []
    assert min(seen["read"], seen["a sentence"]) > count / 20
