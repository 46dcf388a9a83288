"""Reading and writing images and masks; fitting them to a size without stretching."""

import math
from pathlib import Path

import imageio.v3
import numpy as np
import skimage.io
import torch
from jaxtyping import Bool, Float
from skimage.transform import resize as resize_array
from torch import Tensor

from dipkernels.errors import ImageError, InvalidInputError, OutputError
from dipkernels.images.named import read_named

Size = tuple[int, int]


def load(
    source: str | Path, *, size: int | Size | None = None
) -> Float[Tensor, "channels height width"]:
    """Load an image by name or from a file.

    Parameters
    ----------
    source : str or Path
        A file (PNG, JPEG, TIFF, anything that Pillow reads, or ``.npy``), or one of
        `dipkernels.images.names`. 8- and 16-bit integers are scaled by their type's maximum;
        floating-point files must already lie in [0, 1]. An alpha channel is dropped. A file wins
        over a named image.
    size : int, (height, width) or None
        What to bring it to: scaled until it covers that size, then cropped about its centre, so
        that nothing is stretched. An int means a square. None keeps the file's own size.

    Returns
    -------
    Tensor, float32, shape (channels, height, width)
        One channel for a grey image. Values in [0, 1].

    Raises
    ------
    ImageError
        If there is no such image, if it can't be read, or if it holds NaN, infinity, values
        outside [0, 1] or integers of another type.

    Examples
    --------
    >>> load("astronaut", size=(48, 64)).shape
    torch.Size([3, 48, 64])
    """
    found = Path(source) if Path(source).is_file() else read_named(str(source))
    try:
        pixels = _read_file(found) if isinstance(found, Path) else found
    except Exception as error:  # the readers raise whatever their libraries do
        reason = str(error).strip().split("\n")[0]
        raise ImageError(f"{found} can't be read as an image ({reason})") from error
    image = torch.from_numpy(_to_unit_range(pixels, str(source)))
    return image if size is None else resize(image, size)


def load_mask(
    source: str | Path, *, size: int | Size | None = None
) -> Bool[Tensor, "height width"]:
    """Load a mask: white (above one half) is known, black is missing.

    Errors are those of `load`.

    Parameters
    ----------
    source : str or Path
        As in `load`; of several channels the mean counts.
    size : int, (height, width) or None
        As in `load`; the mask is resized like an image, then cut at one half.

    Returns
    -------
    Tensor, bool, shape (height, width)
        True where the pixel is known.
    """
    return load(source, size=size).mean(dim=0) > 0.5


def save(image: Float[Tensor, "channels height width"], path: str | Path) -> None:
    """Write an image as 8-bit PNG (or whatever the suffix says); values outside [0, 1] are cut.

    Parameters
    ----------
    image : Tensor, shape (channels, height, width)
        One or three channels.
    path : str or Path
        Where to; an existing file is replaced.

    Raises
    ------
    InvalidInputError
        If it has neither one nor three channels.
    OutputError
        If it can't be written.
    """
    if image.shape[0] not in (1, 3):
        raise InvalidInputError(
            f"an image to save must have 1 or 3 channels, got shape {tuple(image.shape)}"
        )
    array = image.detach().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
    array = array[..., 0] if array.shape[-1] == 1 else array
    try:
        skimage.io.imsave(str(path), array, check_contrast=False)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"can't write image {path}: {error}") from error


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
        If the size isn't positive.

    Examples
    --------
    >>> resize(torch.rand(3, 100, 50), (20, 20)).shape
    torch.Size([3, 20, 20])
    """
    new_height, new_width = (size, size) if isinstance(size, int) else size
    if new_height < 1 or new_width < 1:
        raise InvalidInputError(f"size must be at least 1x1 pixel, got {new_height}x{new_width}")
    height, width = image.shape[-2:]
    if (height, width) == (new_height, new_width):
        return image
    scale = max(new_height / height, new_width / width)
    covered = (
        max(new_height, math.floor(height * scale + 0.5)),
        max(new_width, math.floor(width * scale + 0.5)),
    )
    array = image.detach().cpu().permute(1, 2, 0).double().numpy()
    array = resize_array(array, covered, order=1, mode="reflect", anti_aliasing=scale < 1)
    top, left = (covered[0] - new_height) // 2, (covered[1] - new_width) // 2
    crop = array[top : top + new_height, left : left + new_width]
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).to(image)


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
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise InvalidInputError(
            f"--size must be a positive number of pixels, HEIGHTxWIDTH or 'native', got '{text}'"
        )
    return numbers[0] if len(numbers) == 1 else (numbers[0], numbers[1])


def _read_file(path: Path) -> np.ndarray:
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return np.asarray(np.load(path, allow_pickle=False))
    if suffix in (".tif", ".tiff"):
        return np.asarray(skimage.io.imread(str(path)))
    # Named, because imageio would try all of its plugins on a broken file, and leave it open.
    pixels = np.asarray(imageio.v3.imread(path, plugin="pillow"))
    if suffix in (".jpg", ".jpeg") and pixels.shape[2:] == (4,):  # JPEG knows no alpha
        raise ValueError("its colours are CMYK; convert it to RGB")
    return pixels


# Raw pixels as float32 (channels, height, width) in [0, 1].
def _to_unit_range(pixels: np.ndarray, source: str) -> np.ndarray:
    shape = pixels.shape
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.size == 0 or pixels.shape[-1] > 4:
        raise ImageError(
            f"{source} has shape {shape}; an image has (height, width) or (height, width, "
            "channels) with at most 4 channels"
        )
    if pixels.shape[-1] in (2, 4):  # grey or colour, with alpha
        pixels = pixels[..., :-1]
    if pixels.dtype == bool:
        pixels = pixels.astype(np.float64)
    elif np.issubdtype(pixels.dtype, np.integer) and pixels.itemsize <= 2:
        pixels = pixels / np.iinfo(pixels.dtype).max
    elif not np.issubdtype(pixels.dtype, np.floating):
        raise ImageError(
            f"{source} holds {pixels.dtype} values, whose white is unknown; convert them to 8- or "
            "16-bit integers, or to floating point in [0, 1]"
        )
    if not np.isfinite(pixels).all():
        bad = int(np.count_nonzero(~np.isfinite(pixels)))
        raise ImageError(f"{source} holds {bad} NaN or infinite values; fill or remove them")
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ImageError(f"{source} has values from {low:g} to {high:g}; scale them to [0, 1]")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
