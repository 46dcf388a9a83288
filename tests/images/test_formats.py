"""Formats against files written from their standards: bits, channels, alpha."""

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import tifffile
import torch
from PIL import Image

from dipkernels import images
from dipkernels.errors import ImageError, InvalidInputError, UnitWarning


def draw_integers(*shape: int, dtype: type, seed: int = 0) -> np.ndarray:
    """Draw pixels of the whole range of an integer type."""
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(seed).integers(0, limits.max, shape, dtype, endpoint=True)
    pixels.flat[:2] = 0, limits.max
    return pixels


def draw_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def png_of(pixels: np.ndarray, filter_type: int) -> bytes:
    """A 16-bit PNG, written from the standard alone: one filter for all rows."""
    height, width, channels = pixels.shape
    rows = pixels.astype(">u2").tobytes()
    stride, step = 2 * width * channels, 2 * channels
    raw = np.frombuffer(rows, np.uint8).reshape(height, stride).astype(int)
    left, above = np.zeros_like(raw), np.zeros_like(raw)
    left[:, step:], above[1:] = raw[:, :-step], raw[:-1]
    predicted = {0: 0 * raw, 1: left, 2: above, 3: (left + above) // 2}[filter_type]
    filtered = ((raw - predicted) % 256).astype(np.uint8)
    data = b"".join(bytes([filter_type]) + row.tobytes() for row in filtered)

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize("filter_type", [0, 1, 2, 3])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pngs_of_16_bits_keep_them_all(tmp_path: Path, channels: int, filter_type: int) -> None:
    pixels = draw_integers(5, 8, channels, dtype=np.uint16)
    (tmp_path / "image.png").write_bytes(png_of(pixels, filter_type))
    kept = pixels[..., :3].transpose(2, 0, 1) / 65535
    said = pytest.warns(UnitWarning) if channels == 4 else contextlib.nullcontext()
    with said:
        image = images.load(tmp_path / "image.png")
    np.testing.assert_array_equal(image.numpy(), kept.astype(np.float32))


def test_pngs_of_16_bits_and_grey_with_alpha_are_refused(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(png_of(draw_integers(5, 8, 2, dtype=np.uint16), 0))
    with pytest.raises(ImageError, match=r"of which Pillow reads 8: remove alpha"):
        images.load(tmp_path / "image.png")


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("suffix", [".tif", ".tiff", ".npy"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_number_of_channels_is_saved_and_loaded(
    tmp_path: Path, suffix: str, channels: int, bits: int
) -> None:
    image = draw_image(channels, 9, 8)
    images.save(image, tmp_path / f"image{suffix}", bits=bits)
    loaded = images.load(tmp_path / f"image{suffix}")
    assert loaded.shape == image.shape
    # Half a step, and float32's rounding; floating point is exact.
    error = {8: 0.5 / 255, 16: 0.5 / 65535, 32: 0}[bits]
    torch.testing.assert_close(loaded, image, rtol=0, atol=error * (1 + 1e-3))
    if bits < 32:
        assert (loaded - image).abs().max() > error / 2


def test_bits_by_default(tmp_path: Path) -> None:
    image = draw_image(1, 6, 7)
    images.save(image, tmp_path / "image.npy")
    assert np.load(tmp_path / "image.npy").dtype == np.float32
    images.save(image, tmp_path / "image.tif")
    assert skimage.io.imread(tmp_path / "image.tif").dtype == np.uint8
    images.save(image, tmp_path / "image.png", bits=16)
    assert np.asarray(Image.open(tmp_path / "image.png")).dtype == np.uint16
    torch.testing.assert_close(images.load(tmp_path / "image.png"), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "channels", "bits"),
    [("a.png", 3, 16), ("a.png", 1, 32), ("a.jpg", 1, 16), ("a.tif", 1, 12), ("a.npy", 1, 64)],
)
def test_bits_that_a_format_does_not_take(
    tmp_path: Path, name: str, channels: int, bits: int
) -> None:
    with pytest.raises(InvalidInputError, match=rf"{name} with {channels} channels takes \[8.*got"):
        images.save(draw_image(channels, 6, 7), tmp_path / name, bits=bits)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("suffix", [".npy", ".tif"])
def test_channels_first_must_be_said(tmp_path: Path, suffix: str) -> None:
    pixels = np.random.default_rng(0).random((6, 20, 30)).astype(np.float32)
    path = tmp_path / f"cube{suffix}"
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        tifffile.imwrite(path, pixels, photometric="minisblack")  # six pages
    with pytest.raises(ImageError, match=r"\(6, 20, 30\), and it can't be told .*channel_axis=0"):
        images.load(path)
    first, last = images.load(path, channel_axis=0), images.load(path, channel_axis=-1)
    np.testing.assert_array_equal(first.numpy(), pixels)
    np.testing.assert_array_equal(last.numpy(), pixels.transpose(2, 0, 1))
    with pytest.raises(ImageError, match="must be 0 or -1, got 1"):
        images.load(path, channel_axis=1)


def test_many_channels_at_the_end_are_told_by_the_shape(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).random((20, 30, 12))
    np.save(tmp_path / "cube.npy", pixels)
    loaded = images.load(tmp_path / "cube.npy")
    np.testing.assert_array_equal(loaded.numpy(), pixels.transpose(2, 0, 1).astype(np.float32))
    assert images.load(tmp_path / "cube.npy", size=(10, 15)).shape == (12, 10, 15)


def test_planar_tiffs_say_where_their_channels_are(tmp_path: Path) -> None:
    pixels = draw_integers(3, 20, 30, dtype=np.uint16)
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(images.load(path).numpy(), (pixels / 65535).astype(np.float32))
    with pytest.raises(ImageError, match="channel_axis has no effect on"):
        images.load(path, channel_axis=0)


def test_channel_axes_have_no_effect_where_the_format_says_them(tmp_path: Path) -> None:
    images.save(draw_image(3, 6, 7), tmp_path / "image.png")
    np.save(tmp_path / "grey.npy", np.ones((6, 7)))
    for source in (tmp_path / "image.png", tmp_path / "grey.npy", "astronaut"):
        with pytest.raises(ImageError, match="channel_axis has no effect on"):
            images.load(source, channel_axis=-1)


@pytest.mark.parametrize(
    ("dtype", "alpha", "kept"),
    [
        (np.uint8, "unassalpha", 3),
        (np.uint16, "unassalpha", 3),
        (np.uint8, "unspecified", 4),
        (np.float32, "unassalpha", 4),
    ],
)
def test_alpha_of_tiffs(tmp_path: Path, dtype: type, alpha: str, kept: int) -> None:
    integers = draw_integers(5, 8, 4, dtype=np.uint8 if dtype is np.float32 else dtype)
    pixels = (integers / 255).astype(dtype) if dtype is np.float32 else integers
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=[alpha])
    maximum = 255 if integers.dtype == np.uint8 else 65535
    expected = (integers / maximum).astype(np.float32)[..., :kept].transpose(2, 0, 1)
    said = pytest.warns(UnitWarning) if kept == 3 else contextlib.nullcontext()
    with said:
        loaded = images.load(path)
    np.testing.assert_array_equal(loaded.numpy(), expected)


def test_tiffs_whose_white_is_zero_and_with_palettes(tmp_path: Path) -> None:
    pixels = draw_integers(5, 8, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "negative.tif", pixels, photometric="miniswhite")
    loaded = images.load(tmp_path / "negative.tif")
    np.testing.assert_array_equal(loaded[0].numpy(), ((255 - pixels) / 255).astype(np.float32))
    colours = np.array([[255, 0, 0], [0, 128, 255]], dtype=np.uint8)
    picture = Image.fromarray(colours[(pixels > 127).astype(int)]).quantize(2)
    picture.save(tmp_path / "palette.tif")
    expected = colours[(pixels > 127).astype(int)].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(images.load(tmp_path / "palette.tif").numpy(), expected, rtol=1e-6)
    Image.fromarray(draw_integers(5, 8, 4, dtype=np.uint8), "CMYK").save(tmp_path / "print.tif")
    with pytest.raises(ImageError, match="CMYK; convert it to RGB"):
        images.load(tmp_path / "print.tif")


def test_black_and_white_tiffs(tmp_path: Path) -> None:
    bits = np.random.default_rng(2).random((5, 8)) > 0.4
    Image.fromarray(bits).save(tmp_path / "bits.tif")
    np.testing.assert_array_equal(images.load(tmp_path / "bits.tif")[0].numpy(), bits)
