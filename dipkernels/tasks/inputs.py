"""What all tasks ask of the images and numbers that they are made from."""

import math

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.errors import ImageError, InvalidInputError


def require_image(image: object, what: str = "clean image") -> Tensor:
    """Check that an image is floating point, has channels and is finite."""
    if not isinstance(image, Tensor):
        raise ImageError(
            f"the {what} must be a tensor, got {type(image).__name__}: see dipkernels.images.load, "
            "or torch.from_numpy for an array"
        )
    if image.dim() not in (2, 3) or not image.is_floating_point() or image.numel() == 0:
        raise ImageError(
            f"the {what} must be a floating-point tensor (channels, height, width) or, in 1D, "
            f"(channels, length), got {image.dtype} of shape {tuple(image.shape)}: see "
            "dipkernels.images.load"
        )
    require_finite(image, what)
    return image


def require_finite(x: Tensor, what: str) -> None:
    """Check that there is no NaN or infinity."""
    if not x.isfinite().all():
        raise ImageError(f"the {what} holds NaN or infinite values; fill or remove them")


def as_bytes(image: Tensor, what: str) -> np.ndarray:
    """Round an image in [0, 1] to 8 bits."""
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        raise ImageError(
            f"{what} rounds the image to 8 bits, but it has values from {low:g} to {high:g}; "
            "scale them to [0, 1]"
        )
    return np.asarray(image.detach().cpu().mul(255).round().byte().numpy())


def require_noise(noise_sigma: float) -> float:
    """Check a noise level."""
    if not (0 <= noise_sigma < math.inf):
        raise InvalidInputError(f"noise_sigma must be finite and not negative, got {noise_sigma}")
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
