"""What fits an annotation: a value is kept, converted, or refused in words.

Annotations are those of typing and of jaxtyping. Arrays, and lists of numbers, fit where a tensor
is asked for, and are converted; shapes of one name are the same within a call.
"""

import collections.abc
import functools
import inspect
import math
import os
import sys
import types
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import numpy as np

from dipkernels.base.values import Call, Refused, as_tensor, hint, is_tensor, misfit, shown

INT64 = 2**63
# Whole numbers that mean the same wherever they stand, from 0 to the largest that has 64 bits.
SEEDS = ("seed", "seeds", "code_seed", "first")
# Any other count or size is a slip beyond it, except of bytes.
MOST = 10**9
OF_BYTES = ("memory_budget", "budget")


class Kind(NamedTuple):
    """What an annotation asks for, in words (none: anything), and what keeps or refuses a value."""

    words: str
    keep: Callable[[Any, Call, str], Any]
    converts: bool = False  # what is no tensor


class Limit(NamedTuple):
    """What a number must be besides, in words that follow "must be", and whether one is."""

    words: str
    holds: Callable[[Any], bool]


def at_least(least: int) -> Limit:
    """Limit a number from below, as in ``Annotated[int, at_least(2)]``."""
    return Limit(f"at least {least}", lambda number: number >= least)


Positive = Annotated[float, Limit("positive and finite", lambda x: 0 < x < math.inf)]
NotNegative = Annotated[float, Limit("finite and not negative", lambda x: 0 <= x < math.inf)]
Share = Annotated[float, Limit("in (0, 1)", lambda x: 0 < x < 1)]
Count = Annotated[int, at_least(1)]
MOST_LAYERS = 1000
Layers = Annotated[int, Limit(f"at most {MOST_LAYERS}", lambda number: number <= MOST_LAYERS)]


def kind_of(annotation: Any, name: str = "") -> Kind:
    """Read an annotation; some whole numbers have a range by their name."""
    try:
        return _kind_of(annotation, name if name in SEEDS else "")
    except TypeError:  # an annotation that can't be hashed
        return _kind_of.__wrapped__(annotation, name if name in SEEDS else "")


def _anything(value: Any, call: Call, name: str) -> Any:
    return value


ANYTHING = Kind("", _anything)
_NO_CLASSES = (object, Any, inspect.Parameter.empty)


@functools.lru_cache(maxsize=4096)
def _kind_of(annotation: Any, name: str) -> Kind:
    origin, inside = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is types.NoneType:
        return Kind("None", _none)
    if annotation in _NUMBERS:
        number = _NUMBERS[annotation]
        seeds = name and annotation is int
        return _within(number, _SEED)._replace(words=_SEED.words) if seeds else number
    if origin in (Union, types.UnionType):
        return _one_of([_kind_of(member, name) for member in inside])
    if origin is Annotated:
        kind = _kind_of(inside[0], name)
        for limit in inside[1:]:
            kind = _within(kind, limit) if isinstance(limit, Limit) else kind
        return kind
    if origin is Literal:
        return _choice(inside)
    if hasattr(annotation, "dim_str"):  # of jaxtyping
        return _array(annotation)
    if annotation is getattr(sys.modules.get("torch"), "Tensor", ...):
        return Kind("a Tensor", as_tensor, converts=True)
    if origin is tuple or annotation is tuple:
        return _tuple(inside, name)
    if origin in _ITEMS or annotation in _ITEMS:
        return _sequence(origin or annotation, inside, name)
    if origin in _MAPPINGS or annotation in _MAPPINGS:
        return _mapping(inside, name)
    if origin is collections.abc.Callable or annotation in (Callable, collections.abc.Callable):
        return Kind("a function", _callable)
    found = origin if isinstance(origin, type) else annotation
    if found in _NO_CLASSES or isinstance(annotation, TypeVar) or not isinstance(found, type):
        return ANYTHING
    return _like(found) if getattr(found, "_is_protocol", False) else _instance(found)


def _float(value: Any, call: Call, name: str) -> float:
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, Real):
        raise Refused
    try:
        kept = float(number)
    except OverflowError:
        kept = math.inf if number > 0 else -math.inf  # type: ignore[operator]
    if math.isnan(kept) and not call.nan:
        raise Refused(f"{name} must be a finite number, got nan")
    return kept


def _int(value: Any, call: Call, name: str) -> int:
    number = _scalar(value)
    if isinstance(number, bool) or not isinstance(number, Integral):
        raise Refused
    whole = int(number)
    if not -INT64 <= whole < INT64:
        raise Refused(f"{name} must be a whole number of 64 bits, got {shown(value)}")
    if not call.nan and abs(whole) > MOST and name not in (*SEEDS, *OF_BYTES):
        raise Refused(f"{name} must be a whole number up to {MOST}, got {shown(value)}")
    return whole


