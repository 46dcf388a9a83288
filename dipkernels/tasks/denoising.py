"""Denoising: every pixel was measured, with noise; perhaps with a sharp photograph as a guide."""

from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.inputs import (
    draw_noise,
    require_clean,
    require_image,
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
        Clip the noisy image to [0, 1], as the literature does, which lowers the noise.
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


@checked
def flash_no_flash(
    flash: Float[Tensor, "flash_channels *spatial"],
    no_flash: Float[Tensor, "channels *flash_spatial"],
    *,
    noise_sigma: float = 0.0,
) -> Task:
    """Make a task of two photographs: fit the one without flash, from the one with it as the code.

    Parameters
    ----------
    flash : Tensor, floating point, shape ``(flash_channels, *spatial)``
        Little noise, wrong light; becomes ``task.guide``, the code that the network is to take
        (Ulyanov et al. 2018).
    no_flash : Tensor, floating point, shape ``(channels, *spatial)``
        The right light, much noise; it is what is fitted.
    noise_sigma : float
        Of the photograph without flash, if known; 0 where it isn't.

    Returns
    -------
    Task
        Without a clean image, since nobody has one.

    Raises
    ------
    ImageError
        If one is not a finite floating-point image, or they differ in size.
    InvalidInputError
        If ``noise_sigma`` is negative or not finite.
    """
    require_image(flash, "flash image")
    require_image(no_flash, "no-flash image")
    if flash.shape[1:] != no_flash.shape[1:]:
        raise ImageError(
            f"the flash image has shape {tuple(flash.shape)}, the one without "
            f"{tuple(no_flash.shape)}: both need one height and width, pixel on pixel"
        )
    operator = Identity(tuple(no_flash.shape), no_flash.device)
    sigma = require_noise(noise_sigma, no_flash)
    return Task("flash", no_flash, operator, sigma, guide=flash.to(no_flash))
