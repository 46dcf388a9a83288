"""Plans: what a file asks for, run by run, checked before anything runs."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.base.values import shown
from dipkernels.errors import DipkernelsError, InvalidInputError
from dipkernels.priors.prior import ImagePrior
from dipkernels.specs.image import (
    default_size,
    file_hash,
    read_beside,
    read_files,
    read_image,
)
from dipkernels.specs.prior import require_code_effect
from dipkernels.specs.record import canonical
from dipkernels.specs.task import hidden_share, is_newer, make_task, notes_of, sides_of
from dipkernels.stages.registry import find_stage
from dipkernels.sweep.axes import UNSAID, AxisReader, Setting
from dipkernels.sweep.document import (
    Document,
    SweepFileError,
    Where,
    read_document,
    require_shallow,
)
from dipkernels.sweep.runs import Run, import_modules
from dipkernels.tasks import Task

if TYPE_CHECKING:
    from dipkernels.images import ImageFile
    from dipkernels.sweep.schema import Block

MOST_BYTES = 10**6  # of a file
MOST_RUNS = 200_000
AXES = ("priors", "tasks", "images", "sizes", "seeds", "measure")
DEFAULTS: dict[str, list[Any]] = {
    "tasks": ["denoise"],
    "sizes": [None],
    "seeds": [0],
    "measure": ["fit"],
}
Point = tuple[Setting, Setting, Setting, Setting, Setting, Setting]


@checked
@dataclass(frozen=True)
class Sweep:
    """What a sweep runs.

    Attributes
    ----------
    runs : tuple of Run
        Each once, in the order of the file.
    source : str
        The file's name.
    text : str
        Of the file.
    notes : tuple of str
        What is done to images because they are taken as clean, and how much masks hide.
    """

    runs: tuple[Run, ...]
    source: str
    text: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.runs)


@checked
def load(source: str | Path | Mapping[str, Any], *, progress: bool = False) -> Sweep:
    """Read a plan and check all of it.

    Every name, option and value is looked at, and the prior and the task of every combination are
    made once, so that what can't run is said now: all at once, with lines.

    Parameters
    ----------
    source : str, Path or mapping
        A YAML file, or what one would hold.
    progress : bool
        Show a bar, on a terminal or in a notebook.

    Returns
    -------
    Sweep
        Fit to be run.

    Raises
    ------
    SweepFileError
        With all that is wrong.
    InvalidInputError
        If the file can't be read.

    Notes
    -----
    Costs some tenths of a second for each pair of a network and a size.

    Examples
    --------
    >>> plan = load({"priors": "skip", "images": ["camera", "coins"], "sizes": 16, "seeds": [0, 1]})
    >>> len(plan), plan.runs[0].label
    (4, 'skip denoise camera 16 seed 0 fit')
    """
    document, folder = _read(source)
    # Here, so that workers, which read no plan, need no pydantic.
    from dipkernels.sweep.schema import read_form

    form, problems, broken = read_form(document)
    if form is None:
        raise SweepFileError(document.source, problems)
    try:
        import_modules(tuple(form.imports), str(folder))
    except InvalidInputError as error:
        raise SweepFileError(
            document.source, [document.problem(("imports",), str(error))]
        ) from error
    reader = AxisReader(document, folder)
    reader.problems += problems
    points: list[Point] = []
    blocks: list[tuple[int | None, Block]] = [*enumerate(form.blocks)] or [(None, form)]
    read: dict[tuple[Any, ...], list[Setting]] = {}
    for number, block in blocks:
        axes = []
        for axis in AXES:
            where: Where = (axis,)
            own = False
            if number is not None:
                inner: Where = ("blocks", number, axis)
                own = getattr(block, axis) is not None or inner in broken
                where = inner if own else where
            if where not in read:
                given = getattr(block if own else form, axis)
                read[where] = (
                    _stand_in(reader, axis, where)
                    if where in broken
                    else _settings(reader, axis, given, where, number)
                )
            axes.append(read[where])
        if len(points) + math.prod(map(len, axes)) > MOST_RUNS:
            raise SweepFileError(
                document.source,
                [document.problem((), f"a plan has at most {MOST_RUNS} runs: make several of it")],
            )
        points += itertools.product(*axes)  # type: ignore[arg-type]
    checker = _Combinations(reader)
    runs = _checked_runs(points, checker, tuple(form.imports), folder, progress=progress)
    if reader.problems:
        raise SweepFileError(document.source, list(dict.fromkeys(reader.problems)))
    distinct = tuple({run.key: run for run in runs}.values())
    return Sweep(distinct, document.source, document.text, tuple(checker.notes))


def _read(source: str | Path | Mapping[str, Any]) -> tuple[Document, Path]:
    if isinstance(source, Mapping):
        require_shallow(source)
        text = yaml.safe_dump(_plain_mapping(source), sort_keys=False)
        return Document(yaml.safe_load(text), "the plan", text), Path.cwd()
    path = Path(source)
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise InvalidInputError(f"can't read the plan {path}: it is no regular file")
        if path.stat().st_size > MOST_BYTES:
            raise InvalidInputError(
                f"can't read the plan {path}: it has {path.stat().st_size} bytes, and a plan at "
                f"most {MOST_BYTES}"
            )
        text = path.read_text(encoding="utf-8")
    except InvalidInputError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"can't read the plan {shown(str(path))}: {error}") from error
    return read_document(text, str(path)), path.resolve().parent


def _plain_mapping(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain_mapping(item) for key, item in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain_mapping(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidInputError(f"a plan holds numbers, words and lists, got a {type(value).__name__}")


def _settings(
    reader: AxisReader, axis: str, given: Any, where: Where, number: int | None
) -> list[Setting]:
    if given is None and axis not in DEFAULTS:
        place: Where = () if number is None else ("blocks", number)
        reader.report(place, f"needs the key '{axis}'")
        return _stand_in(reader, axis, where)
    found = _read_axis(reader, axis, given or DEFAULTS[axis], where)
    return found or _stand_in(reader, axis, where)


def _read_axis(reader: AxisReader, axis: str, given: list[Any], where: Where) -> list[Setting]:
    from dipkernels.sweep.schema import Entry, ImageEntry

    if axis == "images":
        return reader.images(
            [ImageEntry(name=each) if isinstance(each, str) else each for each in given], where
        )
    if axis not in ("tasks", "measure"):
        found: list[Setting] = getattr(reader, axis)(given, where)
        return found
    entries = [Entry(name=each) if isinstance(each, str) else each for each in given]
    return reader.entries("task" if axis == "tasks" else "measure", entries, where)


# Where nothing sound is left of an axis, something takes its place, so that all else is checked in
# the meantime. Nothing does for sizes, which any network might refuse.
def _stand_in(reader: AxisReader, axis: str, where: Where) -> list[Setting]:
    if axis == "sizes":
        return []
    if axis == "priors":
        from dipkernels.sweep.schema import PriorEntry

        return reader.priors([PriorEntry(name="conv")], where)
    given = ["astronaut"] if axis == "images" else DEFAULTS[axis]
    return _read_axis(reader, axis, given, where)


def _checked_runs(
    points: list[Point],
    checker: "_Combinations",
    imports: tuple[str, ...],
    folder: Path,
    *,
    progress: bool,
) -> list[Run]:
    reader = checker.reader
    runs: list[Run] = []
    hashes: dict[str, str] = {}
    with Progress(len(points), "checking the plan", enabled=progress) as bar:
        for point in points:
            prior, task, image, size, seed, measure = point
            sources = {**image.sources, **task.sources}
            asked = {k: v for setting in point for k, v in setting.asked.items()}
            file = read_image(image.sources["image"], **image.axes)
            # Pixels are hashed once for each image, not once for each run.
            try:
                pixels = {n: _hash(n, f, image.axes, file, hashes) for n, f in task.sources.items()}
            except DipkernelsError as error:
                reader.report(task.where, error)
                continue
            native, wanted = tuple(file.image.shape[1:]), size.value
            if wanted == UNSAID:
                measured = bool(task.value.get("measured"))
                wanted = default_size(native, measured=measured)
                asked["size"] = str(wanted or "native")
            shape = sides_of(wanted, native, task.value)
            kind = task.value["name"]
            configuration = {
                "prior": {**prior.value},
                "task": {k: v for k, v in task.value.items() if v or not is_newer(kind, k)},
                "pixels": {"image": image.value, **pixels},
                "size": list(shape),
                "seed": seed.value,
                "measure": measure.value,
            }
            if image.axes:
                configuration["axes"] = {**image.axes}
            # Seeds that the plan doesn't fix are those of the run.
            for part, key in (("prior", "code_seed"), ("task", "seed")):
                if configuration[part][key] is None:
                    configuration[part][key] = seed.value
            for name in task.sources:  # files are in it by their pixels
                configuration["task"][name] = "file"
            run = Run(configuration, asked, sources, imports, str(folder))
            checker.check(run, point)
            runs.append(run)
            bar.advance()
    return runs


def _in_plans(name: str) -> str:
    return f"{name}: true" if name == "measured" else f"{name}:"


def _hash(
    name: str, source: str, axes: Mapping[str, Any], image: "ImageFile", known: dict[str, str]
) -> str:
    key = canonical([name, source, dict(axes), list(image.image.shape)])
    if key not in known:
        file = read_beside(name, source, axes, image)
        known[key] = file_hash(name, file)
    return known[key]


class _Combinations:
    """Makes priors and tasks once for each combination, and notes what fails."""

    def __init__(self, reader: AxisReader) -> None:
        self.reader = reader
        self._tasks: dict[str, Task | None] = {}
        self._priors: dict[str, ImagePrior | None] = {}
        self._seen: set[str] = set()
        self._said: set[tuple[object, str]] = set()
        self.notes: dict[str, None] = {}  # in order

    def check(self, run: Run, point: Point) -> None:
        given = run.configuration
        prior, problem, image, _, _, measure = point
        of_task = canonical([problem.value, given["pixels"], given["size"]])
        said = f"with image {image.asked['image']} at {'x'.join(map(str, given['size']))}"
        if of_task not in self._tasks:
            self._tasks[of_task] = self._task(run, problem, said)
        task = self._tasks[of_task]
        if task is None:
            return
        if prior.value["output"] == "255":
            task = task.in_range(255.0)
        guide = of_task if task.guide is not None else ""
        of_prior = canonical([prior.value, list(task.shape), guide])
        if of_prior not in self._priors:
            self._priors[of_prior] = self._prior(run, prior, task, said)
        made = self._priors[of_prior]
        together = canonical([of_prior, of_task, measure.value])
        if made is None or together in self._seen:
            return
        self._seen.add(together)
        options = dict(given["measure"])
        found = find_stage(options.pop("name"))
        if found.check is None:
            return
        try:
            found.check(made, task, options)
        except DipkernelsError as error:
            self._report(measure, error, f"{prior.asked['prior']}, {problem.asked['task']} {said}")

    # Once for each place: the first combination stands for all.
    def _report(self, setting: Setting, error: DipkernelsError, said: str) -> None:
        if (setting.where, str(error)) not in self._said:
            self._said.add((setting.where, str(error)))
            self.reader.report(setting.where, f"{error} ({said})")

    def _task(self, run: Run, problem: Setting, said: str) -> Task | None:
        given = run.configuration
        try:
            files = read_files(run.sources, given.get("axes", {}))
            words = run.task_words()
            made = make_task(words, files["image"], tuple(given["size"]), files)
        except DipkernelsError as error:
            self._report(problem, error, said)
            return None
        image = str(run.asked["image"])
        self.notes |= dict.fromkeys(notes_of(image, files["image"], words, _in_plans))
        if hidden := hidden_share(made):
            self.notes[f"{run.asked['task']} {image}: the mask hides {hidden:.1%}"] = None
        return made

    def _prior(self, run: Run, prior: Setting, task: Task, said: str) -> ImagePrior | None:
        try:
            code = prior.asked.get("prior.code")
            require_code_effect(code, task, f"code '{code}'")
            return run.make_prior(task)
        except DipkernelsError as error:
            self._report(prior, error, said)
            return None
