"""Reading images, masks and signals."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError, InvalidInputError, MemoryLimitError, UnitWarning
from dipkernels.images.named import is_file, read_named
from dipkernels.images.pillow_files import read_by_pillow
from dipkernels.images.pixels import (
    Pixels,
    Said,
    arrange,
    require_finite,
    require_room,
    to_fractions,
    to_unit_range,
)
from dipkernels.images.sizes import Size, resize
from dipkernels.images.tiff_files import read_tiff

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # how such files begin
NUMPY = b"\x93NUMPY"
HIDES = ("black", "white", "transparent", "opaque")  # what of a mask's file means missing


@checked
@dataclass(frozen=True, eq=False)
class ImageFile:
    """An image with what its file says of itself; see `read`.

    Attributes
    ----------
    image : Tensor, float32, shape ``(channels, *spatial)``
        ``spatial`` is (height, width), of a volume (depth, height, width), of a signal (length,).
        In units of white. NaN and infinity are as in the file.
    white : float
        What number of the file is 1 here.
    bits : int
        Of the file's numbers: 8 or 16 of integers, else 32. What `save` takes.
    alpha : Tensor, float32, shape ``spatial``, or None
        From 0, transparent, to 1; None where the file says nothing of it.
    profile : bytes or None
        ICC profile of the file's colours. It isn't applied.
    is_complex : bool
        Whether each two channels are one complex one's (see `to_complex`).
    """

    image: Float[Tensor, "channels *spatial"]
    white: float = 1.0
    bits: int = 32
    alpha: Float[Tensor, "*spatial"] | None = None
    profile: bytes | None = None
    is_complex: bool = False

    @cached_property
    def known(self) -> Bool[Tensor, "*spatial"]:
        """True where a pixel is opaque (by more than half) and all of its values are finite."""
        known = self.image.isfinite().all(dim=0)
        return known if self.alpha is None else known & (self.alpha > 0.5)


@checked
def read(
    source: str | Path,
    *,
    channel_axis: int | None = None,
    volume: bool = False,
    white: float | None = None,
    any_range: bool = False,
) -> ImageFile:
    """Read an image with what its file says of itself: axes, white, bits, transparency, colours.

    Files are told by their content, not by their suffix. They are turned upright as their
    orientation says (EXIF, TIFF).

    Parameters
    ----------
    source : str or Path
        A file (PNG, JPEG, TIFF, anything that Pillow reads, or ``.npy``), or one of
        `dipkernels.images.names`. A file wins over a named image.
    channel_axis : int, optional
        Where the channels are, -1 or 0, in a ``.npy`` array of three or four dimensions or in a
        TIFF stack of pages, which don't say it. By default they are last, if these are at most four
        or fewer than rows and than columns; else it's an error.
    volume : bool
        Take a third axis that isn't said to be channels for the depth of a volume: that of an
        array (depth, height, width), pages or time. Depth that a TIFF names is taken by itself.
    white : float, optional
        Which number of the file is white: 4095 of a 12-bit camera in a 16-bit file. By default
        what the file says, the maximum of an integer type of 8 or 16 bits, and 1 in floating
        point.
    any_range : bool
        Take values outside [0, 1], of signed and high-dynamic-range files, and NaN.

    Returns
    -------
    ImageFile
        One channel for a grey image, any number for a multi-channel TIFF or array, two for each
        complex one, its real and its imaginary part (see `from_complex`). Alpha is apart:
        the last of two or four channels in files that Pillow reads; in integer TIFFs a last
        channel that the file calls alpha; a transparent colour of PNG or GIF. In arrays and in
        floating-point TIFFs all channels are data.

    Raises
    ------
    ImageError
        If there is no such image, it can't be read as it's meant (an animation, several images,
        CMYK, L*a*b*, more bits than can be read), it holds integers whose white isn't known, or,
        unless `any_range`, NaN, infinity or values outside [0, 1]; or if its channels can't be
        told from its rows.
    InvalidInputError
        If `white` isn't positive and finite.
    MemoryLimitError
        If its pixels don't fit into the memory that is free.

    Warns
    -----
    UnitWarning
        If an integer file of 16 bits, signed or not, uses at most 14 of them, as of a camera of
        fewer bits, and neither the file nor `white` says it.

    Examples
    --------
    >>> file = read("camera")
    >>> tuple(file.image.shape), file.bits, file.white
    ((1, 512, 512), 8, 255.0)
    """
    if white is not None and not 0 < white < float("inf"):
        raise InvalidInputError(f"white must be positive and finite, got {white}")
    name = str(source)
    pixels = _find(source, Said(channel_axis, volume))
    values = to_fractions(pixels, name, white)
    if not any_range:
        require_finite(values, name, "fill or remove them, or take them for a mask")
        values = to_unit_range(values, name, white_said=white is not None)
    file = _image_file(values, pixels, white)
    if white is None:
        ask_for_white(file, name)
    return file


def _image_file(values: np.ndarray, pixels: Pixels, white: float | None) -> ImageFile:
    alpha = pixels.alpha
    return ImageFile(
        _tensor(np.moveaxis(values, -1, 0)),
        float(white or pixels.top or 1),
        pixels.bits,
        None if alpha is None or bool((alpha == 1).all()) else _tensor(alpha),
        pixels.profile,
        pixels.values.dtype.kind == "c",
    )


@checked
def load(
    source: str | Path,
    *,
    size: int | Size | None = None,
    channel_axis: int | None = None,
    volume: bool = False,
    white: float | None = None,
    any_range: bool = False,
) -> Float[Tensor, "channels *spatial"]:
    """Load an image, volume or signal by name or from a file.

    Parameters
    ----------
    source, channel_axis, volume, white, any_range
        As of `read`.
    size : int, tuple of int or None
        What to bring it to: scaled until it covers that size, then cropped about its centre, so
        that nothing is stretched. One number an axis, as (height, width); an int means as many
        pixels along each. None keeps the file's own size.

    Returns
    -------
    Tensor, float32, shape ``(channels, *spatial)``
        Values in [0, 1], unless any range was asked for. Alpha is dropped; see `read` to keep it.

    Raises
    ------
    ImageError
        As `read` does.

    Warns
    -----
    UnitWarning
        If pixels are transparent, whose colours are taken as they are; and as `read` does.

    Examples
    --------
    >>> load("astronaut", size=(48, 64)).shape
    torch.Size([3, 48, 64])
    """
    file = read(source, channel_axis=channel_axis, volume=volume, white=white, any_range=any_range)
    if file.alpha is not None:
        share = 1 - file.known.double().mean().item()
        hidden = f"{share:.1%} of its pixels" if share else "parts"
        warnings.warn(
            f"{source} is transparent in {hidden}, whose colours are taken as they are: "
            "dipkernels.images.read keeps alpha, and .known says which pixels are opaque",
            UnitWarning,
            stacklevel=3,
        )
    return file.image if size is None else resize(file.image, size)


@checked
def load_mask(
    source: str | Path,
    *,
    size: int | Size | None = None,
    hides: str | None = None,
    volume: bool = False,
) -> Bool[Tensor, "*spatial"]:
    """Load a mask: white, or opaque, is known; black, or transparent, is missing.

    Parameters
    ----------
    source : str or Path
        As in `load`; of several channels the mean counts. Files of two values, 0 and another, such
        as 0 and 1, are taken as they are; others are cut at half of white.
    size, volume
        As in `load`; the mask is resized like an image, then cut at one half.
    hides : {"black", "white", "transparent", "opaque"}, optional
        What is missing. By default what is transparent, where the file has transparent pixels;
        else what is black.

    Returns
    -------
    Tensor, bool, shape ``spatial``
        True where the pixel is known.

    Raises
    ------
    ImageError
        As `read` does, or if the file has no alpha that could hide something.
    InvalidInputError
        If `hides` is another word.
    """
    light = mask_light(read_mask(source, Said(volume=volume)), str(source), hides)
    return (light if size is None else resize(light[None], size)[0]) > 0.5


def read_mask(source: str | Path, said: Said) -> ImageFile:
    """Read the file of a mask, whose white is its type's or its own maximum."""
    pixels = _find(source, said)
    if pixels.values.dtype.kind == "c":
        raise ImageError(f"the mask {source} holds complex values: say what is known by 0 and 1")
    if pixels.values.dtype.kind not in "biuf":
        raise ImageError(f"{source} holds {pixels.values.dtype}, no numbers that are a mask")
    finite = pixels.values[np.isfinite(pixels.values)] if pixels.top is None else np.ones(1)
    white = pixels.top or max(1.0, float(finite.max(initial=1)))
    return _image_file(to_fractions(pixels, str(source), white), pixels, white)


