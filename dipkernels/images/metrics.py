"""Scores that compare images with a reference: MSE, PSNR and SSIM, also over a region.

They work in 1D and 2D, ``spatial`` being ``(length,)`` or ``(height, width)``. The peak value is
1, the range of our images.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike
from skimage.metrics import structural_similarity
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError, InvalidInputError

WINDOW = 7  # of SSIM, scikit-image's default


@checked
def mse(
    image: Float[Tensor, "..."],
    reference: Float[Tensor, "channels *spatial"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """Mean squared error over channels and pixels.

    Parameters
    ----------
    image : Tensor, shape ``(*batch, channels, *spatial)``
        One image or a batch of them.
    reference : Tensor, shape ``(channels, *spatial)``
        What each is compared with.
    mask : Tensor of bool, shape ``spatial`` or ``(channels, *spatial)``, optional
        The region to average over; by default all. A mask of one channel is of all.

    Returns
    -------
    Tensor, shape ``(*batch)``
        In squared units of the images.

    Raises
    ------
    InvalidInputError
        If the images differ in shape, or one is no floating-point tensor.
    ImageError
        If the mask fits neither shape, isn't boolean or is empty.
    """
    _require_same_shape(image, reference)
    if mask is None:
        return (image - reference).square().mean(dim=_axes(reference))
    return region_mse(image, reference, _over(mask, reference))


def region_mse(
    image: Float[Tensor, "..."],
    reference: Float[Tensor, "channels *spatial"],
    mask: Bool[Tensor, "channels *spatial"],
) -> Float[Tensor, "..."]:
    """`mse` over a region that is known to be good: nothing waits for the device."""
    _require_same_shape(image, reference)
    axes = _axes(reference)
    squared = (image - reference).square()
    return squared.where(mask, squared.new_zeros(())).sum(dim=axes) / mask.sum()


@checked
def psnr(
    image: Float[Tensor, "..."],
    reference: Float[Tensor, "channels *spatial"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """Peak signal-to-noise ratio for images in [0, 1]: ``-10 log10(MSE)``.

    Parameters
    ----------
    image, reference, mask : Tensor
        As of `mse`.

    Returns
    -------
    Tensor, shape ``(*batch)``
        In dB; infinite where the images are equal.

    Examples
    --------
    >>> import torch
    >>> psnr(torch.full((1, 2, 3), 0.6), torch.full((1, 2, 3), 0.5)).round().item()
    20.0
    """
    return mse_to_psnr(mse(image, reference, mask))


@checked
def luma(image: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Luma of a colour image, the Y of YCbCr in video range, which super-resolution is scored on.

    Parameters
    ----------
    image : Tensor, shape ``(*batch, 3, height, width)``
        Red, green and blue in [0, 1].

    Returns
    -------
    Tensor, shape ``(*batch, 1, height, width)``
        ``(16 + 219 (0.299 r + 0.587 g + 0.114 b)) / 255``, in [16/255, 235/255] (ITU-R BT.601).

    Raises
    ------
    InvalidInputError
        If the image isn't floating point, or doesn't have three channels.
    """
    if not image.is_floating_point():
        raise InvalidInputError(f"luma is of a floating-point tensor in [0, 1], got {image.dtype}")
    if image.dim() < 3 or image.shape[-3] != 3:
        raise InvalidInputError(
            f"luma is of red, green and blue: expected (..., 3, height, width), got shape "
            f"{tuple(image.shape)}"
        )
    red, green, blue = image.split(1, dim=-3)
    grey: Tensor = 0.299 * red + 0.587 * green + 0.114 * blue
    return (16 + 219 * grey) / 255


def grey(images: Float[Tensor, "runs channels *spatial"]) -> Float[Tensor, "runs *spatial"]:
    """Turn images to grey."""
    if images.shape[1] != 3:
        return images.mean(dim=1)
    red, green, blue = images.unbind(dim=1)
    weighted: Tensor = 0.2989 * red + 0.587 * green + 0.114 * blue
    return weighted


