"""Checks values that users give against the annotations of what takes them, in one sentence.

`checked` is the boundary of the package: on a function it checks the arguments of every call, on a
class those of its constructor and of its public methods. `dipkernels.base.kinds` says what fits an
annotation; here is who asks, and when.
"""

import functools
import inspect
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints, overload

from dipkernels.base.kinds import Kind, kind_of
from dipkernels.base.values import Call, Refused, described, shown
from dipkernels.base.words import meant
from dipkernels.errors import (
    ArgumentsError,
    DipkernelsError,
    InvalidInputError,
    MemoryLimitError,
)

Made = TypeVar("Made", bound=Callable[..., Any])

# What torch and NumPy say of a size that no memory holds, or that no number of bytes can count.
NO_MEMORY = (
    "defaultcpuallocator",
    "can't allocate memory",
    "not enough memory",
    "storage size calculation overflowed",
    "invalid size: overflow",
    "maximum supported dimension",
    "array is too big",
    "maximum allowed dimension",
    "maximum allowed size",
    "numel: integer multiplication overflow",
    "integer multiplication overflow",
    "size is too large",
    "overflow when unpacking long",
)


def as_annotated(
    name: str, value: Any, annotation: Any, *, nan: bool = True, call: Call | None = None
) -> Any:
    """Check a value against an annotation; `nan` allows NaN for a number.

    Examples
    --------
    >>> as_annotated("rate", 1, float | None)
    1.0
    """  # noqa: DOC201
    return _read(name, value, kind_of(annotation), Call(nan=nan) if call is None else call)


