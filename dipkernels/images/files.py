"""Reading images, masks and signals, and writing images."""

from pathlib import Path

import numpy as np
import tifffile
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError, InvalidInputError, OutputError
from dipkernels.images.named import read_named
from dipkernels.images.reading import arrange, read_pixels, to_floats, to_unit_range
from dipkernels.images.sizes import Size, resize


@checked
def load(
    source: str | Path, *, size: int | Size | None = None, channel_axis: int | None = None
) -> Float[Tensor, "channels height width"]:
    """Load an image by name or from a file.

    Parameters
    ----------
    source : str or Path
        A file (PNG, JPEG, TIFF, anything that Pillow reads, or ``.npy``), or one of
        `dipkernels.images.names`. 8- and 16-bit integers are scaled by their type's maximum;
        floating-point files must already lie in [0, 1]. A file wins over a named image.
    size : int, (height, width) or None
        What to bring it to: scaled until it covers that size, then cropped about its centre, so
        that nothing is stretched. An int means a square. None keeps the file's own size.
    channel_axis : int, optional
        Where the channels are, -1 or 0, in a ``.npy`` array of three dimensions or in a TIFF stack
        of pages, which don't say it. By default they are last, unless there are more than four of
        them and fewer of what would be the rows, which is an error.

    Returns
    -------
    Tensor, float32, shape (channels, height, width)
        Values in [0, 1]; one channel for a grey image, any number for a multi-channel TIFF or
        array. An alpha channel is dropped: of two or four channels the last, in files that Pillow
        reads; in integer TIFFs a last channel that the file calls alpha. In arrays and in
        floating-point TIFFs all channels are data.

    Raises
    ------
    ImageError
        If there is no such image, if it can't be read, if it holds NaN, infinity, values outside
        [0, 1] or integers of another type, or if its channels can't be told from its rows.

    Examples
    --------
    >>> load("astronaut", size=(48, 64)).shape
    torch.Size([3, 48, 64])
    """
    pixels = _find(source, channel_axis)
    pixels = to_unit_range(pixels, str(source)).transpose(2, 0, 1)
    image = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))
    return image if size is None else resize(image, size)


@checked
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


@checked
def load_signal(path: str | Path) -> Float[Tensor, "channels length"]:
    """Load a 1D signal.

    Parameters
    ----------
    path : str or Path
        A ``.npy`` file of shape (length,) or (channels, length). Floating-point values stay as
        they are, in any range; 8- and 16-bit integers are divided by their type's maximum.

    Returns
    -------
    Tensor, float32, shape (channels, length)
        PSNR and SSIM take its peak to be 1, whatever its range.

    Raises
    ------
    ImageError
        If there is no such file, it can't be read, has another shape, or holds NaN, infinity or
        numbers of another type.
    """
    path = Path(path)
    if path.suffix.lower() != ".npy" or not path.is_file():
        raise ImageError(f"{path} is no .npy file: save the signal by numpy.save")
    try:
        values = np.asarray(np.load(path, allow_pickle=False))
    except Exception as error:  # whatever numpy raises
        raise ImageError(f"{path} can't be read as a signal ({_first_line(error)})") from error
    if values.ndim not in (1, 2) or values.size == 0:
        raise ImageError(
            f"{path} has shape {values.shape}; a signal has (length,) or (channels, length)"
        )
    values = np.atleast_2d(to_floats(values, str(path)))
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


@checked
def save(
    image: Float[Tensor, "channels height width"], path: str | Path, *, bits: int | None = None
) -> None:
    """Write an image in the format of the suffix; values outside [0, 1] are cut.

    Parameters
    ----------
    image : Tensor, shape (channels, height, width)
        One or three channels; for TIFF and ``.npy`` any number.
    path : str or Path
        Where to; an existing file is replaced.
    bits : int, optional
        8 or 16 (integers), or 32 (floating point). By default 32 for ``.npy`` and 8 for all else.
        TIFF and ``.npy`` take all three, PNG also takes 16 for a grey image.

    Raises
    ------
    InvalidInputError
        If the format can't hold so many channels or bits.
    OutputError
        If it can't be written.

    Notes
    -----
    ``.npy`` arrays are (height, width) or (height, width, channels), as `load` reads them.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    any_channels = suffix in (".tif", ".tiff", ".npy")
    bits = bits or (32 if suffix == ".npy" else 8)
    if image.shape[0] not in (1, 3) and not any_channels:
        raise InvalidInputError(
            f"an image to save as {suffix or 'this'} must have 1 or 3 channels, got shape "
            f"{tuple(image.shape)}: .tif and .npy take any number"
        )
    grey = image.shape[0] == 1
    takes = (8, 16, 32) if any_channels else (8, 16) if suffix == ".png" and grey else (8,)
    if bits not in takes:
        raise InvalidInputError(
            f"{path.name} with {image.shape[0]} channels takes {list(takes)} bits, "
            f"got {bits}: .tif and .npy take all of 8, 16, 32"
        )
    pixels = _quantised(image, bits)
    pixels = pixels[..., 0] if grey else pixels
    try:
        _write(pixels, path, suffix)
    except (OSError, ValueError, KeyError) as error:
        raise OutputError(f"can't write image {path}: {error}") from error


def _quantised(image: Tensor, bits: int) -> np.ndarray:
    unit = image.detach().cpu().double().clamp(0, 1).permute(1, 2, 0).numpy()
    if bits == 32:
        return np.ascontiguousarray(unit, dtype=np.float32)
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.ascontiguousarray(np.round(unit * np.iinfo(dtype).max), dtype=dtype)


def _write(pixels: np.ndarray, path: Path, suffix: str) -> None:
    if suffix == ".npy":
        np.save(path, pixels, allow_pickle=False)
    elif suffix in (".tif", ".tiff"):
        colour = pixels.ndim == 3 and pixels.shape[2] == 3
        extra = pixels.shape[2] - 1 if pixels.ndim == 3 and not colour else 0
        tifffile.imwrite(
            path,
            pixels,
            photometric="rgb" if colour else "minisblack",
            planarconfig="contig" if pixels.ndim == 3 else None,
            extrasamples=["unspecified"] * extra or None,
            metadata=None,
        )
    else:
        Image.fromarray(pixels).save(path)


def _find(source: str | Path, channel_axis: int | None) -> np.ndarray:
    found = Path(source) if Path(source).is_file() else read_named(str(source))
    if not isinstance(found, Path):
        return arrange(found, str(source), channel_axis, -1)
    try:
        return read_pixels(found, channel_axis)
    except ImageError:
        raise
    except Exception as error:  # the readers raise whatever their libraries do
        raise ImageError(f"{found} can't be read as an image ({_first_line(error)})") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
