"""What all tasks ask of the images and numbers that they are made from."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.errors import ImageError, InvalidInputError, UnknownNameError
from dipkernels.images.axes import AXES, SHAPES, require_spatial
from dipkernels.images.pixels import ROUNDING


def require_image(image: object, what: str = "clean image") -> Tensor:
    """Check that an image is floating point, has channels and is finite."""
    if not isinstance(image, Tensor):
        raise ImageError(
            f"the {what} must be a tensor, got {type(image).__name__}: see dipkernels.images.load, "
            "or torch.from_numpy for an array"
        )
    if image.is_complex():
        raise ImageError(
            f"the {what} is complex, of {image.dtype}: dipkernels.images.from_complex makes two "
            "real channels of each"
        )
    if image.dim() - 1 not in AXES or not image.is_floating_point() or image.numel() == 0:
        raise ImageError(
            f"the {what} must be a floating-point tensor, {SHAPES}; got {image.dtype} of shape "
            f"{tuple(image.shape)}: see dipkernels.images.load"
        )
    require_finite(image, what)
    return image


def require_parts(task: Any) -> None:
    """Check that what a task is made of fits together: shapes, types, finite numbers."""
    operator = task.operator
    shape = operator.image_shape
    require_spatial(shape, "the image of a task")
    shapes = {"measurement": operator.measurement_shape, "clean": shape, "guide": None}
    for name, expected in shapes.items():
        _require_part(name, getattr(task, name), expected, optional=name != "measurement")
    if task.held_out is not None:
        _require_part("held_out", task.held_out, operator.measurement_shape, of=torch.bool)
    for name, region in task.regions.items():
        _require_part(f"region '{name}'", region, shape, of=torch.bool)
    if task.images < 1 or shape[0] % task.images:
        raise InvalidInputError(
            f"a task of {shape[0]} channels can't hold {task.images} images: their number must "
            "divide it"
        )


def require_region(name: str, regions: Mapping[str, Tensor]) -> None:
    """Check that a task has a region."""
    if name not in regions:
        raise UnknownNameError(f"no region '{name}' in this task; it has: {', '.join(regions)}")


def _require_part(
    name: str,
    part: Any,
    shape: tuple[int, ...] | None,
    *,
    of: torch.dtype | None = None,
    optional: bool = False,
) -> None:
    if part is None and optional:
        return
    found, fits = repr(part), False
    if isinstance(part, Tensor):
        found = f"{part.dtype} of shape {tuple(part.shape)}"
        fits = part.is_floating_point() if of is None else part.dtype is of
    if not fits or (shape is not None and tuple(part.shape) != tuple(shape)):
        raise InvalidInputError(
            f"{name} of a task must be a {'floating-point' if of is None else 'boolean'} tensor"
            f"{'' if shape is None else f' of shape {tuple(shape)}'}, got {found}"
        )
    if of is None and type(part) is Tensor and not part.is_meta:  # no stand-in without numbers
        require_finite(part, name)


def is_rehearsal(x: Tensor) -> bool:
    """Tell a tensor without numbers, or of torch's fake mode: others' code may not take it."""
    return x.is_meta or hasattr(x, "fake_mode")


def require_finite(x: Tensor, what: str) -> None:
    """Check that there is no NaN or infinity."""
    if not x.isfinite().all():
        raise ImageError(f"the {what} holds NaN or infinite values; fill or remove them")


def as_bytes(image: Tensor, what: str) -> np.ndarray:
    """Round an image in [0, 1] to 8 bits."""
    low, high = float(image.min()), float(image.max())
    if low < -ROUNDING or high > 1 + ROUNDING:
        raise ImageError(
            f"{what} rounds the image to 8 bits, but it has values from {low:.9g} to {high:.9g}; "
            "scale them to [0, 1]"
        )
    return np.asarray(image.detach().cpu().clamp(0, 1).mul(255).round().byte().numpy())


def require_noise(noise_sigma: float, image: Tensor | None = None) -> float:
    """Check a noise level, also for grey levels beside an image whose white is 1."""
    if not (0 <= noise_sigma < math.inf):
        raise InvalidInputError(f"noise_sigma must be finite and not negative, got {noise_sigma}")
    if noise_sigma > 1 and image is not None and image.numel():
        low, high = float(image.min()), float(image.max())
        if noise_sigma > high - low:
            raise InvalidInputError(
                f"a noise_sigma of {noise_sigma:g} is more than the whole image, whose values are "
                f"from {low:.4g} to {high:.4g}: white is 1, so that {noise_sigma:g} of 255 grey "
                f"levels are {noise_sigma:g}/255"
            )
    return float(noise_sigma)


def require_clean(clean: object) -> Tensor:
    """Check the image that a measurement is to be simulated of."""
    if clean is None:
        raise InvalidInputError(
            "a task needs a clean image to simulate a measurement of, or a measurement="
        )
    return require_image(clean)


def require_unused(**options: bool) -> None:
    """Check that no option of the simulation is set beside a measurement that is given."""
    wrong = [name for name, is_set in options.items() if is_set]
    if wrong:
        raise InvalidInputError(
            f"{', '.join(wrong)} would have no effect on a measurement that is given: leave out "
            f"{'it' if len(wrong) == 1 else 'them'}, or measurement="
        )


def require_pair(clean: object, measurement: object) -> None:
    """Check a measurement that looks like the image, and its ground truth if there is one."""
    measured = require_image(measurement, "measurement")
    require_truth(clean, tuple(measured.shape), "the measurement has shape")


def require_truth(clean: object, shape: tuple[int, ...], says: str) -> None:
    """Check the shape of a ground truth, if there is one; `says` begins the message."""
    found = shape if clean is None else tuple(require_image(clean).shape)
    if found != shape:
        raise ImageError(f"{says} {shape}, the clean image {found}: they must be the same")


def draw_noise(like: Tensor, seed: int, *, shared: bool = False) -> Tensor:
    """White Gaussian noise of unit variance: the same numbers in every dtype, on every device."""
    shape = (1, *like.shape[1:]) if shared else like.shape
    return torch.randn(shape, generator=generator("noise", seed)).to(like).expand(like.shape)
