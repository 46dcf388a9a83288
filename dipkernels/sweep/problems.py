"""Tasks as a plan names them: their options, what has an effect, and how they're made."""

from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from dipkernels import images, tasks
from dipkernels.base.words import suggest
from dipkernels.errors import ImageError, InvalidInputError, UnknownNameError
from dipkernels.tasks import NOISE_SIGMA, Task

MASKS = ("bernoulli", "region", "text")
Options = Mapping[str, tuple[Any, Any]]

_ALL: dict[str, tuple[Any, Any]] = {"hold_out": (float | None, None), "seed": (int | None, None)}
_MEASURED: dict[str, tuple[Any, Any]] = {"measured": (bool, False)}
_NOISE: dict[str, tuple[Any, Any]] = {"noise_sigma": (float, 0.0)}

# What each takes, with annotation and default. ``seed`` is the run's unless it's given.
TASKS: dict[str, Options] = {
    "denoise": {
        "noise_sigma": (float, NOISE_SIGMA),
        "clip": (bool, False),
        "shared_noise": (bool, False),
        **_MEASURED,
        **_ALL,
    },
    "inpaint": {
        "mask": (str, "bernoulli"),
        "known": (float | None, None),
        **_NOISE,
        **_MEASURED,
        **_ALL,
    },
    "dejpeg": {"quality": (int | None, None), **_MEASURED, **_ALL},
    "super-resolve": {"factor": (int, 4), **_NOISE, **_MEASURED, **_ALL},
    "flash": {"flash": (str, ""), **_NOISE, **_ALL},
}


def task_options(name: str) -> Options:
    """Look up what a task takes.

    Parameters
    ----------
    name : str
        Of the task, as on the command line.

    Returns
    -------
    mapping of str to (annotation, default)
        By option.

    Raises
    ------
    UnknownNameError
        If there is no such task.
    """
    if name not in TASKS:
        raise UnknownNameError(f"unknown task '{name}': {suggest(name, TASKS)}")
    return TASKS[name]


def require_effects(task: Mapping[str, Any], said: Container[str]) -> None:
    """Refuse options of which one makes another idle, or needs another.

    Parameters
    ----------
    task : mapping
        Its name and all its options.
    said : container of str
        Those that the plan says.

    Raises
    ------
    InvalidInputError
        If one has no effect, or one is missing.
    """
    if task["name"] == "inpaint" and task["known"] is not None and task["mask"] != "bernoulli":
        raise InvalidInputError(
            f"known has no effect with mask '{task['mask']}': it is the fraction of pixels that a "
            "bernoulli mask keeps"
        )
    if task["name"] == "flash" and not task["flash"]:
        raise InvalidInputError("task 'flash' needs the key flash, the photograph with flash")
    if task["name"] == "denoise" and task["measured"] and "noise_sigma" not in said:
        raise InvalidInputError(
            "noise_sigma, the level of the measurement's noise, must be said; 0 if unknown"
        )
    if task["seed"] is not None and not _draws(task):
        raise InvalidInputError(
            f"seed has no effect on this '{task['name']}', which draws no noise, no mask and no "
            "pixels to hold out: leave it out, or equal runs would count as several"
        )


# A measurement that is given has its noise already, as has the photograph of 'flash'.
def _draws(task: Mapping[str, Any]) -> bool:
    given = task["name"] == "flash" or task.get("measured", False)
    noise = not given and task.get("noise_sigma", 0.0) > 0
    mask = task["name"] == "inpaint" and task["mask"] in ("bernoulli", "text")
    return noise or mask or task["hold_out"] is not None


def make_task(
    task: Mapping[str, Any], native: Tensor, size: tuple[int, int], files: Mapping[str, Tensor]
) -> Task:
    """Make a task.

    Parameters
    ----------
    task : mapping
        Its name and all its options, the seed included.
    native : Tensor, shape (channels, height, width)
        The image as it was read.
    size : (height, width)
        To bring it to.
    files : mapping of str to Tensor
        ``mask`` and ``flash`` as they were read, where these are files.

    Returns
    -------
    Task
        On the CPU, in float32.
    """
    shown = images.resize(native, size)
    clean, measured = (None, shown) if task.get("measured") else (shown, None)
    both: dict[str, Any] = {"measurement": measured}
    seed = task["seed"]
    noise_seed = 0 if measured is not None else seed  # no noise is drawn for a measurement
    noise: dict[str, Any] = {"noise_sigma": task.get("noise_sigma"), "seed": noise_seed}
    if task["name"] == "denoise":
        extra = {key: task[key] for key in ("clip", "shared_noise")}
        made = tasks.denoise(clean, **both, **noise, **extra)
    elif task["name"] == "dejpeg":
        made = tasks.dejpeg(clean, **both, quality=task["quality"])
    elif task["name"] == "super-resolve":
        made = tasks.super_resolve(clean, **both, factor=task["factor"], **noise)
    elif task["name"] == "flash":
        flash = images.resize(files["flash"], size)
        made = tasks.flash_no_flash(flash, shown, noise_sigma=task["noise_sigma"])
    else:
        mask = _mask(task, native, size, files)
        made = tasks.inpaint(clean, mask, **both, **noise)
    return made if task["hold_out"] is None else made.hold_out(task["hold_out"], seed=seed)


def _mask(
    task: Mapping[str, Any], native: Tensor, size: tuple[int, int], files: Mapping[str, Tensor]
) -> Tensor:
    kind = task["mask"]
    if kind == "bernoulli":
        known = 0.5 if task["known"] is None else task["known"]
        return tasks.bernoulli_mask(size, known=known, seed=task["seed"])
    if kind == "region":
        return tasks.region_mask(size)
    if kind == "text":
        return tasks.text_mask(size, font_size=max(8, min(size) // 16), seed=task["seed"])
    drawn = files["mask"]
    if tuple(drawn.shape[1:]) not in (tuple(native.shape[1:]), size):
        raise ImageError(
            f"the mask {kind} has {drawn.shape[1]}x{drawn.shape[2]} pixels, the image "
            f"{native.shape[1]}x{native.shape[2]}: they must be of one size"
        )
    mask = images.resize(drawn.mean(dim=0, keepdim=True), size)[0] > 0.5
    if not bool(mask.any()):
        raise ImageError(f"the mask {kind} is all black: no pixel is known; white means known")
    return torch.as_tensor(mask)
