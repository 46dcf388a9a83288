"""Checks values that users give against the annotations of what takes them, in one sentence."""

import functools
import inspect
import os
import types
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, get_args

from dipkernels.errors import InvalidInputError

P = ParamSpec("P")
R = TypeVar("R")

# What a value may be, how it is kept (NumPy's numbers as Python's), what to ask for.
_KINDS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any], str]] = {
    float: ((Real,), float, "a number"),
    int: ((Integral,), int, "a whole number"),
    bool: ((bool,), bool, "True or False"),
    str: ((str,), str, "a word"),
    Path: ((os.PathLike,), lambda path: path, "a path"),
    tuple[int, ...]: ((tuple, list), tuple, "several whole numbers"),
    tuple[int, int]: ((tuple, list), tuple, "two whole numbers"),
    Sequence[int]: ((tuple, list), tuple, "several whole numbers"),
    types.NoneType: ((types.NoneType,), lambda _: None, "None"),
}


def as_annotated(name: str, value: Any, annotation: Any) -> Any:
    """Check a value against an annotation.

    Parameters
    ----------
    name : str
        Of the parameter.
    value : object
        What was given.
    annotation : type
        ``int``, ``float``, ``bool``, ``str``, ``Path``, ``tuple[int, int]``, ``tuple[int, ...]``,
        ``Sequence[int]``, None, or a union of them; a value of any other is returned as it is.

    Returns
    -------
    object
        The value as a plain Python one.

    Raises
    ------
    InvalidInputError
        If it is of none of these types. True is no number.

    Examples
    --------
    >>> as_annotated("rate", 1, float | None)
    1.0
    """
    union = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    if not all(kind in _KINDS for kind in union):
        return value
    for kind in union:
        allowed, keep, _ = _KINDS[kind]
        if isinstance(value, bool) and kind is not bool:
            continue
        if isinstance(value, allowed) and _holds_numbers(value, get_args(kind)):
            return keep(value)
    wanted = " or ".join(_KINDS[kind][2] for kind in union)
    raise InvalidInputError(f"{name} must be {wanted}, got {value!r}")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Check the plain arguments of every call, before anything runs on them.

    Parameters
    ----------
    function : callable
        Annotated; arguments of types that `as_annotated` doesn't know are passed on as they are.

    Returns
    -------
    callable
        The same with checks.

    Examples
    --------
    >>> @checked
    ... def halve(number: float) -> float:
    ...     return number / 2
    >>> halve("a")
    Traceback (most recent call last):
    dipkernels.errors.InvalidInputError: number must be a number, got 'a'
    """
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
        for name in bound.arguments.keys() & annotations:
            bound.arguments[name] = as_annotated(name, bound.arguments[name], annotations[name])
        return function(*bound.args, **bound.kwargs)

    return with_checks


def _holds_numbers(value: Any, kinds: tuple[Any, ...]) -> bool:
    if not isinstance(value, tuple | list):
        return True
    items = list(value)
    if Ellipsis not in kinds and kinds.count(int) > 1 and len(items) != len(kinds):
        return False
    return all(isinstance(item, Integral) and not isinstance(item, bool) for item in items)
