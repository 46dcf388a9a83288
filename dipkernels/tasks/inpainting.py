"""Inpainting: only some pixels were measured."""

from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError
from dipkernels.images.metrics import require_mask
from dipkernels.tasks.inputs import (
    draw_noise,
    require_clean,
    require_noise,
    require_pair,
    require_unused,
)
from dipkernels.tasks.operators import Masking
from dipkernels.tasks.task import Task


@checked
def inpaint(
    clean: Float[Tensor, "channels *spatial"] | None,
    mask: Bool[Tensor, "..."],
    *,
    measurement: Float[Tensor, "channels *spatial"] | None = None,
    noise_sigma: float = 0.0,
    seed: int = 0,
) -> Task:
    """Make an inpainting task: only the pixels of a mask were measured.

    Parameters
    ----------
    clean : Tensor, floating point, shape ``(channels, *spatial)``, or None
        In [0, 1]. It must not contain what the mask is to remove, or the scores of the hole and
        of the whole reward bringing that back.
    mask : Tensor of bool, shape ``spatial``, ``(1, *spatial)`` or ``(channels, *spatial)``
        True where the pixel is known, in all channels or in each.
    measurement : Tensor, shape ``(channels, *spatial)``, optional
        The damaged image: nothing is simulated, and ``clean``, which may be None, is only scored
        against. What it holds where the mask is False is ignored.
    noise_sigma : float
        Standard deviation of noise on the known pixels: added to ``clean``, or the level that
        ``measurement`` is known to have.
    seed : int
        Of the noise.

    Returns
    -------
    Task
        Scored over the hole, the known pixels and the whole image.

    Raises
    ------
    ImageError
        If the mask isn't boolean, has another size than the image, or hides all of it or nothing;
        or if an image is not a finite floating-point one.
    InvalidInputError
        If ``noise_sigma`` is negative or not finite, neither image is given, or an option would
        have no effect.
    """
    if measurement is None:
        clean = require_clean(clean)
        sigma = require_noise(noise_sigma, clean)
        mask = _fitting(mask, clean)
        measurement = (clean + sigma * draw_noise(clean, seed)) * mask
    else:
        require_unused(seed=seed != 0)
        mask = _fitting(mask, measurement)
        measurement = measurement.where(mask, measurement.new_zeros(()))  # NaN in a hole is fine
        require_pair(clean, measurement)
        sigma = require_noise(noise_sigma, measurement)
    return Task("inpaint", measurement, Masking(measurement.shape, mask), sigma, clean)


def _fitting(mask: Tensor, image: Tensor) -> Tensor:
    require_mask(mask, image)
    if not mask.any():
        raise ImageError("the mask is all black: no pixel is known (white means known)")
    if mask.all():
        raise ImageError("the mask is all white: nothing is missing (black means missing)")
    pixels = mask.dim() == image.dim() and mask.shape[0] == 1 < image.shape[0]
    return (mask[0] if pixels else mask).to(image.device)
