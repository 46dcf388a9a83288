"""Wrong calls of everything public: each gives a result, or a sentence; nothing raw, no hang."""

import itertools
import logging
import signal
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from dipkernels.base import checks
from dipkernels.base.checks import is_checked
from dipkernels.errors import ArgumentsError
from helpers import checking
from helpers.calls import is_raw, public_callables, wrong_calls
from helpers.campaigns import sizes

SECONDS = 10  # of a call
# Of all calls: those that no check of their own foresaw, and the boundary put into a sentence.
UNFORESEEN = 0.08


class Hang(BaseException):
    """A call that took too long."""


def end_it(*_: Any) -> None:
    raise Hang


# What neither checks nor can: a command line reads its own words; errors are made of any text.
BARE = {"dipkernels.cli:main", "dipkernels.errors:install_command"}


def test_everything_public_is_checked() -> None:
    bare = {name for name, function in public_callables().items() if not is_checked(function)}
    assert bare - BARE == set()
    assert len(public_callables()) > 400


@pytest.mark.parametrize("count", sizes(80, 20_000))
def test_a_wrong_call_gives_a_result_or_a_sentence(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    # The checks of tests stand between a call and its body, and are no code of a user's.
    monkeypatch.setattr(checks, "_LIBRARIES", (*checks._LIBRARIES, checking.__file__))
    monkeypatch.chdir(tmp_path)
    seen: Counter[str] = Counter()
    raw, before = [], signal.signal(signal.SIGALRM, end_it)
    logging.disable(logging.CRITICAL)
    try:
        for call in itertools.islice(wrong_calls(seed=count), count):
            signal.alarm(SECONDS)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    call()
                seen["result"] += 1
            except Hang:
                raw.append(f"{call} took over {SECONDS} s")
            except Exception as error:
                kind = "unforeseen" if isinstance(error, ArgumentsError) else "a sentence"
                seen[kind] += 1
                if is_raw(error):
                    raw.append(f"{call}: {type(error).__name__}: {error}")
            finally:
                signal.alarm(0)
    finally:
        signal.signal(signal.SIGALRM, before)
        logging.disable(logging.NOTSET)
    print(f"{count} wrong calls: {dict(seen)}, raw or too long: {len(raw)}")
    assert raw == []
    assert seen["unforeseen"] <= UNFORESEEN * count
