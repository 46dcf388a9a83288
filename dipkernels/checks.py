"""Checks values that users give against the annotations of what takes them, in one sentence."""

import types
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, get_args

from dipkernels.errors import InvalidInputError

# What a value may be, how it is kept (NumPy's numbers as Python's), what to ask for.
_KINDS: dict[Any, tuple[tuple[type, ...], Callable[[Any], Any], str]] = {
    float: ((Real,), float, "a number"),
    int: ((Integral,), int, "a whole number"),
    bool: ((bool,), bool, "True or False"),
    str: ((str,), str, "a word"),
    tuple[int, ...]: ((tuple, list), tuple, "several whole numbers"),
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
        ``int``, ``float``, ``bool``, ``str``, ``tuple[int, ...]``, ``Sequence[int]``, None, or a
        union of them; a value of any other is returned as it is.

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
        if isinstance(value, allowed) and _holds_numbers(value):
            return keep(value)
    wanted = " or ".join(_KINDS[kind][2] for kind in union)
    raise InvalidInputError(f"{name} must be {wanted}, got {value!r}")


def _holds_numbers(value: Any) -> bool:
    items = value if isinstance(value, tuple | list) else ()
    return all(isinstance(item, Integral) and not isinstance(item, bool) for item in items)
