"""Image and mask files of any kind, depth, suffix and damage: read rightly, or a sentence."""

import logging
import random
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import tifffile
from PIL import Image

from dipkernels import images
from dipkernels.errors import DipkernelsError
from helpers.campaigns import sizes

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "TGA", "ICO", "SGI", "JPEG2000")
SUFFIXES = (".png", ".jpg", ".tif", ".npy", ".bmp", ".gif", ".txt", "", ".PNG", ".nc")
DTYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "f2", "f4", "f8", "c8", "b1", "U3", ">u2")


def drawn(rng: random.Random, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An array of any type; a few hold NaN."""
    noise = np.random.default_rng(rng.randrange(2**32)).random(shape)
    if dtype == "U3":
        return np.full(shape, "a")
    kind = np.dtype(dtype).kind
    top = {"f": 1, "c": 1, "b": 1.99}.get(kind, 100)
    array = (noise * top).astype(dtype)
    if kind == "f" and array.size and rng.random() < 0.2:
        array.flat[0] = np.nan
    return array


def by_pillow(rng: random.Random, path: Path, side: Callable[[], int]) -> np.ndarray | None:
    """Write by Pillow what it can; give the grey levels or colours where they are kept."""
    size, mode, kind = (side(), side()), rng.choice(MODES), rng.choice(FORMATS)
    if rng.random() < 0.4:
        mode, kind = rng.choice(["L", "RGB"]), rng.choice(["PNG", "BMP", "TIFF", "PPM"])
    bands = {"RGB": 3, "L": 1}.get(mode)
    pixels = drawn(rng, (size[1], size[0], *((3,) if bands == 3 else ())), "u1")
    picture = Image.fromarray(pixels) if bands else Image.new(mode, size)
    picture.save(path, format=kind)
    return pixels if bands and kind in ("PNG", "BMP", "TIFF", "PPM") else None


def by_tifffile(rng: random.Random, path: Path, side: Callable[[], int]) -> np.ndarray | None:
    shape = rng.choice([(side(), side()), (side(), side(), 3), (3, side(), side()), (side(),)])
    options: dict[str, Any] = rng.choice([{}, {"compression": "zlib"}, {"bigtiff": True}])
    tifffile.imwrite(path, drawn(rng, shape, rng.choice(DTYPES)), **options)
    return None


def by_numpy(rng: random.Random, path: Path, side: Callable[[], int]) -> np.ndarray | None:
    axes = rng.choice([0, 1, 2, 2, 3, 3, 4])
    array = drawn(rng, tuple(side() for _ in range(axes)), rng.choice(DTYPES))
    if rng.random() < 0.1:
        array = np.array([object()])
    with path.open("wb") as file:
        np.save(file, array)
    return None


def by_nobody(rng: random.Random, path: Path, side: Callable[[], int]) -> np.ndarray | None:
    starts = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"\x93NUMPY", b"GIF89a", b"P6 "]
    path.write_bytes(rng.choice(starts) + rng.randbytes(rng.choice([0, 1, 50, 3000])))
    return None


def damaged(rng: random.Random, path: Path) -> None:
    content = bytearray(path.read_bytes())
    if not content:
        return
    if rng.random() < 0.4:
        content = content[: rng.randrange(len(content))]
    else:
        for _ in range(rng.choice([1, 1, 5])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("count", sizes(60, 2_000))
def test_a_file_is_read_rightly_or_refused(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(logging.getLogger("tifffile"), "disabled", True)
    rng, seen = random.Random(count), Counter[str]()
    calls = (images.read, images.load, images.load_mask, images.load_signal)
    for number in range(count):
        path = tmp_path / f"{number}{rng.choice(SUFFIXES)}"
        write = rng.choice([by_pillow, by_pillow, by_tifffile, by_numpy, by_nobody])

        def side() -> int:
            return rng.choice([1, 1, 2, 7, 20, 33])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels = write(rng, path, side)
            except Exception:  # of the writer, which can't make this combination
                seen["not made"] += 1
                continue
            if rng.random() < 0.4:
                damaged(rng, path)
                pixels = None
            for call in calls:
                try:
                    found = call(path)
                except DipkernelsError as error:
                    assert str(error)  # a sentence
                    seen["a sentence"] += 1
                else:
                    seen["read"] += 1
                    values = getattr(found, "image", found)
                    assert values.numel()
                    assert values.isfinite().all()
                    if pixels is not None and call is images.load:
                        expected = np.atleast_3d(pixels).transpose(2, 0, 1) / 255
                        np.testing.assert_allclose(values, expected, atol=1e-6)
                        seen["compared"] += 1
        path.unlink()
    print(f"{count} image files, {len(calls)} readers: {dict(seen)}, raw: 0")
    assert seen["compared"]
    assert seen["a sentence"] > count / 4
