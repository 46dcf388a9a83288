"""Raw pixels of image files, and what their numbers and axes mean."""

from pathlib import Path

import imageio.v3
import numpy as np
import tifffile
from PIL import Image

from dipkernels.errors import ImageError

MIN_IS_WHITE, PALETTE, SEPARATED = 0, 3, 5  # TIFF's tag "photometric interpretation"
ALPHA = (1, 2)  # TIFF's tag "extra samples": associated and unassociated alpha


def read_pixels(path: Path, channel_axis: int | None = None) -> np.ndarray:
    """Read a file as it is, but for alpha channels, which are dropped."""
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return arrange(np.asarray(np.load(path, allow_pickle=False)), str(path), channel_axis)
    if suffix in (".tif", ".tiff"):
        return _read_tiff(path, channel_axis)
    return _without_alpha(arrange(_read_by_pillow(path), str(path), channel_axis, -1))


def arrange(
    pixels: np.ndarray, source: str, channel_axis: int | None, known_axis: int | None = None
) -> np.ndarray:
    """Bring the channels to the end."""
    shape = pixels.shape
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise ImageError(
            f"{source} has shape {shape}; an image has (height, width), (height, width, channels) "
            "or, with channel_axis=0, (channels, height, width)"
        )
    if channel_axis is not None and (pixels.ndim == 2 or known_axis is not None):
        raise ImageError(
            f"channel_axis has no effect on {source}, whose shape is {shape}: leave it out"
        )
    if pixels.ndim == 2:
        return pixels[..., None]
    axis = known_axis if channel_axis is None else channel_axis
    if axis is None and shape[2] > 4 and shape[0] < shape[2]:
        raise ImageError(
            f"{source} has shape {shape}, and it can't be told which axis holds the channels: pass "
            "channel_axis=0 for (channels, height, width) or -1 for (height, width, channels)"
        )
    if axis not in (None, 0, -1, 2):
        raise ImageError(f"channel_axis must be 0 or -1, got {axis}")
    return np.moveaxis(pixels, -1 if axis is None else axis, -1)


def to_unit_range(pixels: np.ndarray, source: str) -> np.ndarray:
    """Scale pixels to [0, 1]."""
    pixels = to_floats(pixels, source)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ImageError(f"{source} has values from {low:g} to {high:g}; scale them to [0, 1]")
    return pixels


def to_floats(pixels: np.ndarray, source: str) -> np.ndarray:
    """Turn integers into fractions of their type's maximum, and check that all is finite."""
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
    return pixels


def _read_by_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        tile = picture.tile[0] if picture.tile else None
        mode, raw = picture.mode, tile.args if tile else None
    if path.suffix.lower() in (".jpg", ".jpeg") and mode == "CMYK":
        raise ValueError("its colours are CMYK; convert it to RGB")
    if raw == "LA;16B":
        raise ValueError("it is grey of 16 bits with alpha, of which Pillow reads 8: remove alpha")
    # Named, because imageio would try all of its plugins on a broken file, and leave it open.
    pixels = np.asarray(imageio.v3.imread(path, plugin="pillow"))
    if raw == f"{mode};16B" and mode in ("RGB", "RGBA"):
        return np.asarray(pixels.astype(np.uint16) << 8 | _low_bytes(path))
    return pixels


# Pillow reads the high bytes of 16-bit colours alone; as if the file were little-endian, the low.
def _low_bytes(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        raw = f"{picture.mode};16L"
        picture.tile = [tile._replace(args=raw) for tile in picture.tile]
        return np.asarray(picture)


def _without_alpha(pixels: np.ndarray) -> np.ndarray:
    return pixels[..., :-1] if pixels.shape[-1] in (2, 4) else pixels


def _read_tiff(path: Path, channel_axis: int | None) -> np.ndarray:
    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        photometric, extra = int(page.photometric), tuple(map(int, page.extrasamples))
        if photometric == SEPARATED:
            raise ValueError("its colours are CMYK; convert it to RGB")
        pixels = np.asarray(series.asarray()) if photometric != PALETTE else None
        axes = str(series.axes)
    if pixels is None:
        return _without_alpha(arrange(_read_by_pillow(path), str(path), channel_axis, -1))
    known = next((axes.index(letter) for letter in "SC" if letter in axes), None)
    known = known if pixels.ndim == 3 and known in (0, 2) else None
    pixels = arrange(pixels, str(path), channel_axis, known)
    if photometric == MIN_IS_WHITE and pixels.dtype.kind in "bu":
        pixels = ~pixels
    # Writers mark any second or fourth channel as alpha; of floating-point ones it is data.
    is_alpha = bool(extra) and extra[-1] in ALPHA and pixels.dtype.kind == "u"
    return pixels[..., :-1] if is_alpha and pixels.shape[-1] > 1 else pixels
