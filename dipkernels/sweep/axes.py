"""The axes of a plan: entries become settings, every value checked by itself."""

import contextlib
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from dipkernels import images, networks
from dipkernels.base.checks import as_annotated
from dipkernels.base.words import read_number, suggest
from dipkernels.errors import DipkernelsError, InvalidInputError
from dipkernels.priors.codes import DRAWN, KINDS
from dipkernels.specs.image import image_hash, read_image, resolve_source
from dipkernels.specs.loading import content_hash, is_source, load_object, located
from dipkernels.specs.record import canonical
from dipkernels.specs.task import Option, files_of, require_effects, task_options
from dipkernels.stages.registry import find_stage
from dipkernels.sweep.document import Document, Problem, Where
from dipkernels.sweep.schema import Entry, ImageEntry, PriorEntry

UNSAID = "unsaid"  # a size that a plan leaves to its images and tasks


@dataclass(frozen=True)
class Setting:
    """One point of an axis."""

    value: Any
    asked: dict[str, Any]
    where: Where
    sources: Mapping[str, str]
    axes: Mapping[str, Any] = field(default_factory=dict)  # of an image's file


class AxisReader:
    """Reads the axes of a plan and collects what is wrong with them."""

    def __init__(self, document: Document, folder: Path) -> None:
        self.document, self.folder = document, folder
        self.problems: list[Problem] = []

    def report(self, where: Where, error: object) -> None:
        """Note a problem."""
        self.problems.append(self.document.problem(where, str(error)))

    def priors(self, entries: list[PriorEntry], where: Where) -> list[Setting]:
        """Read priors."""
        return [
            setting
            for number, entry in enumerate(entries)
            for setting in self._prior(entry, (*where, number))
        ]

    def entries(self, group: str, entries: list[Entry], where: Where) -> list[Setting]:
        """Read tasks or measurements."""
        return [
            setting
            for number, entry in enumerate(entries)
            for setting in self._entry(group, entry, (*where, number))
        ]

    def images(self, entries: list[ImageEntry], where: Where) -> list[Setting]:
        """Read images."""
        found = []
        for number, entry in enumerate(entries):
            place = (*where, number)
            axes = entry.model_dump(include={"channel_axis", "volume"}, exclude_none=True)
            try:
                source = self.source(entry.name)
                pixels = image_hash(read_image(source, **axes))
            except DipkernelsError as error:
                self.report(place, error)
                continue
            asked = {"image": entry.name} | {f"image.{key}": said for key, said in axes.items()}
            found.append(Setting(pixels, asked, place, {"image": source}, axes))
        return self._distinct(found)

    def sizes(self, given: list[Any], where: Where) -> list[Setting]:
        """Read sizes."""
        found = []
        for number, size in enumerate(given):
            place = (*where, number)
            if size is None:
                found.append(Setting(UNSAID, {"size": ""}, place, {}))
                continue
            try:
                read = images.parse_size("" if isinstance(size, bool) else str(size))
            except InvalidInputError:
                self.report(
                    place, f"must be pixels such as 64, 48x64, 8x48x64 or native, got {size!r}"
                )
                continue
            found.append(Setting(read, {"size": str(size)}, place, {}))
        return self._distinct(found)

    def seeds(self, given: list[int], where: Where) -> list[Setting]:
        """Read seeds."""
        for number, seed in enumerate(given):
            if not 0 <= seed < 2**63:
                self.report((*where, number), f"must be from 0 to 2**63 - 1, got {seed}")
        return self._distinct(
            [Setting(s, {"seed": s}, (*where, i), {}) for i, s in enumerate(given)]
        )

    # What is run of it is known by its text, wherever it lies.
    def _own_prior(self, entry: PriorEntry, where: Where) -> list[Setting]:
        try:
            source = located(entry.name, self.folder)
            load_object(source)
        except DipkernelsError as error:
            self.report(where, error)
            return []
        content = content_hash(source)
        names = ("variant", "code", "code_seed", "output", "initialisation")
        grid: dict[str, list[Any]] = {name: getattr(entry, name) for name in names}
        for name, given in entry.options.items():
            place = (*where, "options", name)
            if values := self._values(name, given, place, lambda value: value):
                grid[f"options.{name}"] = values
        said = entry.model_fields_set & set(names)
        settings = []
        for chosen in _product(grid):
            options = {k.partition(".")[2]: v for k, v in chosen.items() if "." in k}
            value = {"name": entry.name, "content_sha256": content, "options": options}
            value |= {name: chosen[name] for name in names}
            asked = {"prior": entry.name} | {f"prior.{name}": chosen[name] for name in sorted(said)}
            asked |= {f"prior.{name}": each for name, each in options.items()}
            settings.append(Setting(_plain(value), _plain(asked), where, {}))
        return self._distinct(settings)

    def _prior(self, entry: PriorEntry, where: Where) -> list[Setting]:
        if is_source(entry.name):
            return self._own_prior(entry, where)
        try:
            found = networks.entry(entry.name)
        except DipkernelsError as error:
            self.report(where, error)
            return []
        parameters = inspect.signature(found.builder).parameters
        grid: dict[str, list[Any]] = {}
        for name, given in entry.options.items():
            place = (*where, "options", name)
            if name not in found.options:
                self.report(
                    place, f"'{entry.name}' has no such option: {suggest(name, found.options)}"
                )
                continue
            check = _checker(name, parameters[name].annotation)
            if values := self._values(name, given, place, check):
                grid[f"options.{name}"] = values
        for name in ("variant", "code", "code_seed", "output", "initialisation"):
            grid[name] = getattr(entry, name)
        for number, variant in enumerate(entry.variant):
            if variant is not None and variant not in found.variants:
                text = f"'{entry.name}' has no such variant: {suggest(variant, found.variants)}"
                self.report((*where, "variant", number), text)
                return []
        settings = []
        for chosen in _product(grid):
            kind = found if chosen["variant"] is None else found.variant(chosen["variant"])
            code = chosen["code"] or kind.code
            if chosen["code_seed"] is not None and code in KINDS and code not in DRAWN:
                text = f"has no effect on the code '{code}', which isn't drawn: leave it out"
                self.report((*where, "code_seed"), text)
                continue
            options = {k.partition(".")[2]: v for k, v in chosen.items() if "." in k}
            value = {
                "name": entry.name,
                "variant": chosen["variant"],
                "code": code,
                "code_seed": chosen["code_seed"],
                "output": chosen["output"] or kind.output,
                "initialisation": chosen["initialisation"],
                "options": {**kind.options, **options},
            }
            said = entry.model_fields_set & set(grid)
            asked = {"prior": entry.name} | {f"prior.{name}": chosen[name] for name in sorted(said)}
            asked |= {f"prior.{name}": value for name, value in options.items()}
            settings.append(Setting(_plain(value), _plain(asked), where, {}))
        return self._distinct(settings)

    def _entry(self, group: str, entry: Entry, where: Where) -> list[Setting]:
        check: Callable[[str], Callable[[Any], Any]]
        try:
            known: Mapping[str, Option]
            if group == "task":
                known = task_options(entry.name)
                check = lambda name: _checker(name, known[name].annotation)  # noqa: E731
            else:
                found = find_stage(entry.name)
                known = found.options
                check = lambda name: lambda value: found.value(name, value)  # noqa: E731
        except DipkernelsError as error:
            self.report(where, error)
            return []
        grid: dict[str, list[Any]] = {}
        for name, given in (entry.model_extra or {}).items():
            place = (*where, name)
            if name not in known:
                self.report(place, f"'{entry.name}' has no such option: {suggest(name, known)}")
                continue
            if values := self._values(name, given, place, check(name)):
                grid[name] = values
        settings = []
        for chosen in _product(grid):
            value = {
                "name": entry.name,
                **{name: each.default for name, each in known.items()},
                **chosen,
            }
            asked = {group: entry.name} | {f"{group}.{name}": each for name, each in chosen.items()}
            try:
                value |= self._own_operator(value) if group == "task" else {}
            except DipkernelsError as error:
                self.report((*where, "operator"), error)
                continue
            sources = self._files(value, chosen, where) if group == "task" else {}
            if sources is not None:
                settings.append(Setting(_plain(value), _plain(asked), where, sources))
        return self._distinct(settings)

    # An operator of one's own is known by its text, wherever it lies.
    def _own_operator(self, task: dict[str, Any]) -> dict[str, Any]:
        if not task.get("operator"):
            return {}
        source = located(task["operator"], self.folder)
        load_object(source)
        return {"operator_sha256": content_hash(source)}

    # Masks and photographs with flash, where these are files; None if something is wrong.
    def _files(
        self, task: dict[str, Any], said: Mapping[str, Any], where: Where
    ) -> dict[str, str] | None:
        try:
            require_effects(task, said)
        except InvalidInputError as error:
            self.report(where, error)
            return None
        sources: dict[str, str] = {}
        for name in files_of(task):
            try:
                sources[name] = self.source(task[name])
            except DipkernelsError as error:
                self.report((*where, name), error)
                return None
        return sources

    # All values of an option that it can have; a list stands for several.
    def _values(
        self, name: str, given: Any, where: Where, check: Callable[[Any], Any]
    ) -> list[Any]:
        several = given if isinstance(given, list) else [given]
        if not several:
            self.report(where, "is an empty list: give at least one value, or leave it out")
        kept = []
        for number, value in enumerate(several):
            try:
                kept.append(check(value))
            except DipkernelsError as error:
                hint = ""
                if isinstance(given, list) and "several whole numbers" in str(error):
                    hint = f"; a list stands for several values: write {name}: [{given}] for one"
                self.report((*where, number), f"{error}{hint}")
        return kept

    def source(self, name: str) -> str:
        """Find a file."""
        try:
            return resolve_source(name, self.folder)
        except DipkernelsError as error:
            raise type(error)(f"{error} (files are looked for in {self.folder})") from error

    def _distinct(self, settings: list[Setting]) -> list[Setting]:
        seen: set[str] = set()
        for setting in settings:
            text = canonical([setting.value, setting.asked])
            if text in seen:
                self.report(setting.where, f"is said twice: {_said(setting.asked)}")
            seen.add(text)
        return settings


def _said(asked: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in asked.items())


def _checker(name: str, annotation: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, str) and float in (annotation, *get_args(annotation)):
            with contextlib.suppress(ValueError):  # what is no fraction is named below
                value = read_number(value)
        return as_annotated(name, value, annotation, nan=False)

    return check


def _product(grid: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _plain(value: Any) -> Any:
    """Tuples become lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
