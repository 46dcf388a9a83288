"""Kinds of tasks that measure something else than pixels: blurs, projections, frequencies, ..."""

from collections.abc import Container
from typing import TYPE_CHECKING, Annotated

from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.specs.image import complex_or_real
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

    from dipkernels.tasks import Operator, Task

LINES = "lines"


def simulated_by(picture: Picture, operator: "Operator", noise_sigma: float, name: str) -> "Task":
    """Take an image as clean, and measure it."""
    from dipkernels import tasks

    clean = picture.shown
    return tasks.measure(operator, clean, noise_sigma=noise_sigma, seed=picture.seed, name=name)


def _deblur(
    picture: Picture,
    *,
    blur: Annotated[float | None, "Standard deviation of a Gaussian blur, in pixels."] = None,
    psf: Annotated[
        str,
        "Point-spread function, an image file, in place of a Gaussian; scaled to sum to 1.",
    ] = "",
    boundary: Annotated[
        str,
        "Boundary condition of a blur: reflect, replicate, periodic, zero, or valid, which "
        "measures only where the whole kernel lies within the image.",
    ] = "reflect",
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks
    from dipkernels.tasks.convolution import as_psf

    table = (
        as_psf(picture.files["psf"].image)
        if psf
        else tasks.gaussian_psf(blur, axes=len(picture.size))
    )
    if not measured:
        operator = tasks.Blur(picture.shown.shape, table, boundary)
        return simulated_by(picture, operator, noise_sigma, "deblur")
    if picture.is_scaled:
        raise ImageError(
            "a blurred image can't be scaled, its point-spread function would be another: take the "
            "file's size, 'native'"
        )
    seen = picture.shown
    margin = [k - 1 if boundary == "valid" else 0 for k in table.shape]
    shape = (seen.shape[0], *(n + m for n, m in zip(seen.shape[1:], margin, strict=True)))
    truth = picture.files["clean"].image if clean else None
    operator = tasks.Blur(shape, table, boundary)
    return tasks.measure(operator, truth, measurement=seen, noise_sigma=noise_sigma, name="deblur")


def _check_deblur(task: Options, said: Container[str], spell: Spelling) -> None:
    if bool(task["psf"]) == (task["blur"] is not None):
        raise InvalidInputError(
            f"task 'deblur' needs either {spell('blur')}, the standard deviation of a Gaussian in "
            f"pixels, or {spell('psf')}, a file with the image of a point"
            + (", not both" if task["psf"] else "")
        )


def _radon(
    picture: Picture,
    *,
    angles: Annotated[int, "Number of projection angles, evenly spaced over 180 degrees."] = 60,
    detectors: Annotated[
        int | None, "Number of detectors, each a pixel wide. (default: as many as see the image)"
    ] = None,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    if not measured:
        operator = tasks.Radon(picture.shown.shape, angles, detectors)
        return simulated_by(picture, operator, noise_sigma, "radon")
    seen = picture.native  # a sinogram, which isn't scaled: the size is that of the image sought
    rows, columns = seen.shape[1:]
    if picture.size == (rows, columns):
        raise ImageError(
            f"the size of the image can't be told from its projections, {rows} angles of {columns} "
            "detectors: say --size (size:), such as 64 or 48x64"
        )
    operator = tasks.Radon((seen.shape[0], *picture.size), angles, detectors or columns)
    if operator.measurement_shape != tuple(seen.shape):
        raise ImageError(
            f"projections are (channels, angles, detectors), here {tuple(seen.shape)}, but "
            f"{angles} angles are asked for (--angles, angles:): each row of the file is an angle"
        )
    truth = picture.truth(clean)
    return tasks.measure(operator, truth, measurement=seen, noise_sigma=noise_sigma, name="radon")


def _fourier(
    picture: Picture,
    *,
    mask: Annotated[str, "A file, or lines."] = LINES,
    mask_hides: Annotated[str | None, "What a mask's file hides."] = None,
    known: Annotated[float | None, "Share of the lines. (default: 0.25)"] = None,
    centre: Annotated[
        float | None, "Fraction of Fourier lines that are taken from the middle. (default: 0.08)"
    ] = None,
    coils: Annotated[
        str, "Sensitivities of the coils of a scanner: a .npy file (coils, height, width)."
    ] = "",
    complex_image: Annotated[
        bool, "The image is complex: two channels for each, real and imaginary part."
    ] = False,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    maps = complex_or_real(picture.files["coils"]) if coils else None
    if measured:
        truth = picture.truth(clean)
        found, seen = _measured_frequencies(
            picture, mask, mask_hides, 0 if maps is None else len(maps)
        )
        shape = (2 * seen.shape[1] if complex_image else seen.shape[1], *picture.size)
        operator = tasks.Fourier(shape, found, maps, complex_image=complex_image)
        return tasks.measure(
            operator, truth, measurement=seen, noise_sigma=noise_sigma, name="fourier"
        )
    if mask == LINES:
        shares = {"known": known, "centre": centre}
        said = {key: share for key, share in shares.items() if share is not None}
        found = tasks.line_mask(picture.size, seed=picture.seed, **said)
    else:
        found = _frequencies(picture, mask, mask_hides)
    operator = tasks.Fourier(picture.shown.shape, found, maps, complex_image=complex_image)
    return simulated_by(picture, operator, noise_sigma, "fourier")


# Which frequencies were measured, and the coefficients (2, channels, [coils,] frequencies). All lie
# on the image's grid; channels of a file are those of the image, or coils.
def _measured_frequencies(
    picture: Picture, mask: str, hides: str | None, coils: int
) -> "tuple[Tensor, Tensor]":
    import torch

    values, size = picture.native, picture.size
    if len(values) % 2 or tuple(values.shape[1:]) != tuple(size):
        raise ImageError(
            "Fourier coefficients are complex, one for each pixel of the image: a .npy file of "
            f"shape (height, width) or (channels, height, width), here {len(values)} real channels "
            f"of {sides(values.shape[1:])} numbers for an image of {sides(size)}"
        )
    if coils and len(values) != 2 * coils:
        raise ImageError(
            f"there are {coils} coils, but the file has coefficients of {len(values) // 2}: it is "
            "of shape (coils, height, width)"
        )
    if mask == HOLES:
        found = values.isfinite().all(dim=0) & (values != 0).any(dim=0)
        if not bool(found.any()):
            raise ImageError(f"no coefficient is measured: all are 0 or NaN, which '{HOLES}' hides")
    else:
        found = _frequencies(picture, mask, hides)
    seen = torch.stack([values[0::2, found], values[1::2, found]])
    if not bool(seen.isfinite().all()):
        raise ImageError(
            "coefficients that the mask calls measured are NaN or infinite: hide them by the mask, "
            f"or take the mask '{HOLES}', which hides what is NaN or 0"
        )
    return found, seen[:, None] if coils else seen


def _frequencies(picture: Picture, source: str, hides: str | None) -> "Tensor":
    from dipkernels.images.files import mask_light

    light = mask_light(picture.files["mask"], source, hides)
    if tuple(light.shape) != tuple(picture.size):
        raise ImageError(
            f"the mask {source} has {sides(light.shape)} frequencies, the image "
            f"{sides(picture.size)} pixels: they must be of one size"
        )
    if not bool((light > 0.5).any()):
        raise ImageError(
            f"the mask {source} is all black: white means measured, unless it is "
            "said to be hidden (mask_hides)"
        )
    return light > 0.5


def _check_fourier(task: Options, said: Container[str], spell: Spelling) -> None:
    mask, measured = spell("mask"), spell("measured")
    if task["measured"] and task["mask"] == LINES:
        raise InvalidInputError(
            f"Fourier coefficients of a file ({measured}) need {mask}: a file that says which were "
            f"measured, white = measured, or {HOLES}, if the others are 0 or NaN"
        )
    if task["mask"] == HOLES and not task["measured"]:
        raise InvalidInputError(
            f"{mask} {HOLES} needs {measured}: of an image all coefficients are known"
        )
    require_hides_effect(task, (LINES, HOLES), spell)
    for name in ("known", "centre"):
        if task["mask"] != LINES and task[name] is not None:
            raise InvalidInputError(
                f"{spell(name)} has no effect with {spell('mask')} '{task['mask']}': it is a share "
                "of lines that are drawn"
            )


def _demosaick(
    picture: Picture,
    *,
    pattern: Annotated[str, "Colour filter of the camera, a tile of 2x2: RGGB, ..."] = "RGGB",
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    shown = picture.shown
    if shown.shape[0] != 3 and not (measured and shown.shape[0] == 1):
        raise ImageError(
            f"a mosaic is of three colours, the image has {shown.shape[0]} channel(s)"
            + ("; a measured one may be grey" if measured else "")
        )
    mask = tasks.bayer_mask(picture.size, pattern=pattern)
    operator = tasks.as_operator(mask, (3, *picture.size))
    if not measured:
        return simulated_by(picture, operator, noise_sigma, "demosaick")
    if picture.size != tuple(picture.native.shape[1:]):
        raise ImageError("a mosaic can't be scaled: take the file's size, 'native'")
    truth, seen = picture.files["clean"].image if clean else None, shown * mask
    return tasks.measure(
        operator, truth, measurement=seen, noise_sigma=noise_sigma, name="demosaick"
    )


def _draws_lines(task: Options) -> bool:
    return task["mask"] == LINES or draws_noise(task)


register_task(
    "deblur",
    _deblur,
    files={"psf": ("",), **FILES},
    check=_check_deblur,
    simulates="it is blurred",
)
register_task("radon", _radon, files=FILES, simulates="its projections are taken")
register_task(
    "fourier",
    _fourier,
    files={"mask": (LINES, HOLES), "coils": ("",), **FILES},
    draws=_draws_lines,
    check=_check_fourier,
    simulates="some of its Fourier coefficients are taken",
)
register_task("demosaick", _demosaick, files=FILES, simulates="a mosaic of its colours is taken")
