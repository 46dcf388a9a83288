"""Tasks from words: what each kind takes, which options have an effect, and how it's made.

A kind is a function of a `Picture` whose keyword-only parameters are its options. Commands and
plans read them off its signature.
"""

import inspect
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from dipkernels.base.words import suggest
from dipkernels.errors import ImageError, InvalidInputError, UnitWarning, UnknownNameError
from dipkernels.specs.image import in_white
from dipkernels.specs.misfit import photons, with_misfit

if TYPE_CHECKING:
    from torch import Tensor

    from dipkernels.images import ImageFile
    from dipkernels.tasks import Task

HOLES = "holes"  # of an image, or of data: what isn't known
FILES = {"clean": ("",)}  # files that a kind may name besides its own
Spelling = Callable[[str], str]  # of an option, in the words of an interface
Options = Mapping[str, Any]

Noise = Annotated[
    float,
    "Standard deviation of the noise, a number or 25/255, in units of the measurement; white is 1. "
    "(default: 25/255 to denoise, else 0)",
]
Measured = Annotated[bool, "The image is the measurement itself, noisy or damaged already."]
Clean = Annotated[str, "The clean image to compare with, if --measured is given."]
# Newer than stored sweeps, and left out of a run's configuration unless they are said.
NEWER = ("white", "clean", "mask_hides", "misfit", "coils", "complex_image")


def is_newer(kind: str, name: str) -> bool:
    """Tell whether stored sweeps may be from before an option of a kind of tasks."""
    return name in NEWER or (kind, name) == ("sense", "measured")


@dataclass(frozen=True)
class Picture:
    """What a task is made of: the image as it was read, the size to bring it to, files, a seed."""

    file: "ImageFile"
    size: tuple[int, ...]
    files: "Mapping[str, ImageFile]"
    seed: int

    @property
    def native(self) -> "Tensor":
        """The image as it was read."""
        return self.file.image

    @cached_property
    def shown(self) -> "Tensor":
        """The image at its size."""
        if not bool(self.native.isfinite().all()):
            raise ImageError(
                f"the image holds {int((~self.native.isfinite()).sum())} NaN or infinite values; "
                "fill or remove them, or inpaint it as measured, with the mask 'holes'"
            )
        return self.scaled(self.native)

    def truth(self, clean: str) -> "Tensor | None":
        """Give the clean image at the size of the task, if there is one."""
        return self.scaled(self.files["clean"].image) if clean else None

    def scaled(self, image: "Tensor") -> "Tensor":
        """Bring an image to the size of the task."""
        from dipkernels import images

        return images.resize(image, self.size)

    @property
    def is_scaled(self) -> bool:
        """Whether pixels become others, not only fewer."""
        native = self.native.shape[1:]
        same = len(native) == len(self.size)  # else `resize` says it
        return same and max(n / m for n, m in zip(self.size, native, strict=True)) != 1

    def filled(self, known: "Tensor") -> "Picture":
        """Fill what isn't known."""
        image = self.native.where(known, self.native.new_zeros(()))
        return replace(self, file=replace(self.file, image=image))

    def _warn_of_scaling(self) -> None:
        if self.is_scaled:
            native, size = tuple(self.native.shape[1:]), self.size
            warnings.warn(
                f"the measurement is scaled from {sides(native)} to {sides(size)} pixels, which "
                "lowers its noise: its level must be that of the scaled one, or the size 'native'",
                UnitWarning,
                stacklevel=2,
            )

    def given(self, *, measured: bool, clean: str = "", noise_sigma: float = 0.0) -> dict[str, Any]:
        """Say what the image is: the clean one, or the measurement, whose noise isn't drawn."""
        if measured:
            if noise_sigma:
                self._warn_of_scaling()
            truth = self.files["clean"].image if clean else None
            return {"clean": truth, "measurement": self.shown, "seed": 0}
        return {"clean": self.shown, "measurement": None, "seed": self.seed}


@dataclass(frozen=True)
class Option:
    """An option of a kind: its annotation, default and help."""

    annotation: Any
    default: Any
    help: str


@dataclass(frozen=True)
class TaskKind:
    """A kind of task; `words` lists, for an option that names a file, what is no file."""

    name: str
    make: Callable[..., "Task"]
    options: Mapping[str, Option]
    words: Mapping[str, tuple[str, ...]]
    draws: Callable[[Options], bool]
    check: Callable[[Options, Container[str], Spelling], None] | None
    simulates: str  # what is done to an image that is taken as clean
    data: bool  # whether what is measured may have other axes than the image


_KINDS: dict[str, TaskKind] = {}


def register_task(
    name: str,
    make: Callable[..., "Task"],
    *,
    files: Mapping[str, tuple[str, ...]] | None = None,
    draws: Callable[[Options], bool] | None = None,
    check: Callable[[Options, Container[str], Spelling], None] | None = None,
    simulates: str = "",
    data: bool = False,
) -> None:
    """Offer a kind of task to every command and plan.

    Examples
    --------
    >>> def darken(picture, *, factor: Annotated[float, "Of the brightness."] = 0.5):
    ...     from dipkernels import tasks
    ...     return tasks.denoise(factor * picture.shown, seed=picture.seed)
    >>> register_task("darken", darken)
    >>> task_options("darken")["factor"].default
    0.5
    >>> del _KINDS["darken"]
    """  # noqa: DOC501
    if name in _KINDS:
        raise InvalidInputError(f"there is a task '{name}' already: choose another name")
    options = {}
    for each in list(inspect.signature(make).parameters.values())[1:]:
        kind, help = each.annotation, ""
        if get_origin(kind) is Annotated:
            kind, help = get_args(kind)[:2]
        options[each.name] = Option(kind, each.default, help)
    drawn = draws or draws_noise
    _KINDS[name] = TaskKind(name, make, options, files or {}, drawn, check, simulates, data)


