"""Bringing images to a size, without stretching."""

import math

import torch
from jaxtyping import Float
from skimage.transform import resize as resize_array
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.memory import require_free
from dipkernels.base.values import shown
from dipkernels.errors import InvalidInputError

Size = tuple[int, ...]
MOST = 2**16 - 1  # pixels along an axis


@checked
def crop(image: Float[Tensor, "..."], size: int | Size) -> Float[Tensor, "..."]:
    """Cut the middle out of an image, without scaling it.

    Parameters
    ----------
    image : Tensor, shape ``(..., *spatial)``
        Any range.
    size : int or tuple of int
        Of the last axes, as many as it has numbers; an int means a square. At most the image's.

    Returns
    -------
    Tensor, shape ``(..., *size)``
        A view. Where an odd number goes from an axis, one more goes at the end.

    Raises
    ------
    InvalidInputError
        If the size isn't positive or exceeds the image's, or the image has no rows.

    Examples
    --------
    >>> import torch
    >>> crop(torch.rand(3, 261, 400), (256, 384)).shape
    torch.Size([3, 256, 384])
    """
    wanted = _sides(size, 2 if isinstance(size, int) else len(size))
    if image.dim() < len(wanted):
        raise InvalidInputError(
            f"an image of {_by(wanted)} pixels has {len(wanted)} axes of space, got shape "
            f"{tuple(image.shape)}"
        )
    sides = tuple(image.shape[-len(wanted) :])
    if any(n > m for n, m in zip(wanted, sides, strict=True)):
        raise InvalidInputError(
            f"can't crop an image of {_by(sides)} pixels to {_by(wanted)}: choose a smaller size, "
            "or resize"
        )
    for axis, (n, m) in enumerate(zip(wanted, sides, strict=True), start=-len(wanted)):
        image = image.narrow(axis, (m - n) // 2, n)
    return image


@checked
def resize(
    image: Float[Tensor, "channels *spatial"], size: int | Size
) -> Float[Tensor, "channels *new_spatial"]:
    """Scale an image, or a volume or signal, until it covers ``size``, then crop it to that.

    Parameters
    ----------
    image : Tensor, shape ``(channels, *spatial)``
        Any range.
    size : int or tuple of int
        One number an axis; an int means as many pixels along each. All axes are scaled alike.

    Returns
    -------
    Tensor, shape ``(channels, *size)``
        Scaled with anti-aliasing (scikit-image's Gaussian, linear interpolation), and cropped about
        the centre.

    Raises
    ------
    InvalidInputError
        If the size isn't positive, or has another number of axes than the image, or the image has
        no pixel.
    MemoryLimitError
        If the image of that size doesn't fit into the memory that is free.

    Examples
    --------
    >>> import torch
    >>> resize(torch.rand(3, 100, 50), (20, 20)).shape
    torch.Size([3, 20, 20])
    """
    channels, *spatial = image.shape
    sides, wanted = tuple(spatial), _sides(size, len(spatial))
    if sides == wanted:
        return image
    if image.numel() == 0:
        raise InvalidInputError(f"an image of shape {tuple(image.shape)} has no pixel to scale")
    scale = max(new / old for new, old in zip(wanted, sides, strict=True))
    covered = tuple(
        max(new, math.floor(old * scale + 0.5)) for new, old in zip(wanted, sides, strict=True)
    )
    # In float64: the image, what it is scaled to, and a copy of each for filter and channels.
    numbers = 2 * channels * (math.prod(sides) + math.prod(covered))
    require_free(8 * numbers, f"scaling to {_by(covered)} pixels", "choose a smaller size")
    array = image.detach().cpu().movedim(0, -1).double().numpy()
    array = resize_array(array, covered, order=1, mode="reflect", anti_aliasing=scale < 1)
    return crop(torch.from_numpy(array).movedim(-1, 0), wanted).to(image).contiguous()


@checked
def parse_size(text: str) -> int | Size | None:
    """Read a size as people write it: ``64``, ``48x64`` (height x width), ``native``.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    int, tuple of int or None
        As `load` takes it; three numbers are of a volume, its depth first.

    Raises
    ------
    InvalidInputError
        If it's none of these, or not positive.

    Examples
    --------
    >>> parse_size("48x64")
    (48, 64)
    """
    if text == "native":
        return None
    try:
        numbers = [int(part) for part in text.lower().split("x")]
    except ValueError:
        numbers = []
    if not 1 <= len(numbers) <= 3 or not 1 <= min(numbers) <= max(numbers) <= MOST:
        raise InvalidInputError(
            f"--size must be a positive number of pixels up to {MOST}, HEIGHTxWIDTH, "
            f"DEPTHxHEIGHTxWIDTH or 'native', got {shown(text)}"
        )
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def _sides(size: int | Size, dims: int) -> Size:
    sides = (size,) * dims if isinstance(size, int) else tuple(size)
    if len(sides) != dims:
        raise InvalidInputError(
            f"the size {_by(sides)} has {len(sides)} numbers, but the image {dims} dimensions"
        )
    if not sides or min(sides) < 1:
        raise InvalidInputError(f"size must be at least 1 pixel along each axis, got {_by(sides)}")
    return sides


def _by(sides: Size) -> str:
    return "x".join(map(str, sides))
