"""Scores that compare two images: MSE, PSNR and SSIM.

They work on any float tensors of one shape; the peak value is 1, the range of our images.
"""

import math

import torch
from jaxtyping import Float
from skimage.metrics import structural_similarity
from torch import Tensor

from dipkernels.errors import InvalidInputError


def mse(
    image: Float[Tensor, "*batch channels height width"],
    reference: Float[Tensor, "channels height width"],
) -> Float[Tensor, "*batch"]:
    """Mean squared error over channels and pixels.

    Parameters
    ----------
    image : Tensor, shape (..., channels, height, width)
        One image or a batch of them.
    reference : Tensor, shape (channels, height, width)
        What each is compared with.

    Returns
    -------
    Tensor, shape (...)
        In squared units of the images.

    Raises
    ------
    InvalidInputError
        If the images differ in shape.
    """
    if image.shape[-3:] != reference.shape:
        raise InvalidInputError(
            f"images of shape {tuple(image.shape)} can't be compared with one of shape "
            f"{tuple(reference.shape)}"
        )
    return (image - reference).square().mean(dim=(-3, -2, -1))


def psnr(
    image: Float[Tensor, "*batch channels height width"],
    reference: Float[Tensor, "channels height width"],
) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio for images in [0, 1]: ``-10 log10(MSE)``.

    Parameters
    ----------
    image : Tensor, shape (..., channels, height, width)
        One image or a batch of them.
    reference : Tensor, shape (channels, height, width)
        What each is compared with.

    Returns
    -------
    Tensor, shape (...)
        In dB; infinite where the images are equal.

    Examples
    --------
    >>> import torch
    >>> psnr(torch.full((1, 2, 3), 0.6), torch.full((1, 2, 3), 0.5)).round().item()
    20.0
    """
    return mse_to_psnr(mse(image, reference))


def mse_to_psnr(value: Tensor) -> Tensor:
    """PSNR in dB of a mean squared error, for images whose peak value is 1.

    Parameters
    ----------
    value : Tensor
        Mean squared errors, of any shape.

    Returns
    -------
    Tensor
        ``-10 log10(value)``, of the same shape.
    """
    return -10.0 / math.log(10.0) * torch.log(value)


def ssim(
    image: Float[Tensor, "channels height width"],
    reference: Float[Tensor, "channels height width"],
) -> float:
    """Structural similarity (Wang et al. 2004), by scikit-image with its 7x7 window.

    Parameters
    ----------
    image, reference : Tensor, shape (channels, height, width)
        Two images in [0, 1].

    Returns
    -------
    float
        At most 1, which equal images reach.

    Raises
    ------
    InvalidInputError
        If the images differ in shape or are smaller than the window.
    """
    if image.shape != reference.shape:
        raise InvalidInputError(
            f"an image of shape {tuple(image.shape)} can't be compared with one of shape "
            f"{tuple(reference.shape)}"
        )
    if min(reference.shape[-2:]) < 7:
        raise InvalidInputError(
            f"SSIM needs images of at least 7x7 pixels, got {tuple(reference.shape[-2:])}"
        )
    a, b = (x.detach().cpu().double().numpy() for x in (image, reference))
    return float(structural_similarity(a, b, data_range=1.0, channel_axis=0))