# A number in an array or a tensor without axes is one.
def _scalar(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    if is_tensor(value) and value.dim() == 0:
        try:
            return value.item()
        except RuntimeError:  # one that is being differentiated, or has no numbers
            return value
    return value


def _bool(value: Any, call: Call, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise Refused
    return bool(value)


def _str(value: Any, call: Call, name: str) -> str:
    if not isinstance(value, str):
        raise Refused
    return str(value)


def _path(value: Any, call: Call, name: str) -> Any:
    if not isinstance(value, os.PathLike):
        raise Refused
    return value


def _none(value: Any, call: Call, name: str) -> None:
    if value is not None:
        raise Refused


def _callable(value: Any, call: Call, name: str) -> Any:
    if not callable(value):
        raise Refused
    return value


_NUMBERS: dict[Any, Kind] = {
    float: Kind("a number", _float),
    int: Kind("a whole number", _int),
    bool: Kind("True or False", _bool),
    str: Kind("a word", _str),
    Path: Kind("a path", _path),
}
_ITEMS = (
    list,
    set,
    frozenset,
    collections.abc.Sequence,
    collections.abc.Collection,
    collections.abc.Iterable,
)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four"}
_PLURALS = {
    "a whole number": "whole numbers",
    "a number": "numbers",
    "a word": "words",
    "a Tensor": "tensors",
    "a path": "paths",
    "True or False": "True or False",
}


def _plural(words: str) -> str:
    return _PLURALS.get(words, f"values, each {words}" if words else "values")


_SEED = Limit("a whole number from 0 to 2**63 - 1", lambda number: 0 <= number < INT64)


def _within(kind: Kind, limit: Limit) -> Kind:
    def keep(value: Any, call: Call, name: str) -> Any:
        kept = kind.keep(value, call, name)
        if not limit.holds(kept):
            raise Refused(f"{name} must be {limit.words}, got {shown(value)}")
        return kept

    return Kind(kind.words, keep)


def _one_of(kinds: list[Kind]) -> Kind:
    if any(not kind.words for kind in kinds):
        return ANYTHING
    words = " or ".join(dict.fromkeys(kind.words for kind in kinds))
    for one in kinds:  # not "a Task or several values, each a Task"
        words = words.replace(f" or several values, each {one.words}", ", or several")

    def keep(value: Any, call: Call, name: str) -> Any:
        said, sizes = "", dict(call.sizes)
        # One that takes the value as it is goes before one that would convert it.
        for as_it_is in (True, False):
            for kind in kinds:
                if as_it_is and kind.converts and not is_tensor(value):
                    continue
                try:
                    return kind.keep(value, call, name)
                except Refused as refused:
                    said = said or refused.sentence
                    call.sizes = dict(sizes)
        raise Refused(said)

    return Kind(words, keep, converts=any(kind.converts for kind in kinds))


def _choice(choices: tuple[Any, ...]) -> Kind:
    def keep(value: Any, call: Call, name: str) -> Any:
        if not any(isinstance(value, type(c)) and value == c for c in choices):
            raise Refused
        return value

    return Kind(f"one of {', '.join(map(str, choices))}", keep)


def _instance(of: type) -> Kind:
    article = "an" if of.__name__[0] in "AEIO" or of.__name__ == "NTK" else "a"
    called = "a NumPy array" if of is np.ndarray else f"{article} {of.__name__}"

    def keep(value: Any, call: Call, name: str) -> Any:
        if not isinstance(value, of):
            raise Refused
        dtype = getattr(value, "dtype", None)
        if isinstance(dtype, np.dtype) and of is np.ndarray and dtype.kind not in "biufc":
            raise Refused(f"{name} must be an array of numbers, got one of {dtype}")
        return value

    return Kind(called, keep)


def _like(protocol: type) -> Kind:
    bases = [each for each in protocol.__mro__ if getattr(each, "_is_protocol", False)]
    asked = {name for each in bases for name in vars(each) if name[0] != "_"}

    def keep(value: Any, call: Call, name: str) -> Any:
        if any(not hasattr(value, each) for each in asked):
            raise Refused
        return value

    return Kind(f"a {protocol.__name__} (with {', '.join(sorted(asked))})", keep)


def _is_sequence(value: Any) -> bool:
    is_dataset = type(value).__module__.startswith("xarray") and hasattr(value, "data_vars")
    if isinstance(value, str | bytes | dict) or is_dataset or not hasattr(value, "__len__"):
        return False
    if isinstance(value, np.ndarray) or is_tensor(value):
        return bool(value.ndim)
    return isinstance(value, collections.abc.Iterable)


def _tuple(inside: tuple[Any, ...], name: str) -> Kind:
    if not inside or inside[-1] is Ellipsis:
        return _sequence(tuple, inside[:1], name)
    kinds = [_kind_of(each, name) for each in inside]
    same = len({kind.words for kind in kinds}) == 1
    of_what = _plural(kinds[0].words) if same else ", ".join(k.words or "a value" for k in kinds)
    words = f"{_COUNTS.get(len(kinds), len(kinds))} {of_what}" if same else f"({of_what})"

    def keep(value: Any, call: Call, name: str) -> Any:
        if not _is_sequence(value) or len(value) != len(kinds):
            raise Refused
        kept = [k.keep(each, call, name) for k, each in zip(kinds, value, strict=True)]
        return type(value)(*kept) if hasattr(value, "_fields") else tuple(kept)

    return Kind(words, keep)


def _sequence(of: Any, inside: tuple[Any, ...], name: str) -> Kind:
    item = _kind_of(inside[0], name) if inside else ANYTHING
    words = f"several {_plural(item.words)}"
    lazy = of is collections.abc.Iterable

    def keep(value: Any, call: Call, name: str) -> Any:
        if lazy and isinstance(value, collections.abc.Iterable) and not isinstance(value, str):
            return value
        if not _is_sequence(value):
            raise Refused
        if not item.words or (isinstance(value, range) and inside[0] in (int, float)):
            return value
        items = value.tolist() if isinstance(value, np.ndarray) else value
        sizes = dict(call.sizes)
        kept = []
        for each in items:  # each may have sizes of its own
            call.sizes = dict(sizes)
            try:
                kept.append(item.keep(each, call, name))
            except Refused as refused:
                words = refused.sentence.replace(f"{name} must be ", f"each of {name} must be ", 1)
                raise Refused(words) from None
        call.sizes = sizes
        if isinstance(value, list | set | frozenset) and not hasattr(value, "_fields"):
            return type(value)(kept)
        if of is list:
            return kept
        if isinstance(value, tuple | np.ndarray) or is_tensor(value):
            return tuple(kept)
        same = all(a is b for a, b in zip(kept, items, strict=True))
        return value if same else tuple(kept)

    return Kind(words, keep)


def _mapping(inside: tuple[Any, ...], name: str) -> Kind:
    key, value_kind = (_kind_of(each, "") for each in inside) if inside else (ANYTHING, ANYTHING)
    of_what = f" of {_plural(value_kind.words)}" if value_kind.words else ""
    words = f"a mapping{of_what}"

    def keep(value: Any, call: Call, name: str) -> Any:
        is_dataset = type(value).__module__.startswith("xarray")  # which is a mapping, too
        if not isinstance(value, collections.abc.Mapping) or is_dataset:
            raise Refused
        sizes, changed, kept = dict(call.sizes), False, {}
        if not (key.words or value_kind.words):
            return value
        if not isinstance(value, dict):  # one that reads its values when they are asked for
            for each in value:
                key.keep(each, call, name)
            return value
        for k, v in value.items():
            call.sizes = dict(sizes)
            try:
                kept_key = key.keep(k, call, name)
            except Refused:
                raise Refused(f"each key of {name} must be {key.words}, got {shown(k)}") from None
            kept[kept_key] = new = value_kind.keep(v, call, f"{name}[{shown(k)}]")
            changed = changed or new is not v
        call.sizes = sizes
        return kept if changed else value

    return Kind(words, keep)


def _array(annotation: Any) -> Kind:
    dims, dtypes = annotation.dim_str.split(), annotation.dtypes
    base = _kind_of(annotation.array_type, "")
    of_what = {"Float": "floating-point numbers", "Bool": "True and False", "Int": "whole numbers"}
    called = annotation.__name__.partition("[")[0]
    what = f" of {of_what[called]}" if called in of_what else ""
    axes = ", ".join("..." if d == "..." else d for d in dims)
    wanted = f"{base.words}{what}" + (f" of shape ({axes})" if dims != ["..."] else "")

    def keep(value: Any, call: Call, name: str) -> Any:
        kept = base.keep(value, call, name)
        dtype = str(kept.dtype).removeprefix("torch.")
        shape = tuple(kept.shape)
        if isinstance(dtypes, tuple) and dtype not in dtypes:
            raise Refused(f"{name} must be {wanted}, got {dtype} of shape {shape}{hint(dtype)}")
        if trouble := misfit(dims, shape, call.sizes):
            raise Refused(f"{name} must be {wanted}{trouble}, got shape {shape}")
        return kept

    return Kind(base.words, keep, base.converts)
