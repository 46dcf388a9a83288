"""Options that are declared once: fields of a frozen dataclass, each with its help.

A function's signature and docstring, a command's options and the keys of a sweep are read off the
fields, so that a new option is one line.
"""

import inspect
import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from typing import Any, ParamSpec, TypeVar, dataclass_transform

from dipkernels.base.checks import as_annotated
from dipkernels.base.words import meant
from dipkernels.errors import InvalidInputError

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

ANYTHING = "**options"  # the entry of a docstring that `takes` fills in


def option(
    *, default: Any, help: str, unset: str = "", choices: Collection[str] = (), panel: str = ""
) -> Any:
    """Declare an option; `unset` says what None stands for, `panel` groups it in ``--help``."""
    return field(
        default=default,
        metadata={"help": help, "unset": unset, "choices": choices, "panel": panel},
    )


@dataclass_transform(frozen_default=True, field_specifiers=(option, field))
def settings(kind: type[S]) -> type[S]:
    """Make a frozen dataclass whose docstring lists its options."""
    made = dataclass(frozen=True)(kind)
    head, mark, rest = (kind.__doc__ or "").partition("Raises\n")
    listed = "Parameters\n    ----------\n" + _entries(made)
    made.__doc__ = f"{head}{listed}\n    {mark}{rest}"
    return made


def check_options(given: Any) -> None:
    """Check types and choices of all fields; NumPy's numbers become Python's."""
    for each in fields(given):
        value = as_annotated(each.name, getattr(given, each.name), each.type, nan=False)
        object.__setattr__(given, each.name, value)
    for each in fields(given):
        value, choices = getattr(given, each.name), each.metadata.get("choices", ())
        if choices and value is not None and value not in choices:
            raise InvalidInputError(f"{each.name} must be one of {tuple(choices)}, got '{value}'")


def gather(kind: type[S], given: S | None, options: Mapping[str, Any], caller: str) -> S:
    """Make settings from an object, or none, and options that replace its fields."""
    if given is not None and not isinstance(given, kind):
        raise InvalidInputError(
            f"settings of {caller} must be a {kind.__name__}, got {type(given).__name__}: options "
            f"go by name, as in {caller}(..., {_example(kind)})"
        )
    known = [each.name for each in _fields(kind)]
    if unknown := [name for name in options if name not in known]:
        hint = meant(unknown[0], known).strip()
        raise InvalidInputError(
            f"{caller} has no option {', '.join(unknown)}; it has: {', '.join(known)}"
            + f"; {hint}" * bool(hint)
        )
    types = {each.name: each.type for each in _fields(kind)}
    read = {
        name: as_annotated(name, value, types[name], nan=False) for name, value in options.items()
    }
    return kind(**read) if given is None else replace(given, **read)  # type: ignore[type-var]


def takes(kind: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show the fields of a settings class in place of a function's ``**options``."""

    def shown(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = list(signature.parameters.values())[:-1]
        by_name = inspect.Parameter.KEYWORD_ONLY
        listed = [
            inspect.Parameter(each.name, by_name, default=each.default, annotation=each.type)
            for each in _fields(kind)
        ]
        function.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *listed]
        )
        before, mark, after = (function.__doc__ or "").partition(f"    {ANYTHING}\n")
        if mark:
            _, _, after = after.partition("\n\n")
            function.__doc__ = f"{before}{_entries(kind)}\n{after}"
        return function

    return shown


def _entries(kind: type) -> str:
    """Write the fields as entries of a numpydoc section, indented as in a docstring."""
    lines = []
    for each in _fields(kind):
        choices = each.metadata.get("choices", ())
        said = "{" + ", ".join(f'"{c}"' for c in choices) + "}" if choices else _type_name(each)
        optional = ", optional" if each.default is None else ""
        unset = each.metadata.get("unset", "")
        default = "" if each.default is None else f", default {each.default!r}"
        lines.append(f"    {each.name} : {said}{optional}{default}")
        text = each.metadata["help"] + (f" By default {unset}." if unset else "")
        lines += textwrap.wrap(text, 96, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines) + "\n"


def _type_name(each: Field[Any]) -> str:
    name = each.type.__name__ if isinstance(each.type, type) else str(each.type)
    return name.removeprefix("collections.abc.").removesuffix(" | None")


def _fields(kind: type) -> list[Field[Any]]:
    return [each for each in fields(kind) if each.init]


def _example(kind: type) -> str:
    first = next(each for each in _fields(kind) if each.default not in (None, MISSING))
    return f"{first.name}={first.default!r}"