def require_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Check that a value is one of a few."""
    if not any(isinstance(value, type(c)) and value == c for c in choices):
        listed = ", ".join(map(str, choices))
        raise InvalidInputError(f"{name} must be one of {listed}, got {shown(value)}")


@overload
def checked(made: Made) -> Made: ...
@overload
def checked(*, nan: bool) -> Callable[[Made], Made]: ...
def checked(made: Any = None, *, nan: bool = False) -> Any:
    """Check the arguments of every call, before anything runs on them.

    Of a class: of its constructor and its public methods. Arrays and lists of numbers become
    tensors where a tensor is asked for. What no check foresaw ends in a sentence that names the
    arguments, with the error as its cause. `nan`: numbers may be NaN or of any size, as results.

    Examples
    --------
    >>> @checked
    ... def halve(number: float) -> float:
    ...     return number / 2
    >>> halve("a")
    Traceback (most recent call last):
    dipkernels.errors.InvalidInputError: number must be a number, got 'a'
    """  # noqa: DOC201
    if made is None:
        return functools.partial(checked, nan=nan)
    return _checked_class(made, nan) if isinstance(made, type) else _checked_call(made, nan)


def is_checked(function: object) -> bool:
    """Tell whether `checked` stands before a function, or a method."""
    return bool(getattr(function, "_is_checked", False))


def _checked_class(made: type, nan: bool) -> type:
    for name, member in list(vars(made).items()):
        if name.startswith("_") and name not in ("__init__", "__call__"):
            continue
        if name == "forward":  # of a torch module, which torch calls and traces
            continue
        if name == "__init__" and getattr(made, "_is_protocol", False):  # typing's own
            continue
        if isinstance(member, classmethod | staticmethod):
            wrapped: Any = type(member)(_checked_call(member.__func__, nan))
        elif isinstance(member, types.FunctionType):
            wrapped = _checked_call(member, nan)
        else:
            continue
        setattr(made, name, wrapped)
    return made


class _Parameter(NamedTuple):
    name: str
    kind: Kind
    of_each: str  # "" or which of several values: "items", "values"


def _checked_call(function: Any, nan: bool) -> Any:
    if is_checked(function):
        return function
    signature: inspect.Signature | None = None
    parameters: list[_Parameter] = []

    @functools.wraps(function)
    def with_checks(*args: Any, **kwargs: Any) -> Any:
        nonlocal signature, parameters
        if _is_compiling():  # torch.compile reads this code, too
            return function(*args, **kwargs)
        if signature is None:  # at the first call, when all names that annotations use are there
            found = inspect.signature(function)
            parameters = _parameters(found, function)
            signature = found
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentsError(_unbound(error, function, signature, kwargs)) from None
        given, call = bound.arguments, Call(nan=nan)
        for name, kind, several in parameters:
            if name not in given:
                continue
            if not several:
                given[name] = _read(name, given[name], kind, call)
            elif several == "items":
                given[name] = tuple(_read(name, value, kind, call) for value in given[name])
            else:
                given[name] = {k: _read(k, v, kind, call) for k, v in given[name].items()}
        if _inside.calls:  # what a caller of ours catches stays what it is
            return function(*bound.args, **bound.kwargs)
        _inside.calls = True
        try:
            return function(*bound.args, **bound.kwargs)
        except (DipkernelsError, Warning):
            raise
        except Exception as error:
            told = _told(error, function, given, parameters)
            if told is None:
                raise
            raise told from error
        finally:
            _inside.calls = False

    with_checks._is_checked = True  # type: ignore[attr-defined]
    return with_checks


def _parameters(signature: inspect.Signature, function: Any) -> list[_Parameter]:
    several: dict[Any, str] = {
        inspect.Parameter.VAR_POSITIONAL: "items",
        inspect.Parameter.VAR_KEYWORD: "values",
    }
    read = [
        _Parameter(
            name,
            kind_of(_resolved(each.annotation, function), name),
            several.get(each.kind, ""),
        )
        for name, each in signature.parameters.items()
    ]
    return [each for each in read if each.kind.words]


# Names that only type checkers know are not checked.
def _resolved(annotation: Any, function: Any) -> Any:
    if not isinstance(annotation, str):
        return annotation
    inner = inspect.unwrap(function)

    def of(value: Any) -> None: ...

    of.__annotations__ = {"value": annotation}
    try:
        return get_type_hints(of, inner.__globals__, include_extras=True)["value"]
    except (NameError, SyntaxError, TypeError):
        return Any


def _read(name: str, value: Any, kind: Kind, call: Call) -> Any:
    try:
        return kind.keep(value, call, name)
    except Refused as refused:
        raise InvalidInputError(refused.sentence or _sentence(name, value, kind)) from None


def _sentence(name: str, value: Any, kind: Kind) -> str:
    return f"{name} must be {kind.words}, got {shown(value)}"


def _is_compiling() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.compiler.is_compiling())


class _Inside(threading.local):
    calls = False


_inside = _Inside()


# Of a wrong name or number of arguments: what is wrong, which name was meant, and which there are.
def _unbound(
    error: TypeError, function: Any, signature: inspect.Signature, named: Iterable[str]
) -> str:
    taken = [
        each.replace(annotation=each.empty)
        for name, each in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    takes = signature.replace(parameters=taken, return_annotation=signature.empty)
    rest = any(each.kind is each.VAR_KEYWORD for each in taken)
    unknown = "" if rest else next((name for name in named if name not in takes.parameters), "")
    what = f"it has no argument '{unknown}'" if unknown else str(error)
    hint = meant(unknown, takes.parameters) if unknown else ""
    return f"{_called(function)} can't be called so ({what}): {hint}it takes {takes}"


def _called(function: Any) -> str:
    return str(function.__qualname__).removesuffix(".__init__")


# What was right in its type and couldn't be, in words: a size that no memory holds, a dataset of
# another kind, arguments that don't go together. What a user's own code raises stays as it is.
def _told(
    error: Exception, function: Any, given: dict[str, Any], parameters: list[_Parameter]
) -> DipkernelsError | None:
    frames = list(_frames(error))
    of_checkers = type(error).__module__.split(".")[0] in ("beartype", "jaxtyping")
    if of_checkers or any(_is_users(frame) for frame in frames):
        return None
    called, said = _called(function), str(error).lower()
    values = {name: value for name, value in given.items() if name not in ("self", "cls")}
    told = ", ".join(f"{name}={described(value)}" for name, value in values.items())
    if isinstance(error, MemoryError) or any(words in said for words in NO_MEMORY):
        return MemoryLimitError(
            f"{called}({told}) needs more memory than there is: choose smaller sizes or counts"
        )
    what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]
    kinds = {each.name: each.kind.words for each in parameters if each.name in given}
    taken = ", ".join(f"{name}: {words}" for name, words in kinds.items())
    return ArgumentsError(
        f"{called} can't use these arguments, got {told} ({what}): it takes {taken}; its "
        "documentation says how they go together"
    )


def _frames(error: Exception) -> Iterator[types.FrameType]:
    trace = error.__traceback__
    trace = trace.tb_next if trace is not None else None
    while trace is not None:
        yield trace.tb_frame
        trace = trace.tb_next


# Neither of this package nor installed.
def _is_users(frame: types.FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", "")).split(".")[0]
    file = frame.f_code.co_filename
    installed = file.startswith(("<", _OURS, *_LIBRARIES)) or "site-packages" in file
    return module != "dipkernels" and not installed


_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")})
_OURS = str(Path(__file__).parents[1])  # templates of pages are no modules
