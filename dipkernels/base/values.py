"""Values as they are given: told apart, shown in messages, and made tensors."""

import reprlib
import sys
import types
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 200  # of what a message shows of a value


class Refused(Exception):  # noqa: N818, no error of a user's
    """A value that doesn't fit; with a sentence, where there's more to say than what was asked."""

    def __init__(self, sentence: str = "") -> None:
        self.sentence = sentence
        super().__init__(sentence)


@dataclass
class Call:
    """What holds for all arguments of one call, and the sizes so far; `nan`: they are results."""

    nan: bool = True
    sizes: dict[str, Any] = field(default_factory=dict)


def is_tensor(value: Any) -> bool:
    """Tell a tensor, without importing torch, which takes a second."""
    return "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor)


def shown(value: Any) -> str:
    """Write a value for a message: whole if it is short."""
    try:
        text = _SHORT.repr(value) if isinstance(value, _PLAIN) else repr(value)
    except Exception:  # whatever a stranger's repr raises
        text = "x" * LONGEST
    return text if len(text) < LONGEST else f"a {type(value).__name__}"


def described(value: Any) -> str:
    """Write a value for a list of arguments: of an array its type and shape."""
    if is_tensor(value) or isinstance(value, np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, (*_PLAIN, types.NoneType, Path)):
        text = shown(value)
        return text if len(text) < LONGEST // 2 else f"a {type(value).__name__}"
    return f"a {type(value).__name__}"


_PLAIN = (str, bytes, int, float, list, tuple, dict, set, frozenset)
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, LONGEST, LONGEST, 50
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = _SHORT.maxset = 12


def as_tensor(value: Any, call: Call, name: str) -> Any:
    """Convert an array, or nested lists of numbers, once."""
    if is_tensor(value):
        if value.layout != sys.modules["torch"].strided:
            raise Refused(f"{name} must be a dense tensor, got {value.layout}: x.to_dense() is one")
        return value
    if isinstance(value, str | bytes | dict | set | Real | types.NoneType):
        raise Refused
    import torch

    if not isinstance(value, np.ndarray):
        is_list = isinstance(value, list | tuple)
        if not is_list and not hasattr(value, "__array__"):
            raise Refused
        if is_list and len(value) and all(map(is_tensor, value)):
            raise Refused
        try:
            array = np.asarray(value)
        except Exception:  # ragged, or whatever a stranger's array raises
            raise Refused from None
        array = array.astype(np.float32) if is_list and array.dtype.kind in "iuf" else array
    else:
        array = value
    if array.dtype.kind not in "biufc":
        raise Refused(f"{name} must be an array of numbers, got one of {array.dtype}")
    if array.dtype.itemsize > 8 and array.dtype.kind == "f":
        array = array.astype(np.float64)
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))
    except TypeError:
        raise Refused(f"{name} must be an array that torch knows, got {array.dtype}") from None


def hint(dtype: str) -> str:
    """Say what to do about a type of numbers, if anything."""
    return ": divide integers by their white" if "int" in dtype else ""


def misfit(dims: list[str], shape: tuple[int, ...], sizes: dict[str, Any]) -> str:
    """Say how a shape doesn't fit, if so; names bind a size, in `sizes`, for the whole call."""
    if not all(d == "..." or d.lstrip("*").isidentifier() or d.isdigit() for d in dims):
        return ""  # what only jaxtyping reads
    several = [i for i, d in enumerate(dims) if d == "..." or d[0] == "*"]
    least = len(dims) - len(several)
    if len(shape) < least or (not several and len(shape) != least):
        return f" ({'at least ' if several else ''}{least} axes)"
    at = several[0] if several else len(dims)
    after = len(shape) - len(dims[at + 1 :]) if several else len(shape)
    found = [*shape[:at], *([shape[at:after]] if several else []), *shape[after:]]
    for name, size in zip(dims, found, strict=True):
        if name in ("_", "..."):
            continue
        known = int(name) if name.isdigit() else sizes.setdefault(name, size)
        if known != size:
            return f", there {name.lstrip('*')} = {known}" if not name.isdigit() else " exactly"
    return ""
