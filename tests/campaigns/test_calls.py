"""Wrong calls of everything public: each gives a result, or a sentence; nothing raw, no hang."""

import inspect
import itertools
import logging
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
from torch import Tensor

from dipkernels.base import checks
from dipkernels.base.checks import as_annotated, is_checked
from dipkernels.errors import ArgumentsError, InvalidInputError
from helpers import checking
from helpers.calls import (
    WRONG,
    arguments,
    fits_class,
    hints,
    is_raw,
    public_callables,
    right,
    wrong_calls,
)
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


@pytest.mark.parametrize("count", sizes(120, 20_000))
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


def test_a_wrong_name_is_refused_by_everything_public() -> None:
    for name, function in public_callables().items():
        kinds = [each.kind for each in inspect.signature(function).parameters.values()]
        if name in BARE or inspect.Parameter.VAR_KEYWORD in kinds:
            continue
        with pytest.raises(ArgumentsError, match=r"can't be called so .*it takes"):
            function(zebra=1)


# Of kinds that few annotations let pass, and none without a reason.
WALKED = ("object", "list of text", "complex")


def parameters_of(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Names of all arguments, and their annotations."""
    known = hints(function)
    for name, each in inspect.signature(function).parameters.items():
        if name not in ("self", "cls") and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL):
            yield name, known.get(name, Any)


def test_every_argument_of_everything_public_is_refused_by_its_name() -> None:
    count = 0
    for called, function in public_callables().items():
        if called in BARE:
            continue
        first = next(iter(inspect.signature(function).parameters), "")
        owner = (None,) if first in ("self", "cls") else ()
        given, asked = arguments(function), dict(parameters_of(function))
        unmade = [each for each, value in given.items() if not fits_class(value, asked[each])]
        for name, annotation in asked.items():
            for wrong in WALKED:
                if fits_class(WRONG[wrong](), annotation):
                    continue
                count += 1
                with pytest.raises(InvalidInputError, match="|".join([name, *unmade])):
                    function(*owner, **{**given, name: WRONG[wrong]()})
    print(f"{count} arguments of wrong kinds: all refused by name")
    assert count > 1500


def test_arrays_and_lists_are_taken_wherever_a_tensor_is() -> None:
    count = 0
    for function in public_callables().values():
        for name, annotation in parameters_of(function):
            value = right(annotation, name)
            if not isinstance(value, Tensor) or not fits_class(value, annotation):
                continue
            count += 1
            for like in (value.numpy(), value.tolist()):
                kept = as_annotated(name, like, annotation)
                np.testing.assert_array_equal(np.asarray(kept), value.numpy())
    print(f"{count} tensors: arrays and lists are taken, too")
    assert count > 100
