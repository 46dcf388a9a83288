"""Measurements to fit a prior to: what was measured, how, and what to score where.

A `Task` holds the measurement, the (linear) forward operator, the level of the noise and, where
it is known, the clean image. It is what `dipkernels.fit` fits and what the theory predicts.
"""

import dataclasses
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.errors import ImageError, InvalidInputError, UnknownNameError
from dipkernels.images.metrics import mse_to_psnr
from dipkernels.seeds import generator

NOISE_SIGMA = 25 / 255  # the literature's level, since Ulyanov et al. 2017


@dataclass(frozen=True, eq=False)
class Task:
    """One measurement ``measurement = mask * (clean + noise)`` and how to score a fit of it.

    Made by `denoise` and `inpaint`.

    Attributes
    ----------
    name : str
        ``"denoise"`` or ``"inpaint"``.
    clean : Tensor, shape (channels, height, width)
        The image that is sought, in [0, 1].
    measurement : Tensor, shape (channels, height, width)
        What is fitted; 0 where nothing was measured.
    mask : Tensor of bool, shape (height, width)
        True where a pixel was measured (everywhere, when denoising).
    noise_sigma : float
        Standard deviation of the noise, in units of the image's range.
    """

    name: str
    clean: Float[Tensor, "channels height width"]
    measurement: Float[Tensor, "channels height width"]
    mask: Bool[Tensor, "height width"]
    noise_sigma: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the image, ``(channels, height, width)``."""
        return tuple(self.clean.shape)

    @property
    def score_region(self) -> str:
        """Where a fit is judged: ``"hole"`` if some pixels are missing, else ``"whole"``."""
        return "whole" if bool(self.mask.all()) else "hole"

    @property
    def regions(self) -> dict[str, Bool[Tensor, "height width"]]:
        """Masks of the regions that are scored: whole and, with missing pixels, hole and known."""
        whole = torch.ones_like(self.mask)
        if self.score_region == "whole":
            return {"whole": whole}
        return {"whole": whole, "hole": ~self.mask, "known": self.mask}

    def forward(
        self, image: Float[Tensor, "channels height width"]
    ) -> Float[Tensor, "channels height width"]:
        """Apply the forward operator: what would have been measured of ``image``, without noise.

        Parameters
        ----------
        image : Tensor, shape (channels, height, width)
            Any image of the task's shape.

        Returns
        -------
        Tensor, shape (channels, height, width)
            ``image`` where it was measured, 0 elsewhere.
        """
        return image * self.mask

    def misfit(self, image: Float[Tensor, "channels height width"]) -> Float[Tensor, ""]:
        """Mean over **all** pixels of the squared error on the measured ones (Ulyanov et al.).

        Parameters
        ----------
        image : Tensor, shape (channels, height, width)
            Any image of the task's shape.

        Returns
        -------
        Tensor, scalar
            The loss that a fit descends.
        """
        return (self.forward(image) - self.measurement).square().mean()

    def psnr(
        self, image: Float[Tensor, "channels height width"], region: str | None = None
    ) -> Float[Tensor, ""]:
        """PSNR of an image to the clean one over a region.

        Parameters
        ----------
        image : Tensor, shape (channels, height, width)
            Any image of the task's shape.
        region : str, optional
            One of `regions`; by default `score_region`.

        Returns
        -------
        Tensor, scalar
            In dB.

        Raises
        ------
        UnknownNameError
            If there is no such region.
        """
        name = self.score_region if region is None else region
        if name not in self.regions:
            raise UnknownNameError(
                f"no region '{name}' in this task; it has: {', '.join(self.regions)}"
            )
        where = self.regions[name]
        return mse_to_psnr((image - self.clean)[:, where].square().mean())

    def to(self, *, device: str | torch.device, dtype: torch.dtype) -> "Task":
        """Move the task.

        Parameters
        ----------
        device : str or torch.device
            Where to.
        dtype : torch.dtype
            Floating-point type of the images.

        Returns
        -------
        Task
            A new one; masks stay boolean.
        """
        return dataclasses.replace(
            self,
            clean=self.clean.to(device, dtype),
            measurement=self.measurement.to(device, dtype),
            mask=self.mask.to(device),
        )


def denoise(
    clean: Float[Tensor, "channels height width"],
    *,
    noise_sigma: float = NOISE_SIGMA,
    clip: bool = False,
    seed: int = 0,
) -> Task:
    """Make a denoising task: white Gaussian noise added to every pixel and channel.

    Parameters
    ----------
    clean : Tensor, floating point, shape (channels, height, width)
        In [0, 1].
    noise_sigma : float
        Standard deviation; the literature's is 25/255.
    clip : bool
        Clip the noisy image to [0, 1], as the literature does. The default leaves it as it is,
        because the theory is about additive noise of known variance.
    seed : int
        Of the noise.

    Returns
    -------
    Task
        With ``measurement = clean + noise``.

    Raises
    ------
    InvalidInputError
        If ``noise_sigma`` is negative or not finite.

    Examples
    --------
    >>> task = denoise(torch.full((3, 32, 48), 0.5), noise_sigma=0.1)
    >>> round(task.psnr(task.measurement).item())
    20
    """
    if not 0 <= noise_sigma < float("inf"):
        raise InvalidInputError(f"noise_sigma must be finite and not negative, got {noise_sigma}")
    _require_image(clean)
    mask = torch.ones(clean.shape[-2:], dtype=torch.bool, device=clean.device)
    noisy = clean + noise_sigma * _noise(clean, seed)
    noisy = noisy.clamp(0, 1) if clip else noisy
    return Task("denoise", clean, noisy, mask, float(noise_sigma))


def inpaint(
    clean: Float[Tensor, "channels height width"],
    mask: Bool[Tensor, "mask_height mask_width"],
    *,
    noise_sigma: float = 0.0,
    seed: int = 0,
) -> Task:
    """Make an inpainting task: only the pixels of a mask were measured.

    Parameters
    ----------
    clean : Tensor, floating point, shape (channels, height, width)
        In [0, 1].
    mask : Tensor of bool, shape (height, width)
        True where the pixel is known.
    noise_sigma : float
        Standard deviation of noise on the known pixels.
    seed : int
        Of the noise.

    Returns
    -------
    Task
        Scored over the hole, the known pixels and the whole image.

    Raises
    ------
    ImageError
        If the mask isn't boolean, has another size than the image, or hides all of it or nothing.
    InvalidInputError
        If ``noise_sigma`` is negative or not finite.
    """
    if not 0 <= noise_sigma < float("inf"):
        raise InvalidInputError(f"noise_sigma must be finite and not negative, got {noise_sigma}")
    _require_image(clean)
    if mask.dtype != torch.bool:
        raise ImageError(f"the mask must be boolean, got {mask.dtype}: pass mask > 0.5 or the like")
    if mask.shape != clean.shape[-2:]:
        raise ImageError(
            f"the mask has shape {tuple(mask.shape)}, the image {tuple(clean.shape)}: they must "
            "have one height and width"
        )
    if not mask.any():
        raise ImageError("the mask is all black: no pixel is known (white means known)")
    if mask.all():
        raise ImageError("the mask is all white: nothing is missing (black means missing)")
    mask = mask.to(clean.device)
    measurement = (clean + noise_sigma * _noise(clean, seed)) * mask
    return Task("inpaint", clean, measurement, mask, float(noise_sigma))


def bernoulli_mask(
    size: tuple[int, int], *, known: float = 0.5, seed: int = 0
) -> Bool[Tensor, "height width"]:
    """Draw a mask that keeps each pixel with a given probability, independently.

    Parameters
    ----------
    size : (height, width)
        Of the image.
    known : float
        Probability of keeping a pixel, strictly between 0 and 1.
    seed : int
        Of the draw.

    Returns
    -------
    Tensor of bool, shape (height, width)
        True where the pixel is known.

    Raises
    ------
    InvalidInputError
        If ``known`` isn't strictly between 0 and 1.
    """
    if not 0 < known < 1:
        raise InvalidInputError(f"the fraction of known pixels must be in (0, 1), got {known}")
    return torch.rand(size, generator=generator("mask", seed)) < known


def _require_image(clean: Tensor) -> None:
    if clean.dim() != 3 or not clean.is_floating_point():
        raise ImageError(
            "the clean image must be a floating-point tensor (channels, height, width), got "
            f"{clean.dtype} of shape {tuple(clean.shape)}: see dipkernels.images.load"
        )
    if not clean.isfinite().all():
        raise ImageError("the clean image holds NaN or infinite values; fill or remove them")


# The same numbers in every dtype and on every device.
def _noise(clean: Tensor, seed: int) -> Tensor:
    return torch.randn(clean.shape, generator=generator("noise", seed)).to(clean)