def mse_to_psnr(value: Tensor) -> Tensor:
    """PSNR in dB of a mean squared error, for images whose peak value is 1."""
    return -10.0 / math.log(10.0) * torch.log(value)


def decibels(mse: ArrayLike | float) -> np.ndarray:
    """PSNR in dB of mean squared errors in NumPy, where 1 is white: infinite for an error of 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-10 * np.log10(mse))


@checked
def ssim(
    image: Float[Tensor, "..."],
    reference: Float[Tensor, "channels *spatial"],
    mask: Bool[Tensor, "..."] | None = None,
) -> Float[Tensor, "..."]:
    """Structural similarity (Wang et al. 2004), by scikit-image with its 7-pixel window.

    Parameters
    ----------
    image, reference, mask : Tensor
        As of `mse`; images in [0, 1].

    Returns
    -------
    Tensor, shape ``(*batch)``
        At most 1, which equal images reach.

    Raises
    ------
    InvalidInputError
        If the images differ in shape or are smaller than the window.
    ImageError
        If the mask fits neither shape, isn't boolean, or holds no pixel that is at least three
        pixels away from the border.

    Notes
    -----
    SSIM compares windows, one around each pixel. As in scikit-image, only windows that lie inside
    the image count. Over a region, the mean is over the windows **centred** in it, although those
    near its edge also see pixels outside. Computed on the host, image by image.
    """
    _require_same_shape(image, reference)
    if min(reference.shape[1:]) < WINDOW:
        raise InvalidInputError(
            f"SSIM needs at least {WINDOW} pixels along each axis, got "
            f"{'x'.join(map(str, reference.shape[1:]))}"
        )
    inside = np.zeros(tuple(reference.shape), dtype=bool)
    inner = slice(WINDOW // 2, -(WINDOW // 2))
    inside[(slice(None), *[inner] * (reference.dim() - 1))] = True
    if mask is not None:
        inside &= _over(mask, reference).cpu().numpy()
        if not inside.any():
            raise ImageError(
                f"the mask has no pixel at least {WINDOW // 2} pixels away from the border, where "
                "a window of SSIM fits: use MSE or PSNR there"
            )
    b = reference.detach().cpu().double().numpy()
    flat = image.detach().cpu().double().reshape(-1, *reference.shape)
    values = []
    for a in flat.numpy():
        _, windows = structural_similarity(
            a, b, data_range=1.0, channel_axis=0, win_size=WINDOW, full=True
        )
        values.append(windows[inside].mean())
    batch = image.shape[: image.dim() - reference.dim()]
    return torch.tensor(values, dtype=torch.float64).reshape(batch).to(image)


def _axes(reference: Tensor) -> tuple[int, ...]:
    return tuple(range(-reference.dim(), 0))


def _require_same_shape(image: Tensor, reference: Tensor) -> None:
    for each in (image, reference):
        if not isinstance(each, Tensor) or not each.is_floating_point():
            found = each.dtype if isinstance(each, Tensor) else f"a {type(each).__name__}"
            raise InvalidInputError(
                f"scores compare floating-point tensors whose white is 1, got {found}: divide "
                "integers by their white"
            )
    batch = image.dim() - reference.dim()
    if batch < 0 or image.shape[batch:] != reference.shape:
        raise InvalidInputError(
            f"images of shape {tuple(image.shape)} can't be compared with one of shape "
            f"{tuple(reference.shape)}"
        )


def require_mask(mask: Tensor, image: Tensor) -> None:
    """Check that a mask is boolean and has the size of an image, with an axis of 1 or without."""
    if mask.dtype is not torch.bool:
        raise ImageError(f"the mask must be boolean, got {mask.dtype}: pass mask > 0.5 or the like")
    if mask.shape not in (image.shape, image.shape[1:], (1, *image.shape[1:])):
        raise ImageError(
            f"the mask has shape {tuple(mask.shape)}, the image {tuple(image.shape)}: they must "
            "have one height and width"
        )


def _over(mask: Tensor, reference: Tensor) -> Tensor:
    require_mask(mask, reference)
    if not mask.any():
        raise ImageError("the mask is empty: there is nothing to average over")
    return mask.to(reference.device).expand(reference.shape)
