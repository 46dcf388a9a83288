"""Tasks from words: what each kind takes, which options have an effect, and how it's made.

A kind is a function of a `Picture` whose keyword-only parameters are its options. Commands and
plans read them off its signature.
"""

import inspect
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from dipkernels.base.words import suggest
from dipkernels.errors import ImageError, InvalidInputError, UnknownNameError

if TYPE_CHECKING:
    from torch import Tensor

    from dipkernels.tasks import Task

NOISE_SIGMA = 25 / 255  # that of `dipkernels.tasks.denoise`, here without torch
MASKS = ("bernoulli", "region", "text")
Spelling = Callable[[str], str]  # of an option, in the words of an interface
Options = Mapping[str, Any]

Noise = Annotated[
    float,
    "Standard deviation of the noise; white is 1. (default: 25/255 to denoise, else 0)",
]
Measured = Annotated[bool, "The image is the measurement: no clean one."]


@dataclass(frozen=True)
class Picture:
    """What a task is made of: the image as it was read, the size to bring it to, files, a seed."""

    native: "Tensor"
    size: tuple[int, int]
    files: "Mapping[str, Tensor]"
    seed: int

    @cached_property
    def shown(self) -> "Tensor":
        """The image at its size."""
        from dipkernels import images

        return images.resize(self.native, self.size)

    def given(self, *, measured: bool) -> dict[str, Any]:
        """Say what the image is: the clean one, or the measurement, whose noise isn't drawn."""
        if measured:
            return {"clean": None, "measurement": self.shown, "seed": 0}
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


_KINDS: dict[str, TaskKind] = {}


def register_task(
    name: str,
    make: Callable[..., "Task"],
    *,
    files: Mapping[str, tuple[str, ...]] | None = None,
    draws: Callable[[Options], bool] | None = None,
    check: Callable[[Options, Container[str], Spelling], None] | None = None,
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
    _KINDS[name] = TaskKind(name, make, options, files or {}, draws or _draws_noise, check)


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
        "hold_out": Option(float | None, None, "Fraction of measured pixels to judge a fit by."),
        "seed": Option(int | None, None, "Of noise, mask and held-out pixels."),
    }


def files_of(task: Options) -> list[str]:
    """List the options of a task that name files."""
    words = task_kind(task["name"]).words
    return [name for name, known in words.items() if task[name] not in known]


def require_effects(
    task: Options, said: Container[str], spell: Spelling = lambda name: name
) -> None:
    """Refuse options of which one makes another idle, or needs another; `said` were given."""
    kind = task_kind(task["name"])
    if kind.check is not None:
        kind.check(task, said, spell)
    if task["seed"] is not None and task["hold_out"] is None and not kind.draws(task):
        raise InvalidInputError(
            f"{spell('seed')} has no effect on this '{task['name']}', which draws no noise, no "
            "mask and no pixels to hold out: leave it out, or equal runs would count as several"
        )


def make_task(
    task: Options, native: "Tensor", size: tuple[int, int], files: "Mapping[str, Tensor]"
) -> "Task":
    """Make a task, on the CPU, from its name and all its options, the seed included."""
    kind = task_kind(task["name"])
    picture = Picture(native, size, files, task["seed"])
    made = kind.make(picture, **{name: task[name] for name in kind.options})
    return made if task["hold_out"] is None else made.hold_out(task["hold_out"], seed=task["seed"])


def _draws_noise(task: Options) -> bool:
    return not task.get("measured", False) and task.get("noise_sigma", 0.0) > 0


def _denoise(
    picture: Picture,
    *,
    noise_sigma: Noise = NOISE_SIGMA,
    clip: Annotated[bool, "Clip the noisy image to [0, 1]."] = False,
    shared_noise: Annotated[bool, "One noise for all channels."] = False,
    measured: Measured = False,
) -> "Task":
    from dipkernels import tasks

    return tasks.denoise(
        noise_sigma=noise_sigma,
        clip=clip,
        shared_noise=shared_noise,
        **picture.given(measured=measured),
    )


