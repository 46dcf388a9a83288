"""TIFF files, by tifffile: their axes, colours, bits, alpha and orientation."""

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import UnidentifiedImageError

from dipkernels.images.pillow_files import read_by_pillow
from dipkernels.images.pixels import Pixels, Said, arrange, require_room, without_alpha

MIN_IS_WHITE, PALETTE, YCBCR = 0, 3, 6  # of the tag "photometric interpretation"
READ = (MIN_IS_WHITE, 1, 2, PALETTE, 4)  # with grey, RGB and masks
PREMULTIPLIED = 1  # of the tag "extra samples"; 2 is alpha that isn't
ORIENTATION = 274
NO_DATA = 42113  # GDAL's tag: what stands for a missing value, as text
CHANNELS = ("S", "C")  # letters of axes, as tifffile names them
BY_JPEG = (6, 7)  # compressions, whose decoders give RGB
UNNAMED, DEPTH = "Q", "Z"
REMEDY = "install the package imagecodecs, or save it without compression, in 8 or 16 bits"
NAMES = {"T": "time", "I": "pages", "Q": "an unnamed axis"}


def read_tiff(path: Path, said: Said) -> Pixels:
    """Read a file, turned upright."""
    with tifffile.TiffFile(path) as file:
        series = _the_series(file)
        page = series.keyframe
        _require_colours(page)
        require_room(series.shape, path)
        pages = len(series.pages)
        try:
            values = np.asarray(series.asarray()) if page.photometric != YCBCR else None
        except (ValueError, NotImplementedError) as error:
            if "imagecodecs" not in str(error):
                raise
            values = None
        if values is None and page.photometric == YCBCR and page.compression not in BY_JPEG:
            raise ValueError("its colours are YCbCr; convert it to RGB")
        if values is None and pages > 1:
            raise ValueError(f"its {pages} pages are compressed ({_packing(page)}): {REMEDY}")
        if values is not None:
            found = _understood(values, file, series, str(path), said)
            return replace(found, profile=page.iccprofile)
        bits, packing = page.bitspersample, _packing(page)
        samples = 1 if page.photometric == PALETTE else page.samplesperpixel
        missing = None if page.photometric == PALETTE else _missing(page)
        white_is_zero = page.photometric == MIN_IS_WHITE
    pixels: Pixels | None = None
    with contextlib.suppress(UnidentifiedImageError):
        pixels = read_by_pillow(path)
    if pixels is None or pixels.values.shape[-1] + (pixels.alpha is not None) < samples:
        raise ValueError(f"its pixels are packed ({packing}): {REMEDY}")
    said.require_effect(str(path), pixels.values.shape)
    deep = bits if isinstance(bits, int) and 8 < bits < 16 else None
    pixels = replace(pixels, white=2.0**deep - 1) if deep else pixels
    if white_is_zero and pixels.values.dtype != np.uint8:  # which Pillow inverts itself
        pixels = replace(pixels, values=_inverted(pixels.values, pixels.white))
    return _without_missing(pixels, missing)


def _the_series(file: Any) -> Any:
    """Take the one image of a file: thumbnails, masks and smaller levels aren't meant."""
    whole = [s for s in file.series if not (s.keyframe.is_reduced or s.keyframe.is_mask)]
    if len(whole) > 1:
        sizes = ", ".join("x".join(map(str, s.shape)) for s in whole[:4])
        raise ValueError(f"it holds {len(whole)} images ({sizes}); save the one that you mean")
    return whole[0] if whole else file.series[0]


def _require_colours(page: Any) -> None:
    if page.photometric not in (*READ, YCBCR):
        name = getattr(page.photometric, "name", page.photometric)
        named = {5: "CMYK", 8: "L*a*b*", 9: "L*a*b* (ICC)", 10: "L*a*b* (ITU)"}
        raise ValueError(
            f"its colours are {named.get(int(page.photometric), name)}; convert it to RGB"
        )


def _packing(page: Any) -> str:
    return f"{page.compression.name}, {page.bitspersample} bits"


def _understood(values: np.ndarray, file: Any, series: Any, source: str, said: Said) -> Pixels:
    page = series.keyframe
    values, axes = _without_single_axes(values, series.axes)
    if page.photometric == PALETTE and page.colormap is not None:
        return _of_palette(values, page, source, said)
    values = _arranged(values, axes, source, said)
    bits = _significant_bits(file, page)
    white = None
    if bits and values.dtype.kind == "u" and bits < 8 * values.itemsize:
        white = 2.0**bits - 1
    # tifffile writes a NumPy array of bool as it is, and calls its False white.
    by_numpy = values.dtype == bool and str(file.pages.first.software).startswith("tifffile")
    if page.photometric == MIN_IS_WHITE and not by_numpy:
        values = _inverted(values, white)
    extra = tuple(map(int, page.extrasamples))
    # Writers mark any second or fourth channel as alpha; of floating-point ones it is data.
    is_alpha = bool(extra) and extra[-1] in (1, 2) and values.dtype.kind == "u"
    if is_alpha and values.shape[-1] > 1:
        pixels = without_alpha(values, premultiplied=extra[-1] == PREMULTIPLIED)
    else:
        pixels = _without_missing(Pixels(values, white), _missing(page))
    tag = page.tags.get(ORIENTATION)
    return pixels.upright(None if tag is None else int(tag.value))


