"""Checks values that users give against the annotations of what takes them, in one sentence."""

import functools
import inspect
import math
import os
import types
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

import numpy as np

from dipkernels.errors import InvalidInputError

LONGEST = 200  # of what a message shows of a value
P = ParamSpec("P")
R = TypeVar("R")

# What a value may be, how it is kept (NumPy's numbers as Python's), what to ask for.
_Kind = tuple[tuple[type, ...], Callable[[Any], Any], str]
_KINDS: dict[Any, _Kind] = {
    float: ((Real,), lambda number: _float(number), "a number"),
    int: ((Integral,), int, "a whole number"),
    bool: ((bool,), bool, "True or False"),
    str: ((str,), str, "a word"),
    Path: ((os.PathLike,), lambda path: path, "a path"),
    tuple[int, ...]: ((tuple, list), tuple, "several whole numbers"),
    tuple[int, int]: ((tuple, list), tuple, "two whole numbers"),
    Sequence[int]: ((tuple, list, range), tuple, "several whole numbers"),
    np.ndarray: ((np.ndarray,), lambda array: array, "a NumPy array"),
    types.NoneType: ((types.NoneType,), lambda _: None, "None"),
}
# Classes that say nothing of a value.
_ANYTHING = (object, Any, inspect.Parameter.empty)


def as_annotated(name: str, value: Any, annotation: Any) -> Any:
    """Check a value against an annotation.

    Examples
    --------
    >>> as_annotated("rate", 1, float | None)
    1.0
    """  # noqa: DOC201, DOC501
    union = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kinds = [(member, _kind(member)) for member in union]
    if any(kind is None for _, kind in kinds):
        return value
    for member, kind in kinds:
        allowed, keep, _ = kind  # type: ignore[misc]
        if isinstance(value, bool) and member in (int, float):
            continue
        if isinstance(value, allowed) and _holds_numbers(value, get_args(member)):
            return keep(value)
    wanted = " or ".join(kind[2] for _, kind in kinds if kind is not None)
    given = repr(value) if len(repr(value)) < LONGEST else f"a {type(value).__name__}"
    raise InvalidInputError(f"{name} must be {wanted}, got {given}")


def require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Check that a value is one of a few."""
    if value not in choices:
        listed = ", ".join(map(str, choices))
        raise InvalidInputError(f"{name} must be one of {listed}, got {value!r}")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the plain arguments of every call, before anything runs on them.

    Examples
    --------
    >>> @checked
    ... def halve(number: float) -> float:
    ...     return number / 2
    >>> halve("a")
    Traceback (most recent call last):
    dipkernels.errors.InvalidInputError: number must be a number, got 'a'
    """  # noqa: DOC201
    signature = inspect.signature(function)
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    annotations = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if parameter.kind not in several
    }

    @functools.wraps(function)
    def with_checks(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # Python says it better, with the function's name
            return function(*args, **kwargs)
        for name in [each for each in bound.arguments if each in annotations]:
            bound.arguments[name] = as_annotated(name, bound.arguments[name], annotations[name])
        return function(*bound.args, **bound.kwargs)

    return with_checks


def _kind(annotation: Any) -> _Kind | None:
    if annotation in _KINDS:
        return _KINDS[annotation]
    # of jaxtyping; shapes are said by what takes them
    array = getattr(annotation, "array_type", None)
    found = annotation if array is None else array
    if not isinstance(found, type) or found in _ANYTHING or getattr(found, "_is_protocol", False):
        return None
    article = "an" if found.__name__[0] in "AEIO" or found.__name__ == "NTK" else "a"
    return (found,), lambda value: value, f"{article} {found.__name__}"


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _holds_numbers(value: Any, kinds: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple | list):
        return True
    items = list(value)
    if Ellipsis not in kinds and kinds.count(int) > 1 and len(items) != len(kinds):
        return False
    return all(isinstance(item, Integral) and not isinstance(item, bool) for item in items)
