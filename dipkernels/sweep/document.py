"""A YAML document with the line of everything in it, and what is wrong with it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from dipkernels.errors import InvalidInputError

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a plan."""

    where: Where
    text: str  # what was given, what was expected, what to do
    line: int | None = None  # in the file, from 1

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line is not None else ""
        return f"{place}{dotted(self.where)}{self.text}"


class SweepFileError(InvalidInputError):
    """A plan that can't be run; all that is wrong with it is said at once.

    Attributes
    ----------
    problems : list
        By line, each with the keys that lead to it (``where``), a ``text`` and, in a file, its
        ``line``.
    """

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda p: p.line or 0)
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        lines = "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(f"{source}: {count}, nothing was run\n{lines}")


@dataclass(frozen=True)
class Document:
    """A plan as it was written."""

    value: Any
    source: str
    text: str = ""
    lines: dict[Where, int] = field(default_factory=dict)

    def problem(self, where: Where, text: str) -> Problem:
        """Make a problem with its line."""
        for length in range(len(where), 0, -1):
            if where[:length] in self.lines:
                return Problem(where, text, self.lines[where[:length]])
        return Problem(where, text, 1 if self.lines else None)


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Safe, and reads 1e-3 as the number that it is in YAML 1.2 (in 1.1 it's a word)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)


MOST_LEVELS, MOST_NODES = 40, 200_000  # of a plan, with all that its aliases repeat


def read_document(text: str, source: str) -> Document:
    """Read YAML, safely: plain values only."""
    try:
        _require_bounded(text)
        root = yaml.compose(text, Loader=_Loader)
        value = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or " ".join(str(error).split())
        line = None if mark is None else mark.line + 1
        raise SweepFileError(source, [Problem((), f"not YAML: {what}", line)]) from error
    except (ValueError, TypeError, ArithmeticError, AttributeError, LookupError) as error:
        said = f"not YAML of plain values: {error}"  # of a date or a number that is none
        raise SweepFileError(source, [Problem((), said)]) from error
    document = Document(value, source, text)
    problems: list[Problem] = []
    if root is not None:
        _note_lines(root, (), document, problems)
    if problems:
        raise SweepFileError(source, problems)
    return document


def _require_bounded(text: str) -> None:
    """Refuse what has no end: each node is counted once for each time that it is said."""
    sizes: dict[str, int] = {}  # of what is anchored; -1 while it is open
    open_: list[tuple[str | None, int]] = []
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            size = sizes.get(event.anchor, 1)
            if size < 0:
                _refuse(event, f"*{event.anchor} is a part of itself")
            count += size
        elif isinstance(event, yaml.NodeEvent):
            count += 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, count))
                if event.anchor:
                    sizes[event.anchor] = -1
            elif event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            if anchor:
                sizes[anchor] = count - before + 1
        if len(open_) > MOST_LEVELS:
            _refuse(event, f"a plan has at most {MOST_LEVELS} levels")
        if count > MOST_NODES:
            _refuse(event, f"a plan holds at most {MOST_NODES} values, with what aliases repeat")


def _refuse(event: yaml.Event, text: str) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=text, problem_mark=event.start_mark)


def require_shallow(value: Any, levels: int = 0) -> None:
    """Refuse a mapping that holds itself, or too many levels."""
    if levels > MOST_LEVELS:
        raise InvalidInputError(f"a plan has at most {MOST_LEVELS} levels, and isn't in itself")
    items = value.values() if isinstance(value, Mapping) else value
    for item in items if isinstance(value, Mapping | list | tuple) else ():
        require_shallow(item, levels + 1)


def dotted(where: Where) -> str:
    """Write a place as people do.

    Examples
    --------
    >>> dotted(("priors", 0, "options", "width"))
    'priors[0].options.width: '
    """  # noqa: DOC201
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return f"{text}: " if text else ""


def _note_lines(node: yaml.Node, where: Where, document: Document, problems: list[Problem]) -> None:
    document.lines.setdefault(where, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            _note_lines(item, (*where, number), document, problems)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, item in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in seen:
            said = f"said in line {seen[name]} already: keep one of them"
            problems.append(Problem((*where, name), said, line))
        seen[name] = line
        document.lines[*where, name] = line
        _note_lines(item, (*where, name), document, problems)