def mask_light(file: ImageFile, source: str, hides: str | None = None) -> Tensor:
    """Turn a file into what is to be cut at one half: 1 is known."""
    if hides not in (None, *HIDES):
        raise InvalidInputError(f"a mask hides one of {', '.join(HIDES)}, got '{hides}'")
    hides = hides or ("black" if file.alpha is None else "transparent")
    if hides in ("transparent", "opaque"):
        if file.alpha is None:
            raise ImageError(
                f"the mask {source} has no transparent pixels, so that '{hides}' fits none"
            )
        light = file.alpha
    else:
        require_finite(file.image.numpy(), f"the mask {source}", "say what they are by 0 and 1")
        light = file.image.mean(dim=0)
        low, high = light.aminmax()
        if low == 0 < high and bool(((light == low) | (light == high)).all()):  # two levels
            light = light / high
        elif low == high and round(float(low) * file.white) == 1:  # ones alone
            light = torch.ones_like(light)
    return 1 - light if hides in ("white", "opaque") else light


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
        PSNR and SSIM take its peak to be 1, whatever its range. Of complex values two channels for
        each: see `from_complex`.

    Raises
    ------
    ImageError
        If there is no such file, it can't be read, has another shape, or holds NaN, infinity or
        numbers of another type.
    MemoryLimitError
        If it doesn't fit into the memory that is free.
    """
    path = Path(path)
    if path.suffix.lower() != ".npy" or not is_file(path):
        raise ImageError(f"{path} is no .npy file: save the signal by numpy.save")
    try:
        values = _read_npy(path)
    except MemoryLimitError:
        raise
    except Exception as error:  # whatever numpy raises
        raise ImageError(f"{path} can't be read as a signal ({_first_line(error)})") from error
    if values.ndim not in (1, 2) or values.size == 0:
        raise ImageError(
            f"{path} has shape {values.shape}; a signal has (length,) or (channels, length)"
        )
    values = to_fractions(Pixels(np.atleast_2d(values).T), str(path))
    require_finite(values, str(path), "fill or remove them")
    return _tensor(values.T)


def _find(source: str | Path, said: Said) -> Pixels:
    found = Path(source) if is_file(source) else read_named(str(source))
    if isinstance(found, Path):
        return _read_file(found, said)
    values = np.atleast_3d(found)
    said.require_effect(str(source), values.shape)
    return Pixels(values)


def _read_file(path: Path, said: Said) -> Pixels:
    try:
        with path.open("rb") as file:
            start = file.read(6)
        if start == NUMPY or path.suffix.lower() == ".npy":
            return Pixels(arrange(_read_npy(path), str(path), said))
        if start[:4] in TIFF:
            return read_tiff(path, said)
        pixels = read_by_pillow(path)
        said.require_effect(str(path), pixels.values.shape)
        return pixels
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # the readers raise whatever their libraries do
        raise ImageError(f"{path} can't be read as an image ({_first_line(error)})") from error


def _read_npy(path: Path) -> np.ndarray:
    stored = np.load(path, allow_pickle=False, mmap_mode="r")
    require_room(stored.shape, path)
    return np.array(stored)


def ask_for_white(file: ImageFile, source: str) -> None:
    """Warn of numbers that are likely those of fewer bits."""
    top = round(file.white)
    if top not in (32767, 65535):
        return
    high = round(top * float(file.image.max()))
    if 1 < high < 2**14:
        bits = max(8, high.bit_length())
        white = 2**bits - 1
        warnings.warn(
            f"the largest value of {source} is {high} of {top}, as of a camera of {bits} bits in a "
            f"file of 16: if so, say white={white} (--white {white}); white is taken to be {top}",
            UnitWarning,
            stacklevel=4,
        )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.require(values, np.float32, ["C", "W"]))


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
