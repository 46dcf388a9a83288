"""Kinds of tasks that measure pixels: denoising, inpainting, JPEG, super-resolution, flash."""

from collections.abc import Container
from typing import TYPE_CHECKING, Annotated

from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.specs.misfit import photons
from dipkernels.specs.task import (
    FILES,
    HOLES,
    Clean,
    Measured,
    Noise,
    Options,
    Picture,
    Spelling,
    draws_noise,
    register_task,
    require_hides_effect,
    sides,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dipkernels.tasks import Task

NOISE_SIGMA = 25 / 255  # that of `dipkernels.tasks.denoise`, here without torch
MASKS = ("bernoulli", "region", "text", HOLES)


def _denoise(
    picture: Picture,
    *,
    noise_sigma: Noise = NOISE_SIGMA,
    clip: Annotated[bool, "Clip the noisy image to [0, 1]."] = False,
    shared_noise: Annotated[bool, "Add the same noise to all channels."] = False,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    given = picture.given(measured=measured, clean=clean, noise_sigma=noise_sigma)
    given["clean"] = _matching(picture, given["clean"])
    return tasks.denoise(noise_sigma=noise_sigma, clip=clip, shared_noise=shared_noise, **given)


def _matching(picture: Picture, clean: "Tensor | None") -> "Tensor | None":
    """Bring the clean image of a measurement to its size, if they were of one."""
    if clean is None or clean.shape[1:] != picture.native.shape[1:]:
        return clean
    return picture.scaled(clean)


def _check_denoise(task: Options, said: Container[str], spell: Spelling) -> None:
    if task["measured"] and "noise_sigma" not in said and photons(task, spell) is None:
        raise InvalidInputError(
            f"{spell('noise_sigma')}, the level of the measurement's noise, must be said; 0 if "
            "unknown"
        )


def _inpaint(
    picture: Picture,
    *,
    mask: Annotated[
        str,
        "For inpaint: a file, white = known; bernoulli, region, text; or holes, the transparent or "
        "NaN pixels of the image. For fourier: a file, white = measured, frequency 0 in the "
        "middle; lines; or holes, coefficients of a file that are 0 or NaN.",
    ] = "bernoulli",
    mask_hides: Annotated[
        str | None,
        "What a mask's file hides: black, white, transparent or opaque. (default: transparent if "
        "it has alpha, else black)",
    ] = None,
    known: Annotated[
        float | None,
        "Fraction of pixels that a bernoulli mask keeps (default: 0.5), or of Fourier lines or "
        "random combinations that are measured (default: 0.25).",
    ] = None,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    picture, holes = _with_holes(picture) if mask == HOLES else (picture, None)
    drawn = _mask(picture, mask, known, mask_hides) if holes is None else holes
    if measured and picture.size == tuple(picture.native.shape[1:]):
        picture = picture.filled(drawn)  # what the mask hides may be NaN
    given = picture.given(measured=measured, clean=clean, noise_sigma=noise_sigma)
    truth = _matching(picture, given.pop("clean"))
    return tasks.inpaint(truth, drawn, noise_sigma=noise_sigma, **given)


def _with_holes(picture: Picture) -> "tuple[Picture, Tensor]":
    """Fill the holes of a file, and say where they were."""
    known = picture.file.known
    if bool(known.all()):
        raise ImageError("the mask 'holes' needs an image with transparent or NaN pixels")
    if picture.size != tuple(known.shape):
        raise ImageError(
            f"an image with holes can't be scaled to {sides(picture.size)}: its size is "
            f"{sides(known.shape)}; take 'native'"
        )
    return picture.filled(known), known


def _check_inpaint(task: Options, said: Container[str], spell: Spelling) -> None:
    mask, measured = spell("mask"), spell("measured")
    if task["known"] is not None and task["mask"] != "bernoulli":
        raise InvalidInputError(
            f"{spell('known')} has no effect with {mask} '{task['mask']}': it is the fraction of "
            "pixels that a bernoulli mask keeps"
        )
    if task["measured"] and "mask" not in said:
        raise InvalidInputError(
            f"a damaged image ({measured}) needs {mask}: a file that says which of its pixels are "
            "known, or holes, if these are transparent or NaN"
        )
    if task["mask"] == HOLES and not task["measured"]:
        raise InvalidInputError(
            f"{mask} holes needs {measured}: nobody knows the image in its holes"
        )
    require_hides_effect(task, MASKS, spell)


def _draws_mask(task: Options) -> bool:
    return draws_noise(task) or task["mask"] in ("bernoulli", "text")


def _mask(picture: Picture, kind: str, known: float | None, hides: str | None) -> "Tensor":
    from dipkernels import images, tasks
    from dipkernels.images.files import mask_light

    size, native = picture.size, tuple(picture.native.shape[1:])
    if kind == "bernoulli":
        known = 0.5 if known is None else known
        return tasks.bernoulli_mask(size, known=known, seed=picture.seed)
    if kind == "region":
        return tasks.region_mask(size)
    if kind == "text":
        return tasks.text_mask(size, font_size=max(8, min(size) // 16), seed=picture.seed)
    light = mask_light(picture.files["mask"], kind, hides)
    if tuple(light.shape) not in (native, size):
        raise ImageError(
            f"the mask {kind} has {sides(light.shape)} pixels, the image {sides(native)}: they "
            "must be of one size"
        )
    found = images.resize(light[None], size)[0] > 0.5
    if not bool(found.any()):
        raise ImageError(
            f"the mask {kind} is all black: no pixel is known; white means known, unless it is "
            "said to be hidden (mask_hides)"
        )
    return found


def _dejpeg(
    picture: Picture,
    *,
    quality: Annotated[int | None, "JPEG quality, 1 to 100. (default: 10)"] = None,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    given = picture.given(measured=measured, clean=clean)
    truth = _matching(picture, given["clean"])
    return tasks.dejpeg(truth, measurement=given["measurement"], quality=quality)


def _super_resolve(
    picture: Picture,
    *,
    factor: Annotated[int, "Factor of super-resolution."] = 4,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    given = picture.given(measured=measured, clean=clean, noise_sigma=noise_sigma)
    return tasks.super_resolve(given.pop("clean"), factor=factor, noise_sigma=noise_sigma, **given)


def _flash(
    picture: Picture,
    *,
    flash: Annotated[str, "The photograph with flash."] = "",
    noise_sigma: Noise = 0.0,
) -> "Task":
    from dipkernels import tasks

    lit = picture.scaled(picture.files["flash"].image)
    return tasks.flash_no_flash(lit, picture.shown, noise_sigma=noise_sigma)


def _check_flash(task: Options, said: Container[str], spell: Spelling) -> None:
    if not task["flash"]:
        raise InvalidInputError(
            f"task 'flash' needs {spell('flash')}, the photograph with flash; the image is the one "
            "without"
        )


def _draws_nothing(task: Options) -> bool:
    return False  # the photograph has its noise already


register_task(
    "denoise", _denoise, files=FILES, check=_check_denoise, simulates="noise is added to it"
)
register_task(
    "inpaint",
    _inpaint,
    files={"mask": MASKS, **FILES},
    draws=_draws_mask,
    check=_check_inpaint,
    simulates="the mask hides pixels of it",
)
register_task(
    "dejpeg", _dejpeg, files=FILES, draws=_draws_nothing, simulates="it is compressed as JPEG"
)
register_task("super-resolve", _super_resolve, files=FILES, simulates="it is made smaller")
register_task("flash", _flash, files={"flash": ("",)}, draws=_draws_nothing, check=_check_flash)
