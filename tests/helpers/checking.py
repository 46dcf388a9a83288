"""Check every annotated shape and type of the package at every call, at a small cost to the tests.

jaxtyping's hook decorates each function, also what is defined within another one at each of its
calls, and for each has beartype write two checks: of the arguments, and of them with the result.
Here a piece of code gets one check of both, which is written at its first call.
"""

import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable
from types import CellType, FunctionType
from typing import Any, get_type_hints

import jaxtyping
from beartype import beartype

_original = jaxtyping.jaxtyped
_context = _original("context")  # within it, sizes of one name are the same
_checks: dict[Any, Callable[..., Any]] = {}


class _Called(threading.local):
    def __init__(self) -> None:
        self.functions: list[Callable[..., Any]] = []


_called = _Called()


def install(package: str) -> None:
    """Check all that is imported of a package from now on."""
    jaxtyping.jaxtyped = lambda *, typechecker: _checked
    jaxtyping.install_import_hook(package, "beartype.beartype")


def _checked(made: Any) -> Any:
    if isinstance(made, type):
        made_init = vars(made).get("__init__")
        if dataclasses.is_dataclass(made) and made_init and not hasattr(made_init, "_is_checked"):
            made.__init__ = _checked(made.__init__)
        return made
    if not made.__annotations__:
        return made
    if inspect.isgeneratorfunction(made):
        return _original(made, typechecker=beartype)
    check = None

    @functools.wraps(made)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        nonlocal check
        if jaxtyping.config.jaxtyping_disable:
            return made(*args, **kwargs)
        check = check or _check_of(made)
        _called.functions.append(made)
        try:
            with _context:
                return check(*args, **kwargs)
        finally:
            _called.functions.pop()

    return call


def _check_of(function: FunctionType) -> Callable[..., Any]:
    """Have a check written that calls what is called last, so that it serves every closure."""
    key = (function.__code__, *map(_named, function.__annotations__.items()))
    if key not in _checks:
        code = function.__code__
        empty = tuple(CellType() for _ in code.co_freevars)
        like = FunctionType(code, function.__globals__, function.__name__, None, empty)
        like.__module__, like.__qualname__ = function.__module__, function.__qualname__
        like.__annotations__ = {
            name: _resolved(hint, function) for name, hint in function.__annotations__.items()
        }

        @functools.wraps(like)
        def last(*args: Any, **kwargs: Any) -> Any:
            return _called.functions[-1](*args, **kwargs)

        _checks[key] = beartype(last)
    return _checks[key]


# Most hints are equal where they mean the same; a ParamSpec's can't be compared.
def _named(item: tuple[str, Any]) -> tuple[str, Any]:
    name, hint = item
    return name, hint if getattr(hint, "__hash__", None) else repr(hint)


def _resolved(hint: Any, function: FunctionType) -> Any:
    if not isinstance(hint, str):
        return hint
    try:
        return get_type_hints(_with(hint), function.__globals__, include_extras=True)["value"]
    except NameError:  # known to type checkers alone
        return Any


def _with(hint: Any) -> FunctionType:
    def of(value: Any) -> None: ...

    of.__annotations__ = {"value": hint}
    return of
