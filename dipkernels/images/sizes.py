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

Size = tuple[int, int]
MOST = 2**16 - 1  # rows or columns


@checked
def crop(image: Float[Tensor, "..."], size: int | Size) -> Float[Tensor, "..."]:
    """Cut the middle out of an image, without scaling it.

    Parameters
    ----------
    image : Tensor, shape (..., height, width)
        Any range.
    size : int or (height, width)
        An int means a square. At most the image's.

    Returns
    -------
    Tensor, shape ``(..., *size)``
        A view. Where an odd number of rows or columns goes, one more goes at the end.

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
    new_height, new_width = _checked(size)
    if image.dim() < 2:
        raise InvalidInputError(f"an image has rows and columns, got shape {tuple(image.shape)}")
    height, width = image.shape[-2:]
    if new_height > height or new_width > width:
        raise InvalidInputError(
            f"can't crop an image of {height}x{width} pixels to {new_height}x{new_width}: choose "
            "a smaller size, or resize"
        )
    top, left = (height - new_height) // 2, (width - new_width) // 2
    return image[..., top : top + new_height, left : left + new_width]


@checked
def resize(
    image: Float[Tensor, "channels height width"], size: int | Size
) -> Float[Tensor, "channels new_height new_width"]:
    """Scale an image until it covers ``size``, then crop it about its centre.

    Parameters
    ----------
    image : Tensor, shape (channels, height, width)
        Any range.
    size : int or (height, width)
        An int means a square.

    Returns
    -------
    Tensor, shape ``(channels, *size)``
        Scaled with anti-aliasing (scikit-image's Gaussian, linear interpolation).

    Raises
    ------
    InvalidInputError
        If the size isn't positive, or the image has no pixel.
    MemoryLimitError
        If the image of that size doesn't fit into the memory that is free.

    Examples
    --------
    >>> import torch
    >>> resize(torch.rand(3, 100, 50), (20, 20)).shape
    torch.Size([3, 20, 20])
    """
    new_height, new_width = _checked(size)
    height, width = image.shape[-2:]
    if (height, width) == (new_height, new_width):
        return image
    if image.numel() == 0:
        raise InvalidInputError(f"an image of shape {tuple(image.shape)} has no pixel to scale")
    scale = max(new_height / height, new_width / width)
    covered = (
        max(new_height, math.floor(height * scale + 0.5)),
        max(new_width, math.floor(width * scale + 0.5)),
    )
    channels, covers = image.shape[0], "x".join(map(str, covered))
    # In float64: the image, what it is scaled to, and a copy of each for filter and channels.
    numbers = 2 * channels * (height * width + covered[0] * covered[1])
    require_free(8 * numbers, f"scaling to {covers} pixels", "choose a smaller size")
    array = image.detach().cpu().permute(1, 2, 0).double().numpy()
    array = resize_array(array, covered, order=1, mode="reflect", anti_aliasing=scale < 1)
    return crop(torch.from_numpy(array.transpose(2, 0, 1)), size).to(image).contiguous()


@checked
def parse_size(text: str) -> int | Size | None:
    """Read a size as people write it: ``64``, ``48x64`` (height x width), or ``native``.

    Parameters
    ----------
    text : str
        What was typed.

    Returns
    -------
    int, (height, width) or None
        As `load` takes it.

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
    if len(numbers) not in (1, 2) or not 1 <= min(numbers) <= max(numbers) <= MOST:
        raise InvalidInputError(
            f"--size must be a positive number of pixels up to {MOST}, HEIGHTxWIDTH or 'native', "
            f"got {shown(text)}"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _checked(size: int | Size) -> Size:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise InvalidInputError(f"size must be at least 1x1 pixel, got {height}x{width}")
    return height, width