def _inverted(values: np.ndarray, white: float | None) -> np.ndarray:
    """Make 0 black, where it is white."""
    if values.dtype.kind not in "bu":
        raise ValueError(f"its white is 0, but of {values.dtype}: save it with black as 0")
    return ~values if white is None else (int(white) - values).astype(values.dtype)


# That are used of each number: of an OME file as it says.
def _significant_bits(file: Any, page: Any) -> int | None:
    said = re.search(r'\bSignificantBits="(\d+)"', file.ome_metadata or "") if file.is_ome else None
    bits = page.bitspersample if isinstance(page.bitspersample, int) else None
    return bits if said is None else min(int(said[1]), bits or 16)


def _missing(page: Any) -> float | None:
    tag = page.tags.get(NO_DATA)
    return None if tag is None else float(str(tag.value).strip("\0 "))


def _without_missing(pixels: Pixels, missing: float | None) -> Pixels:
    """Make missing values transparent."""
    values = pixels.values
    if missing is None or values.dtype.kind not in "iuf":
        return pixels
    hole = (np.isnan(values) if np.isnan(missing) else values == missing).any(axis=-1)
    if not hole.any():
        return pixels
    kept = np.where(hole[..., None], np.zeros((), values.dtype), values)
    return replace(pixels, values=kept, alpha=1.0 - hole)


def _without_single_axes(values: np.ndarray, axes: str) -> tuple[np.ndarray, str]:
    """Drop axes of one entry, but for rows and columns."""
    single = [i for i, letter in enumerate(axes) if values.shape[i] == 1 and letter not in "YX"]
    kept = "".join(letter for i, letter in enumerate(axes) if i not in single)
    return values.squeeze(tuple(single)), kept


def _arranged(values: np.ndarray, axes: str, source: str, said: Said) -> np.ndarray:
    """Bring the channels to the end, by the names of the axes."""
    spatial = "".join(letter for letter in axes if letter not in CHANNELS)
    channels = [axes.index(letter) for letter in axes if letter in CHANNELS]
    sizes = ", ".join(f"{letter} {n}" for letter, n in zip(axes, values.shape, strict=True))
    other = spatial.removesuffix("YX")
    if len(channels) > 1 or len(other) > 1 or not spatial.endswith("YX"):
        raise ValueError(
            f"its axes are {sizes}; an image has rows (Y), columns (X), at most a depth (Z) and at "
            "most one axis of channels: save one image of it"
        )
    if other == UNNAMED and not channels:
        return arrange(values, source, said)
    if other and not channels and said.channel_axis == 0 and not said.volume:
        channels, other = [0], ""
    elif other and other != DEPTH and not said.volume:
        named = NAMES.get(other, tifffile.TIFF.AXES_NAMES.get(other, other))
        colours = "" if channels else ", or channel_axis=0 (--channel-axis 0) for channels"
        raise ValueError(
            f"its axes are {sizes}, and {other} is {named}: save one image of it, or pass "
            f"volume=True (--volume) to take these for the depth of a volume{colours}"
        )
    else:
        said.require_effect(source, values.shape, volume=bool(other))
    return np.moveaxis(values, channels[0], -1) if channels else values[..., None]


def _of_palette(values: np.ndarray, page: Any, source: str, said: Said) -> Pixels:
    """Look colours up; a second channel is alpha."""
    alpha = None
    if values.ndim == 3 and page.extrasamples:
        values, alpha = values[..., 0], values[..., -1] / np.iinfo(values.dtype).max
    if values.ndim != 2:
        raise ValueError(f"it holds images of shape {values.shape}; save one of them")
    said.require_effect(source, values.shape)
    # Of 16 bits, though most writers mean 8 and multiply by 256 or 257.
    colours = np.moveaxis(page.colormap, 0, -1)[values]
    if not (page.colormap % 257).any() or not (page.colormap % 256).any():
        colours = (colours >> 8).astype(np.uint8)
    pixels = Pixels(colours, alpha=alpha)
    tag = page.tags.get(ORIENTATION)
    return pixels.upright(None if tag is None else int(tag.value))
