"""Kinds of tasks that measure something else than pixels: blurs, projections, frequencies, ..."""

from collections.abc import Container
from typing import TYPE_CHECKING, Annotated

from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.specs.loading import call, load_function
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
    sides,
)

if TYPE_CHECKING:
    from torch import Tensor

    from dipkernels.tasks import Operator, Task

LINES = "lines"


def _simulated(picture: Picture, operator: "Operator", noise_sigma: float, name: str) -> "Task":
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
        return _simulated(picture, operator, noise_sigma, "deblur")
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
        return _simulated(picture, operator, noise_sigma, "radon")
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
    truth = picture.scaled(picture.files["clean"].image) if clean else None
    return tasks.measure(operator, truth, measurement=seen, noise_sigma=noise_sigma, name="radon")


def _fourier(
    picture: Picture,
    *,
    mask: Annotated[str, "A file, or lines."] = LINES,
    known: Annotated[float | None, "Share of the lines. (default: 0.25)"] = None,
    centre: Annotated[
        float | None, "Fraction of Fourier lines that are taken from the middle. (default: 0.08)"
    ] = None,
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    if measured:
        truth = picture.scaled(picture.files["clean"].image) if clean else None
        return _measured_frequencies(picture, mask, truth, noise_sigma)
    if mask == LINES:
        shares = {"known": known, "centre": centre}
        said = {key: share for key, share in shares.items() if share is not None}
        found = tasks.line_mask(picture.size, seed=picture.seed, **said)
    else:
        found = _frequencies(picture, mask)
    operator = tasks.Fourier(picture.shown.shape, found)
    return _simulated(picture, operator, noise_sigma, "fourier")


# Complex numbers are read as two channels each; all frequencies lie on the image's grid.
def _measured_frequencies(
    picture: Picture, mask: str, truth: "Tensor | None", noise_sigma: float
) -> "Task":
    import torch

    from dipkernels import tasks

    values, size = picture.native, picture.size
    if len(values) % 2 or tuple(values.shape[1:]) != tuple(size):
        raise ImageError(
            "Fourier coefficients are complex, one for each pixel of the image: a .npy file of "
            f"shape (height, width) or (channels, height, width), here {len(values)} real channels "
            f"of {sides(values.shape[1:])} numbers for an image of {sides(size)}"
        )
    if mask == HOLES:
        found = values.isfinite().all(dim=0) & (values != 0).any(dim=0)
        if not bool(found.any()):
            raise ImageError(f"no coefficient is measured: all are 0 or NaN, which '{HOLES}' hides")
    else:
        found = _frequencies(picture, mask)
    seen = torch.stack([values[0::2, found], values[1::2, found]])
    if not bool(seen.isfinite().all()):
        raise ImageError(
            "coefficients that the mask calls measured are NaN or infinite: hide them by the mask, "
            f"or take the mask '{HOLES}', which hides what is NaN or 0"
        )
    operator = tasks.Fourier((len(values) // 2, *size), found)
    return tasks.measure(operator, truth, measurement=seen, noise_sigma=noise_sigma, name="fourier")


def _frequencies(picture: Picture, source: str) -> "Tensor":
    from dipkernels.images.files import mask_light

    light = mask_light(picture.files["mask"], source)
    if tuple(light.shape) != tuple(picture.size):
        raise ImageError(
            f"the mask {source} has {sides(light.shape)} frequencies, the image "
            f"{sides(picture.size)} pixels: they must be of one size"
        )
    if not bool((light > 0.5).any()):
        raise ImageError(f"the mask {source} is all black: white means measured")
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
    for name in ("known", "centre"):
        if task["mask"] != LINES and task[name] is not None:
            raise InvalidInputError(
                f"{spell(name)} has no effect with {spell('mask')} '{task['mask']}': it is a share "
                "of lines that are drawn"
            )


def _sense(
    picture: Picture,
    *,
    known: Annotated[float | None, "Combinations over numbers of the image."] = None,
    matrix: Annotated[str, "Matrix of the random combinations: hartley or gaussian."] = "hartley",
    noise_sigma: Noise = 0.0,
) -> "Task":
    from dipkernels import tasks

    share = 0.25 if known is None else known
    if not 0 < share <= 1:
        raise InvalidInputError(f"the share of combinations must be in (0, 1], got {share}")
    count = max(1, round(share * picture.shown.numel()))
    operator = tasks.RandomSensing(picture.shown.shape, count, matrix, picture.seed)
    return _simulated(picture, operator, noise_sigma, "sense")


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
        return _simulated(picture, operator, noise_sigma, "demosaick")
    if picture.size != tuple(picture.native.shape[1:]):
        raise ImageError("a mosaic can't be scaled: take the file's size, 'native'")
    truth, seen = picture.files["clean"].image if clean else None, shown * mask
    return tasks.measure(
        operator, truth, measurement=seen, noise_sigma=noise_sigma, name="demosaick"
    )


def _operator(
    picture: Picture,
    *,
    operator: Annotated[
        str,
        "FILE.py:NAME or MODULE:NAME: a function that takes the image's shape (channels, height, "
        "width) and returns an operator (see dipkernels.tasks.as_operator) or a task. It is run.",
    ] = "",
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    if measured:
        return _measured_by(picture, operator, clean, noise_sigma)
    shape = tuple(picture.shown.shape)
    made = call(operator, load_function(operator), shape)
    if not isinstance(made, tasks.Task):
        found = tasks.as_operator(made, shape)
        return _simulated(picture, found, noise_sigma, "operator")
    if made.shape != shape or noise_sigma:
        raise InvalidInputError(
            f"{operator} made a task of shape {made.shape}, of images of {shape}: its own shape "
            "and noise count, so that others have no effect"
        )
    return made


# The size is that of the image sought; the file may have an axis of channels more than the data.
def _measured_by(picture: Picture, operator: str, clean: str, noise_sigma: float) -> "Task":
    from dipkernels import tasks

    truth = picture.scaled(picture.files["clean"].image) if clean else None
    shape = (1 if truth is None else len(truth), *picture.size)
    made = call(operator, load_function(operator), shape)
    if isinstance(made, tasks.Task):
        raise InvalidInputError(
            f"{operator} made a task, which has its own measurement: leave the measured image out"
        )
    found, seen = tasks.as_operator(made, shape), picture.native
    if found.measurement_shape == tuple(seen.shape[1:]) and len(seen) == 1:
        seen = seen[0]
    if found.measurement_shape != tuple(seen.shape):
        raise ImageError(
            f"{operator} measures {found.measurement_shape} numbers of an image of {shape}, the "
            f"file has {tuple(seen.shape)}; the size of the image is said by --size (size:)"
        )
    return tasks.measure(found, truth, measurement=seen, noise_sigma=noise_sigma, name="operator")


def _check_operator(task: Options, said: Container[str], spell: Spelling) -> None:
    if not task["operator"]:
        raise InvalidInputError(
            f"task 'operator' needs {spell('operator')} FILE.py:NAME, a function that makes one"
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
    files={"mask": (LINES, HOLES), **FILES},
    draws=_draws_lines,
    check=_check_fourier,
    simulates="some of its Fourier coefficients are taken",
)
register_task(
    "sense", _sense, draws=lambda task: True, simulates="random combinations of it are taken"
)
register_task("demosaick", _demosaick, files=FILES, simulates="a mosaic of its colours is taken")
register_task(
    "operator",
    _operator,
    files=FILES,
    check=_check_operator,
    simulates="what the operator measures is taken",
)
