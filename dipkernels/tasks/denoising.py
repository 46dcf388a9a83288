"""Denoising: every pixel was measured, with noise."""

from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.inputs import (
    draw_noise,
    require_clean,
    require_noise,
    require_pair,
    require_unused,
)
from dipkernels.tasks.operators import Identity
from dipkernels.tasks.task import Task

NOISE_SIGMA = 25 / 255  # the literature's level, since Ulyanov et al. 2017


@checked
def denoise(
    clean: Float[Tensor, "channels *spatial"] | None = None,
    *,
    measurement: Float[Tensor, "channels *spatial"] | None = None,
    noise_sigma: float | None = None,
    clip: bool = False,
    shared_noise: bool = False,
    seed: int = 0,
) -> Task:
    """Make a denoising task: white Gaussian noise added to every pixel and channel.

    Parameters
    ----------
    clean : Tensor, floating point, shape ``(channels, *spatial)``, optional
        In [0, 1].
    measurement : Tensor, shape ``(channels, *spatial)``, optional
        An image that is noisy already: nothing is simulated, and ``clean`` is only scored against.
    noise_sigma : float, optional
        Standard deviation, in units of the image, whose white is 1; by default the literature's
        25/255. With ``measurement``, the level that it is known to have, which must be said.
    clip : bool
        Clip the noisy image to [0, 1], as the literature does. The default leaves it as it is,
        because the theory is about additive noise of known variance.
    shared_noise : bool
        Add one noise image to all channels (Heckel & Hand 2019) instead of one to each.
    seed : int
        Of the noise.

    Returns
    -------
    Task
        With ``measurement = clean + noise``.

    Raises
    ------
    InvalidInputError
        If ``noise_sigma`` is negative, not finite or in grey levels, neither image is given, or an
        option would have no effect.
    ImageError
        If an image is not a finite floating-point image, or the two differ in shape.

    Examples
    --------
    >>> import torch
    >>> task = denoise(torch.full((3, 32, 48), 0.5), noise_sigma=0.1)
    >>> round(task.psnr(task.measurement).item())
    20
    """
    if measurement is None:
        clean = require_clean(clean)
        if shared_noise and clean.shape[0] == 1:
            raise InvalidInputError("shared_noise has no effect on an image of one channel")
        sigma = require_noise(NOISE_SIGMA if noise_sigma is None else noise_sigma, clean)
        measurement = clean + sigma * draw_noise(clean, seed, shared=shared_noise)
        measurement = measurement.clamp(0, 1) if clip else measurement
    else:
        require_unused(clip=clip, shared_noise=shared_noise, seed=seed != 0)
        if noise_sigma is None:
            raise InvalidInputError(
                "noise_sigma, the level of the measurement's noise, must be said; 0 if unknown"
            )
        require_pair(clean, measurement)
        sigma = require_noise(noise_sigma, measurement)
    operator = Identity(measurement.shape, measurement.device)
    return Task("denoise", measurement, operator, sigma, clean)
