"""Flash and no flash: a sharp photograph guides the denoising of one with the right light."""

from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError
from dipkernels.tasks.inputs import require_image, require_noise
from dipkernels.tasks.operators import Identity
from dipkernels.tasks.task import Task


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
