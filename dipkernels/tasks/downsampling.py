"""Downsampling with a Lanczos filter, as the deep image prior's super-resolution does it."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.inputs import as_bytes
from dipkernels.tasks.operators import Operator, Shape

LOBES = 2


def lanczos_kernel(factor: int) -> np.ndarray:
    """Weights of the pixels around the centre of a block of ``factor`` pixels, along one axis."""
    # sinc(d / factor) sinc(d / (2 factor)) at every pixel whose distance d from that centre is
    # below 2 factor, divided by the sum.
    #
    # For factors 4 and 8 it is that of Ulyanov et al. 2018: "Lanczos2", phase 1/2, 16x16 and 32x32.
    half = 2 * factor - 0.5 if factor % 2 == 0 else 2 * factor - 1.0
    distance = np.arange(-half, half + 0.5) / factor
    weights = np.sinc(distance) * np.sinc(distance / LOBES)
    return np.asarray(weights / weights.sum())


@checked
class LanczosDownsampling(Operator):
    """Lanczos filter, replicated borders, and every ``factor``-th pixel of the result.

    Applied as one small matrix per axis, because the filter is separable: products with these are
    exact in all derivatives, deterministic on every device, and fast beside any network.
    """

    def __init__(self, image_shape: Shape, factor: int) -> None:
        sides = check_factor(image_shape, factor)
        super().__init__(image_shape, (image_shape[0], *(side // factor for side in sides)))
        self.name = f"Lanczos downsampling by {factor}"
        self._exact = [torch.from_numpy(_axis_matrix(side, factor)) for side in sides]
        self._weights = self._exact

    def _forward(self, image: Tensor) -> Tensor:
        return _along_axes(image, [weights.to(image.dtype) for weights in self._weights])

    def _adjoint(self, measurement: Tensor) -> Tensor:
        return _along_axes(measurement, [w.T.to(measurement.dtype) for w in self._weights])

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        device = self._weights[0].device if device is None else device
        dtype = self._weights[0].dtype if dtype is None else dtype
        self._weights = [weights.to(device, dtype) for weights in self._exact]


def check_factor(image_shape: Shape, factor: int) -> Shape:
    """Check that a factor divides the sides of an image."""
    sides = tuple(image_shape[1:])
    if not isinstance(factor, int) or factor < 2:
        raise InvalidInputError(f"a factor must be an integer of at least 2, got {factor}")
    if any(side % factor for side in sides) or not sides:
        fitting = tuple(side // factor * factor for side in sides)
        remedy = f"crop it to {'x'.join(map(str, fitting))} (by dipkernels.images.crop)"
        remedy = remedy if min(fitting, default=0) > 0 else "take a larger one"
        raise InvalidInputError(
            f"an image of size {'x'.join(map(str, sides))} can't be divided by {factor}: {remedy}"
        )
    return sides


def _along_axes(x: Tensor, matrices: list[Tensor]) -> Tensor:
    x = x @ matrices[-1].T
    x = x if len(matrices) == 1 else matrices[-2] @ x
    for axis, matrix in enumerate(matrices[:-2], start=-len(matrices)):
        x = (x.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return x


# Row i holds the kernel about the centre of block i; pixels beyond the border are the last one.
def _axis_matrix(side: int, factor: int) -> np.ndarray:
    kernel = lanczos_kernel(factor)
    first = factor / 2 - len(kernel) / 2  # of the kernel's pixels, for block 0
    matrix = np.zeros((side // factor, side))
    for row in range(len(matrix)):
        columns = np.clip(row * factor + int(first) + np.arange(len(kernel)), 0, side - 1)
        np.add.at(matrix[row], columns, kernel)
    return matrix


def pillow_downsample(
    image: Float[Tensor, "channels height width"], factor: int
) -> Float[Tensor, "channels low_height low_width"]:
    """Downsample as the super-resolution experiments of the literature do: Pillow, 8 bits."""
    size = (image.shape[2] // factor, image.shape[1] // factor)
    pixels = as_bytes(image, "downsampling='pillow'")
    small = [
        np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.LANCZOS))
        for channel in pixels
    ]
    return torch.from_numpy(np.stack(small)).to(image) / 255
