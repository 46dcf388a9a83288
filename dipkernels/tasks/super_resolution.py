"""Super-resolution: a smaller image was measured."""

import dataclasses

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.downsampling import LanczosDownsampling, pillow_downsample
from dipkernels.tasks.inputs import (
    draw_noise,
    require_clean,
    require_image,
    require_noise,
    require_truth,
    require_unused,
)
from dipkernels.tasks.operators import Operator, Shape
from dipkernels.tasks.task import Task


@checked
def super_resolve(
    clean: Float[Tensor, "channels *spatial"] | None = None,
    *,
    factor: int = 4,
    measurement: Float[Tensor, "channels *low"] | None = None,
    downsampling: str = "lanczos",
    border: int | None = None,
    noise_sigma: float = 0.0,
    seed: int = 0,
) -> Task:
    """Make a super-resolution task: only a smaller image was measured.

    The forward operator is Lanczos downsampling (see
    `dipkernels.tasks.downsampling.LanczosDownsampling`), whatever made the measurement.

    Parameters
    ----------
    clean : Tensor, floating point, shape ``(channels, *spatial)``, optional
        In [0, 1]; each side a multiple of the factor. Nothing is ever stretched or cropped.
    factor : int
        How many pixels become one along each axis, at least 2; 4 and 8 in the literature.
    measurement : Tensor, shape ``(channels, *low)``, optional
        A small image: nothing is simulated, and ``clean`` is only scored against. The sought image
        is ``factor`` times as large.
    downsampling : str
        What makes the small image of the clean one: ``"lanczos"``, the operator itself; or
        ``"pillow"``, Pillow's filter on 8-bit images, another one, as in Ulyanov et al. 2018.
    border : int, optional
        Pixels left out on each side by the region ``"interior"``; by default the factor (4 in the
        literature, also at a factor of 8).
    noise_sigma : float
        Standard deviation of noise on the small image: added, or known to be in ``measurement``.
    seed : int
        Of the noise.

    Returns
    -------
    Task
        Scored over the whole image, and over the region ``"interior"``.

    Raises
    ------
    InvalidInputError
        If the factor is less than 2 or doesn't divide the sides, the border leaves nothing, the
        noise level is negative, neither image is given, or an option would have no effect.
    ImageError
        If an image is not a finite floating-point one, or the two don't fit each other.

    Examples
    --------
    >>> task = super_resolve(torch.rand(3, 32, 48), factor=4)
    >>> task
    Task(super-resolve, 3x32x48 from 3x8x12, Lanczos downsampling by 4, noise sigma 0, scored \
over whole)
    """
    if downsampling not in ("lanczos", "pillow"):
        raise InvalidInputError(
            f"downsampling is 'lanczos' (the operator) or 'pillow', got '{downsampling}'"
        )
    if measurement is None:
        clean = require_clean(clean)
        sigma = require_noise(noise_sigma, clean)
        operator = _operator(clean, tuple(clean.shape), factor)
        measurement = _downsample(clean, factor, operator, downsampling)
        measurement = measurement + sigma * draw_noise(measurement, seed)
    else:
        require_unused(downsampling=downsampling != "lanczos", seed=seed != 0)
        require_image(measurement, "measurement")
        sigma = require_noise(noise_sigma, measurement)
        shape = (measurement.shape[0], *(side * factor for side in measurement.shape[1:]))
        operator = _operator(measurement, shape, factor)
        require_truth(clean, shape, f"{factor} times the measurement is")
    task = Task("super-resolve", measurement, operator, sigma, clean)
    return _with_interior(task, factor if border is None else border)


def _operator(like: Tensor, shape: Shape, factor: int) -> Operator:
    return LanczosDownsampling(shape, factor).to(device=like.device, dtype=like.dtype)


def _downsample(clean: Tensor, factor: int, operator: Operator, downsampling: str) -> Tensor:
    if downsampling == "lanczos":
        return operator.forward(clean)
    if clean.dim() != 3:
        raise InvalidInputError(
            f"downsampling='pillow' is for images of two dimensions, got shape {tuple(clean.shape)}"
        )
    return pillow_downsample(clean, factor)


def _with_interior(task: Task, border: int) -> Task:
    if not 0 < 2 * border < min(task.shape[1:]):
        raise InvalidInputError(
            f"a border of {border} pixels must be a positive integer and leave something of an "
            f"image of size {'x'.join(map(str, task.shape[1:]))}"
        )
    interior = torch.zeros_like(task.regions["whole"])
    inner = slice(border, -border)
    interior[(slice(None), *[inner] * (len(task.shape) - 1))] = True
    return dataclasses.replace(task, regions={**task.regions, "interior": interior})
