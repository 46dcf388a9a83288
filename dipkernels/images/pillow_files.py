"""Files that Pillow reads: PNG, JPEG, WebP, GIF, Netpbm, and what else it knows."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from dipkernels.images.pixels import Pixels, require_room, without_alpha

ORIENTATION = 0x0112  # EXIF's tag
PICTURE_FIRST = ("MPO", "PSD")  # further frames are previews, depth or layers, the first is whole
# What is converted, without a choice of ours: stored otherwise, but the same colours.
SAME_COLOURS = {
    "1": "L", "P": "RGB", "RGBX": "RGB", "HSV": "RGB", "YCbCr": "RGB",
    "PA": "RGBA", "RGBa": "RGBA", "La": "LA",
}  # fmt: skip
REFUSED = {
    "CMYK": "its colours are CMYK; convert it to RGB, by the profile of the press",
    "LAB": "its colours are L*a*b*; convert it to RGB",
}


def read_by_pillow(path: Path) -> Pixels:
    """Read a file, turned upright."""
    with Image.open(path) as picture:
        require_room((picture.height, picture.width, len(picture.getbands())), path)
        _require_readable(picture, path)
        pixels = _read(picture, path)
        # Pillow turns TIFFs itself, while it reads them, and forgets the tag.
        orientation = picture.getexif().get(ORIENTATION)
        profile = picture.info.get("icc_profile")
    pixels = pixels.upright(orientation)
    return Pixels(pixels.values, pixels.white, pixels.alpha, profile)


def _require_readable(picture: ImageFile.ImageFile, path: Path) -> None:
    """Refuse by name what would be read as something else."""
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format not in (*PICTURE_FIRST, "TIFF"):
        raise ValueError(f"it holds {frames} frames, an animation; save the one that you mean")
    if picture.mode in REFUSED:
        raise ValueError(REFUSED[picture.mode])
    if _raw_mode(picture) == "LA;16B":
        raise ValueError(
            "it is grey of 16 bits with alpha, of which Pillow reads 8: remove alpha, or save it "
            "as TIFF"
        )
    bits = _bits(picture, path)
    if bits > 8 and picture.mode in ("L", "LA", "RGB", "RGBA"):
        raise ValueError(f"it has {bits} bits, of which Pillow reads 8: save it as TIFF")


def _bits(picture: ImageFile.ImageFile, path: Path) -> int:
    """Tell the depth that Pillow would cut; 8 where it reads all."""
    if picture.format == "JPEG2000":
        return _jpeg2000_bits(path)
    if picture.format == "AVIF":  # the box "pixi" lists the bits of each channel
        found = re.search(rb"pixi....[\x01-\x04](.)", path.read_bytes(), re.DOTALL)
        return found[1][0] if found else 8
    if picture.tile and picture.tile[0].codec_name == "SGI16":
        return 16
    return 16 if _raw_mode(picture) == "L;16B" else 8


def _jpeg2000_bits(path: Path) -> int:
    """Read the precision off the marker SIZ of a codestream."""
    data = path.read_bytes()
    return (data[data.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1


def _raw_mode(picture: ImageFile.ImageFile) -> Any:
    args = picture.tile[0].args if picture.tile else None
    return args[0] if isinstance(args, tuple) and args else args


def _read(picture: ImageFile.ImageFile, path: Path) -> Pixels:
    white = _deep_netpbm_white(picture)
    if white is not None:
        return Pixels(_read_netpbm(picture, path, white), float(white))
    raw, key = str(_raw_mode(picture)), picture.info.get("transparency")
    if re.fullmatch(r"RGB[AX]?;16[BLN]", raw):
        values = _deep_colours(picture, path, raw)
    elif picture.mode == "P" and (key is not None or "A" in getattr(picture.palette, "mode", "")):
        values, key = np.asarray(picture.convert("RGBA")), None
    elif picture.mode in SAME_COLOURS:
        values = np.asarray(picture.convert(SAME_COLOURS[picture.mode]))
    else:
        values = np.asarray(picture)
    values = np.atleast_3d(values)
    if values.shape[-1] in (2, 4):
        return without_alpha(values)
    alpha = None
    if isinstance(key, int | tuple):  # one colour stands for transparent
        alpha = (values != np.asarray(key)).any(axis=-1).astype(np.float64)
    if picture.format == "JPEG2000" and picture.mode.startswith("I;16"):
        bits = _jpeg2000_bits(path)  # which Pillow shifts to the top
        return Pixels(values >> (16 - bits), float(2**bits - 1), alpha)
    return Pixels(values, alpha=alpha)


def _deep_colours(picture: ImageFile.ImageFile, path: Path, raw: str) -> np.ndarray:
    """Read 16-bit colours, of which Pillow reads one byte, twice: in either order of bytes."""
    halves = []
    for order in "LB":
        with Image.open(path) as again:
            mode = f"{raw.partition(';')[0]};16{order}"
            again.tile = [_with_raw_mode(tile, mode) for tile in again.tile]
            halves.append(np.asarray(again).astype(np.uint16))
    # Pillow keeps what is the higher byte in the order that it's told.
    later, earlier = halves
    little = raw.endswith("L") or (raw.endswith("N") and sys.byteorder == "little")
    return later << 8 | earlier if little else earlier << 8 | later


def _with_raw_mode(tile: Any, mode: str) -> Any:
    args = (mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode
    return tile._replace(args=args)


def _deep_netpbm_white(picture: ImageFile.ImageFile) -> int | None:
    """Tell the white of a Netpbm file of more than 8 bits, which Pillow scales or cuts."""
    if picture.format != "PPM" or not picture.tile:
        return None
    codec: str = picture.tile[0].codec_name
    args: Any = picture.tile[0].args
    if codec in ("ppm", "ppm_plain"):
        return int(args[1]) if args[1] > 255 else None
    return 65535 if picture.mode == "I" else None


def _read_netpbm(picture: ImageFile.ImageFile, path: Path, white: int) -> np.ndarray:
    """Read the numbers behind the header: plain, or of two bytes, the higher first."""
    data = path.read_bytes()[picture.tile[0].offset :]
    bands = 3 if picture.mode == "RGB" else 1
    shape = picture.height, picture.width, bands
    count = int(np.prod(shape))
    if picture.tile[0].codec_name == "ppm_plain":
        words = re.sub(rb"#[^\r\n]*", b" ", data).split()[:count]
        numbers = np.array([int(word) for word in words])
    else:
        numbers = np.frombuffer(data[: 2 * count], ">u2")
    if len(numbers) < count or numbers.max(initial=0) > white:
        raise ValueError(f"it has {len(numbers)} of {count} numbers, or some above {white}")
    return numbers.astype(np.uint16).reshape(shape)