def _check_denoise(task: Options, said: Container[str], spell: Spelling) -> None:
    if task["measured"] and "noise_sigma" not in said:
        raise InvalidInputError(
            f"{spell('noise_sigma')}, the level of the measurement's noise, must be said; 0 if "
            "unknown"
        )


def _inpaint(
    picture: Picture,
    *,
    mask: Annotated[
        str, "For inpaint: a file, white = known; or bernoulli, region, text."
    ] = "bernoulli",
    known: Annotated[
        float | None, "Fraction of pixels that a bernoulli mask keeps. (default: 0.5)"
    ] = None,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
) -> "Task":
    from dipkernels import tasks

    given = picture.given(measured=measured)
    drawn = _mask(picture, mask, known)
    return tasks.inpaint(given.pop("clean"), drawn, noise_sigma=noise_sigma, **given)


def _check_inpaint(task: Options, said: Container[str], spell: Spelling) -> None:
    if task["known"] is not None and task["mask"] != "bernoulli":
        raise InvalidInputError(
            f"{spell('known')} has no effect with {spell('mask')} '{task['mask']}': it is the "
            "fraction of pixels that a bernoulli mask keeps"
        )


def _draws_mask(task: Options) -> bool:
    return _draws_noise(task) or task["mask"] in ("bernoulli", "text")


def _mask(picture: Picture, kind: str, known: float | None) -> "Tensor":
    from dipkernels import images, tasks

    size, native = picture.size, tuple(picture.native.shape[1:])
    if kind == "bernoulli":
        known = 0.5 if known is None else known
        return tasks.bernoulli_mask(size, known=known, seed=picture.seed)
    if kind == "region":
        return tasks.region_mask(size)
    if kind == "text":
        return tasks.text_mask(size, font_size=max(8, min(size) // 16), seed=picture.seed)
    drawn = picture.files["mask"]
    if tuple(drawn.shape[1:]) not in (native, size):
        raise ImageError(
            f"the mask {kind} has {drawn.shape[1]}x{drawn.shape[2]} pixels, the image "
            f"{native[0]}x{native[1]}: they must be of one size"
        )
    found = images.resize(drawn.mean(dim=0, keepdim=True), size)[0] > 0.5
    if not bool(found.any()):
        raise ImageError(f"the mask {kind} is all black: no pixel is known; white means known")
    return found


def _dejpeg(
    picture: Picture,
    *,
    quality: Annotated[int | None, "Of JPEG, 1 to 100. (default: 10)"] = None,
    measured: Measured = False,
) -> "Task":
    from dipkernels import tasks

    given = picture.given(measured=measured)
    return tasks.dejpeg(given["clean"], measurement=given["measurement"], quality=quality)


def _super_resolve(
    picture: Picture,
    *,
    factor: Annotated[int, "Of super-resolution."] = 4,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
) -> "Task":
    from dipkernels import tasks

    given = picture.given(measured=measured)
    return tasks.super_resolve(given.pop("clean"), factor=factor, noise_sigma=noise_sigma, **given)


def _flash(
    picture: Picture,
    *,
    flash: Annotated[str, "The photograph with flash."] = "",
    noise_sigma: Noise = 0.0,
) -> "Task":
    from dipkernels import images, tasks

    lit = images.resize(picture.files["flash"], picture.size)
    return tasks.flash_no_flash(lit, picture.shown, noise_sigma=noise_sigma)


def _check_flash(task: Options, said: Container[str], spell: Spelling) -> None:
    if not task["flash"]:
        raise InvalidInputError(
            f"task 'flash' needs {spell('flash')}, the photograph with flash; the image is the one "
            "without"
        )


def _draws_nothing(task: Options) -> bool:
    return False  # the photograph has its noise already


register_task("denoise", _denoise, check=_check_denoise)
register_task("inpaint", _inpaint, files={"mask": MASKS}, draws=_draws_mask, check=_check_inpaint)
register_task("dejpeg", _dejpeg, draws=_draws_nothing)
register_task("super-resolve", _super_resolve)
register_task("flash", _flash, files={"flash": ("",)}, draws=_draws_nothing, check=_check_flash)