def task_kind(name: str) -> TaskKind:
    """Look up a kind."""
    if name not in _KINDS:
        raise UnknownNameError(f"unknown task '{name}': {suggest(name, _KINDS)}")
    return _KINDS[name]


def task_names() -> list[str]:
    """List the kinds, in the order of registration."""
    return list(_KINDS)


def task_options(name: str) -> dict[str, Option]:
    """List what a plan may say of a task: its own options, pixels to hold out, and a seed."""
    return {
        **task_kind(name).options,
        "hold_out": Option(
            float | None, None, "Fraction of the measured pixels that is held out to judge a fit."
        ),
        "seed": Option(int | None, None, "Seed of noise, mask and held-out pixels."),
        "white": Option(
            float | None,
            None,
            "Value of white in the file: 4095 for a 12-bit camera. (default: what the file says)",
        ),
        "misfit": Option(
            str | None,
            None,
            "Loss of the measurement: squares, l1, or poisson=PEAK for photon counts with PEAK "
            "photons at white. Simulated noise is Gaussian, or counts. (default: squares)",
        ),
    }


def files_of(task: Options) -> list[str]:
    """List the options of a task that name files."""
    words = task_kind(task["name"]).words
    return [name for name, known in words.items() if task.get(name, "") not in known]


def notes_of(image: str, file: "ImageFile", task: Options, spell: Spelling) -> list[str]:
    """Say what is done to a file because it is taken as clean, and what of it is transparent."""
    from dipkernels.specs.image import is_own

    said, measured = [], spell("measured")
    done = "" if task.get("measured", True) else task_kind(task["name"]).simulates
    if done and is_own(image):
        own = f"; if it is the measurement itself: {measured}"
        said.append(f"{image} is taken as the clean image, and {done}{own}")
    if file.alpha is not None and task.get("mask") != HOLES:
        hidden = 1 - file.known.double().mean().item()
        said.append(
            f"{image} is transparent in {hidden:.1%} of its pixels, whose colours are taken as "
            f"they are; as a hole: {spell('task')} inpaint, {measured}, {spell('mask')} holes"
        )
    return said


def hidden_share(task: "Task") -> float:
    """Give the share of the image's numbers that a mask hides."""
    mask = task.operator.mask
    return 0.0 if mask is None else 1 - mask.double().mean().item()


def require_effects(
    task: Options, said: Container[str], spell: Spelling = lambda name: name
) -> None:
    """Refuse options of which one makes another idle, or needs another; `said` were given."""
    kind = task_kind(task["name"])
    if task.get("clean") and not task["measured"]:
        raise InvalidInputError(
            f"{spell('clean')} has no effect without {spell('measured')}: the image itself is "
            "taken as clean"
        )
    if kind.check is not None:
        kind.check(task, said, spell)
    counts = photons(task, spell) is not None
    if counts and ("noise_sigma" in said or "noise_sigma" not in kind.options):
        raise InvalidInputError(
            f"{spell('misfit')} {task['misfit']} is for measurements with noise that is the "
            "counts' own: leave "
            f"{spell('noise_sigma') if 'noise_sigma' in said else spell('misfit')} out"
        )
    draws = kind.draws(task) or (counts and not task.get("measured", False))
    if task["seed"] is not None and task["hold_out"] is None and not draws:
        raise InvalidInputError(
            f"{spell('seed')} has no effect on this '{task['name']}', which draws no noise, no "
            "mask and no pixels to hold out: leave it out, or equal runs would count as several"
        )


def make_task(
    task: Options, image: "ImageFile", size: tuple[int, ...], files: "Mapping[str, ImageFile]"
) -> "Task":
    """Make a task, on the CPU, from its name and all its options, the seed included."""
    kind, white = task_kind(task["name"]), task.get("white")
    plain = ("mask", "coils")  # whose values aren't in units of the image
    others = {n: f if n in plain else in_white(f, white, n) for n, f in files.items()}
    picture = Picture(in_white(image, white, "the image"), size, others, task["seed"])
    said = {name: task[name] for name in kind.options if name in task}
    if photons(task) is not None:
        said["noise_sigma"] = 0.0
    made = with_misfit(kind.make(picture, **said), task)
    return made if task["hold_out"] is None else made.hold_out(task["hold_out"], seed=task["seed"])


def sides_of(
    size: int | tuple[int, ...] | None, native: tuple[int, ...], task: Options
) -> tuple[int, ...]:
    """Give the sides of an image: one number is that of all axes, as many as data leave open."""
    if isinstance(size, int):
        open_axes = task.get("measured") and task_kind(task["name"]).data
        return (size,) if open_axes else (size,) * len(native)
    return native if size is None else size


def draws_noise(task: Options) -> bool:
    """Tell whether noise is drawn."""
    return not task.get("measured", False) and task.get("noise_sigma", 0.0) > 0


def require_hides_effect(task: Options, words: Container[str], spell: Spelling) -> None:
    """Refuse what is said of a file, where the mask is none."""
    if task.get("mask_hides") is not None and task["mask"] in words:
        raise InvalidInputError(
            f"{spell('mask_hides')} has no effect with {spell('mask')} '{task['mask']}': it says "
            "what a mask's file hides"
        )


def sides(size: Sequence[int]) -> str:
    """Write a size as 48x64."""
    return "x".join(map(str, size))
