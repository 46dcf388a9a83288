"""Kinds of tasks whose data need not look like an image: combinations, one's own operator."""

import math
from collections.abc import Container
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from dipkernels.errors import DipkernelsError, ImageError, InvalidInputError
from dipkernels.specs.image import complex_or_real
from dipkernels.specs.loading import call, content_hash, load_function
from dipkernels.specs.measuring import simulated_by
from dipkernels.specs.task import (
    FILES,
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

MATRICES = ("hartley", "gaussian")


def _sense(
    picture: Picture,
    *,
    known: Annotated[float | None, "Combinations over numbers of the image."] = None,
    matrix: Annotated[
        str,
        "Matrix of the combinations: hartley or gaussian, which are drawn; or a .npy file of shape "
        "(combinations, numbers of the image).",
    ] = "hartley",
    noise_sigma: Noise = 0.0,
    measured: Measured = False,
    clean: Clean = "",
) -> "Task":
    from dipkernels import tasks

    if measured:
        return _measured_combinations(picture, clean, noise_sigma)
    shape = tuple(picture.shown.shape)
    if matrix not in MATRICES:
        own = tasks.as_operator(_matrix(picture), shape)
        return simulated_by(picture, own, noise_sigma, "sense")
    share = 0.25 if known is None else known
    if not 0 < share <= 1:
        raise InvalidInputError(f"the share of combinations must be in (0, 1], got {share}")
    count = max(1, round(share * picture.shown.numel()))
    drawn = tasks.RandomSensing(shape, count, matrix, picture.seed)
    return simulated_by(picture, drawn, noise_sigma, "sense")


# Numbers as they are stored, not as fractions of white.
def _matrix(picture: Picture) -> "Tensor":
    file = picture.files["matrix"]
    found = complex_or_real(file) * file.white
    if found.dim() == 4 or (found.dim() == 3 and len(found) > 1):
        raise ImageError(f"a matrix has two axes, its file has shape {tuple(found.shape)}")
    return found[0] if found.dim() == 3 else found


# One number is the side of a square; the length of a signal, where no square has so few numbers.
def _measured_combinations(picture: Picture, clean: str, noise_sigma: float) -> "Task":
    from dipkernels import tasks

    matrix, seen, size = _matrix(picture), complex_or_real(picture.file), picture.size
    count, numbers = matrix.shape
    unsaid = size == tuple(picture.native.shape[1:])  # then it's the number of the data
    if len(size) == 1 and not unsaid and numbers % size[0] ** 2 == 0:
        size = (size[0], size[0])
    if unsaid and numbers != math.prod(size):
        raise ImageError(
            f"the matrix combines {numbers} numbers: say the size of their image by --size (size:)"
        )
    channels, rest = divmod(numbers, math.prod(size))
    if rest or not channels or seen.numel() != count:
        raise ImageError(
            f"the matrix makes {count} combinations of {numbers} numbers, the file has "
            f"{seen.numel()} for an image of {sides(size)} pixels; the size of the image is said "
            "by --size (size:)"
        )
    truth = replace(picture, size=size).truth(clean)
    operator = tasks.as_operator(matrix, (channels, *size))
    return tasks.measure(
        operator, truth, measurement=seen.flatten(), noise_sigma=noise_sigma, name="sense"
    )


def _check_sense(task: Options, said: Container[str], spell: Spelling) -> None:
    drawn = task["matrix"] in MATRICES
    if task["measured"] and drawn:
        raise InvalidInputError(
            f"combinations that were measured ({spell('measured')}) need {spell('matrix')} FILE, "
            "the matrix that they were measured by"
        )
    if not drawn and task["known"] is not None:
        raise InvalidInputError(
            f"{spell('known')} has no effect with a matrix of your own, whose rows are the "
            "combinations"
        )


def _draws_matrix(task: Options) -> bool:
    return task["matrix"] in MATRICES or draws_noise(task)


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
        found = _known(operator, tasks.as_operator(made, shape))
        return simulated_by(picture, found, noise_sigma, "operator")
    if made.shape != shape or noise_sigma:
        raise InvalidInputError(
            f"{operator} made a task of shape {made.shape}, of images of {shape}: its own shape "
            "and noise count, so that others have no effect"
        )
    _known(operator, made.operator)
    return made


def _known(source: str, operator: "Operator") -> "Operator":
    """Let an operator be known by the text that made it, too: runs of another go on from none."""
    operator.origin = content_hash(source)
    return operator


# The file may have an axis of channels more than the data.
def _measured_by(picture: Picture, source: str, clean: str, noise_sigma: float) -> "Task":
    from dipkernels import tasks

    seen, function = picture.native, load_function(source)
    shapes = _shapes(picture, clean)
    made = [_called(source, function, shape, alone=len(shapes) == 1) for shape in shapes]
    expected = [tuple(seen.shape)] + ([tuple(seen.shape[1:])] if len(seen) == 1 else [])
    fitting = [each for each in made if each is not None and each.measurement_shape in expected]
    if len(fitting) > 1:
        ways = " and for ".join(sides(each.image_shape[1:]) for each in fitting)
        raise ImageError(
            f"{source} measures as many numbers for images of {ways} pixels: say all sides of the "
            "image by --size (size:), or let the function refuse the shape that isn't meant"
        )
    if not fitting:
        other = next((each for each in made if each is not None), None)
        if other is None:
            other = _called(source, function, shapes[0], alone=True)
        raise ImageError(
            f"{source} measures {other.measurement_shape} numbers of an image of "
            f"{other.image_shape}, the file has {tuple(seen.shape)}; the size of the image is said "
            "by --size (size:)"
        )
    found = fitting[0]
    truth = replace(picture, size=found.image_shape[1:]).truth(clean)
    return tasks.measure(
        found,
        truth,
        measurement=seen.reshape(found.measurement_shape),
        noise_sigma=noise_sigma,
        name="operator",
    )


# Of the image that is sought: neither data nor a size of one number say how many axes it has. A
# volume is none of the guesses: a matrix for it may not fit into memory.
def _shapes(picture: Picture, clean: str) -> list[tuple[int, ...]]:
    truth = picture.files["clean"].image if clean else None
    channels, size = 1 if truth is None else len(truth), picture.size
    if len(size) > 1 or size == tuple(picture.native.shape[1:]):  # nobody said another
        return [(channels, *size)]
    axes = (2, 1) if truth is None else (truth.dim() - 1,)
    return [(channels, *size * n) for n in axes]


def _called(source: str, function: Any, shape: tuple[int, ...], *, alone: bool) -> Any:
    """Make the operator for images of a shape; None, if it's one of several that fails."""
    from dipkernels import tasks

    try:
        made = call(source, function, shape)
        if isinstance(made, tasks.Task):
            raise InvalidInputError(
                f"{source} made a task, which has its own measurement: leave the measured image out"
            )
        return _known(source, tasks.as_operator(made, shape))
    except DipkernelsError:
        if alone:
            raise
        return None


def _check_operator(task: Options, said: Container[str], spell: Spelling) -> None:
    if not task["operator"]:
        raise InvalidInputError(
            f"task 'operator' needs {spell('operator')} FILE.py:NAME, a function that makes one"
        )


register_task(
    "sense",
    _sense,
    files={"matrix": MATRICES, **FILES},
    draws=_draws_matrix,
    check=_check_sense,
    simulates="random combinations of it are taken",
    data=True,
)
register_task(
    "operator",
    _operator,
    files=FILES,
    check=_check_operator,
    simulates="what the operator measures is taken",
    data=True,
)
