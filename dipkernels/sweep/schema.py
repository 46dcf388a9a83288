"""The form of a plan: which keys there are, and what they hold. Meaning is checked elsewhere."""

import copy
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from dipkernels.base.values import shown
from dipkernels.base.words import suggest
from dipkernels.sweep.document import Document, Problem, Where

T = TypeVar("T")


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


MOST_SEEDS = 100_000  # of one axis


# Where one value is enough, a list stands for several, one run each.
Several = Annotated[list[T], BeforeValidator(_as_list), Field(min_length=1)]


def _as_entry(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _as_seeds(value: Any) -> Any:
    if not isinstance(value, dict):
        return _as_list(value)
    first, count = value.get("from", 0), value.get("count")
    whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (first, count))
    if set(value) - {"from", "count"} or not whole or count is None or count < 1:
        raise ValueError(f"must be like 0, [0, 1, 2] or {{from: 0, count: 3}}, got {value}")
    if count > MOST_SEEDS:
        raise ValueError(f"must be at most {MOST_SEEDS} seeds, got {count}")
    return list(range(first, first + count))


class PriorEntry(_Form):
    """A prior, and what is varied of it."""

    name: str
    variant: Several[str | None] = [None]
    code: Several[str | None] = [None]
    code_seed: Several[int | None] = [None]
    output: Several[str | None] = [None]
    initialisation: Several[str] = ["default"]
    options: dict[str, Any] = {}


class ImageEntry(_Form):
    """An image, and what is said of its axes and of those of a task's other files."""

    name: str
    channel_axis: int | None = None
    volume: bool | None = None


class Entry(BaseModel):
    """A task or a measurement: a name, and its own options."""

    model_config = ConfigDict(extra="allow", strict=True)
    name: str


class Block(_Form):
    """Axes whose product is run; None where a block leaves one to the top of the file."""

    priors: Several[Annotated[PriorEntry, BeforeValidator(_as_entry)]] | None = None
    tasks: Several[Annotated[Entry, BeforeValidator(_as_entry)]] | None = None
    images: Several[Annotated[ImageEntry, BeforeValidator(_as_entry)]] | None = None
    sizes: Several[Any] | None = None
    seeds: Annotated[list[int], BeforeValidator(_as_seeds), Field(min_length=1)] | None = None
    measure: Several[Annotated[Entry, BeforeValidator(_as_entry)]] | None = None


class SweepFile(Block):
    """The whole file."""

    imports: Annotated[list[str], BeforeValidator(_as_list)] = []
    blocks: list[Block] = []


def read_form(document: Document) -> tuple[SweepFile | None, list[Problem], set[Where]]:
    """Check the form of a plan."""
    if not isinstance(document.value, dict):
        kind = "empty" if document.value is None else f"a {type(document.value).__name__}"
        text = f"a plan is a mapping with the keys priors, images, ..., this file is {kind}"
        return None, [document.problem((), text)], set()
    try:
        return SweepFile.model_validate(document.value), [], set()
    except ValidationError as error:
        errors = error.errors()
    problems = [_as_problem(document, each) for each in errors]
    sound, broken = copy.deepcopy(document.value), set()
    for each in errors:
        if (place := _leave_out(sound, each)) is not None:
            broken.add(place)
    try:
        return SweepFile.model_validate(sound), problems, broken
    except ValidationError:
        return None, problems, broken


# Of a key that nobody knows, that key; of any other error, its axis, whose place is returned.
def _leave_out(value: dict[Any, Any], error: Any) -> Where | None:
    where = tuple(part for part in error["loc"] if part != "union")
    alone = error["type"] == "extra_forbidden"
    depth = 3 if where[:1] == ("blocks",) else 1
    place = where if alone else where[:depth]
    holder: Any = value
    for part in place[:-1]:
        whole = isinstance(holder, list | dict)
        if not whole or (isinstance(holder, dict) and part not in holder):
            return None if alone else place  # a single entry where several may be
        holder = holder[part]
    if isinstance(holder, dict):
        holder.pop(place[-1], None)
    return None if alone else place


def _as_problem(document: Document, error: Any) -> Problem:
    where = tuple(part for part in error["loc"] if part != "union")
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        text = f"unknown key '{where[-1]}': {suggest(str(where[-1]), _known_keys(where))}"
        if "priors" in where:
            text += "; options of the network go under options: {...}"
        # The key is the problem: its line, though the place is what holds it.
        return Problem(where[:-1], text, document.problem(where, text).line)
    if kind == "missing":
        text = f"needs the key '{where[-1]}'"
        if where[-1] == "name" and isinstance(given, dict) and given:
            text += f": {{name: {next(iter(given))}, ...}}, if that is its name"
        return document.problem(where[:-1], text)
    if kind == "invalid_key":
        return document.problem(where[:-1], f"keys are words, got {shown(given)}")
    if kind == "too_short":
        return document.problem(where, "is an empty list: give at least one, or leave it out")
    if kind == "value_error":
        return document.problem(where, str(error["ctx"]["error"]))
    wanted = {
        "string_type": "a word",
        "int_type": "a whole number",
        "list_type": "a list",
        "dict_type": "a mapping",
        "model_type": "a name, or a mapping with a name",
        "model_attributes_type": "a name, or a mapping with a name",
    }.get(kind, error["msg"])
    hint = (
        ": put it in quotes"
        if kind in ("string_type", "model_type") and isinstance(given, bool | int | float)
        else ""
    )
    return document.problem(where, f"must be {wanted}, got {shown(given)}{hint}")


def _known_keys(where: Where) -> list[str]:
    if len(where) == 1:
        return list(SweepFile.model_fields)
    for axis, entry in (("priors", PriorEntry), ("images", ImageEntry)):
        if axis in where:
            return list(entry.model_fields)
    return list(Block.model_fields)
