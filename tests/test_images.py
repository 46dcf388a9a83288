"""Loading, saving, resizing and naming images; their scores against scikit-image's."""

import itertools
import math
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import skimage.color
import skimage.data
import skimage.io
import skimage.metrics
import skimage.transform
import tifffile
import torch
from PIL import Image

from dipkernels import images
from dipkernels.errors import DipkernelsError, ImageError, InvalidInputError, OutputError
from dipkernels.images.metrics import mse_to_psnr


def draw_integers(*shape: int, dtype: type, seed: int = 0) -> np.ndarray:
    """Draw pixels of the whole range of an integer type."""
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(seed).integers(0, limits.max, shape, dtype, endpoint=True)
    pixels.flat[:2] = 0, limits.max
    return pixels


def draw_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- Files ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "dtype", "channels"),
    [
        *itertools.product((".tif", ".tiff", ".npy"), (np.uint8, np.uint16), (1, 3)),
        (".png", np.uint8, 1),
        (".png", np.uint8, 3),
        (".png", np.uint16, 1),  # Pillow writes no 16-bit colours
        (".bmp", np.uint8, 3),
    ],
)
def test_integer_files_are_scaled_by_their_maximum(
    tmp_path: Path, suffix: str, dtype: type, channels: int
) -> None:
    pixels = draw_integers(5, 8, channels, dtype=dtype)
    path = tmp_path / f"image{suffix}"
    written = pixels[..., 0] if channels == 1 else pixels
    if suffix == ".npy":
        np.save(path, written)
    else:
        skimage.io.imsave(path, written, check_contrast=False)
    image = images.load(path)
    assert image.dtype == torch.float32
    expected = pixels.transpose(2, 0, 1) / np.iinfo(dtype).max
    # The nearest float32 to a fraction that numpy takes in float64.
    np.testing.assert_array_equal(image.numpy(), expected.astype(np.float32))
    assert (image.min(), image.max()) == (0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_saved_is_loaded_again(tmp_path: Path, channels: int) -> None:
    pixels = draw_integers(6, 9, channels, dtype=np.uint8)
    image = torch.from_numpy(pixels.transpose(2, 0, 1) / np.float32(255))
    path = tmp_path / "image.png"
    images.save(image, path)
    assert torch.equal(images.load(path), image)
    assert np.asarray(Image.open(path)).shape == ((6, 9) if channels == 1 else (6, 9, 3))


def test_saving_rounds_and_cuts(tmp_path: Path) -> None:
    levels = torch.tensor([-3.0, 0.49 / 255, 0.51 / 255, 99.6 / 255, 1.0, 7.0])
    images.save(levels.reshape(1, 2, 3), tmp_path / "image.png")
    loaded = images.load(tmp_path / "image.png") * 255
    assert loaded.round().flatten().tolist() == [0, 0, 1, 100, 255, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_floating_point_files_keep_their_values(tmp_path: Path, suffix: str, dtype: type) -> None:
    pixels = np.random.default_rng(1).random((7, 4, 3)).astype(dtype)
    path = tmp_path / f"image{suffix}"
    if suffix == ".npy":
        np.save(path, pixels)
    else:
        skimage.io.imsave(path, pixels, check_contrast=False)
    expected = pixels.astype(np.float32).transpose(2, 0, 1)
    np.testing.assert_array_equal(images.load(path).numpy(), expected)


@pytest.mark.parametrize(("mode", "kept"), [("LA", 1), ("RGBA", 3)])
def test_alpha_is_dropped(tmp_path: Path, mode: str, kept: int) -> None:
    pixels = draw_integers(5, 8, kept + 1, dtype=np.uint8)
    Image.fromarray(pixels, mode).save(tmp_path / "image.png")
    expected = (pixels[..., :kept].transpose(2, 0, 1) / 255).astype(np.float32)
    np.testing.assert_array_equal(images.load(tmp_path / "image.png").numpy(), expected)


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
    image = images.load(tmp_path / "image.png")
    np.testing.assert_array_equal(image.numpy(), kept.astype(np.float32))


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
        (np.uint16, "assocalpha", 3),
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
    np.testing.assert_array_equal(images.load(path).numpy(), expected)


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


# --- Signals --------------------------------------------------------------------------------


def test_signals(tmp_path: Path) -> None:
    values = np.random.default_rng(0).standard_normal((2, 17))
    path = tmp_path / "signal.npy"
    np.save(path, values)
    loaded = images.load_signal(path)
    assert loaded.dtype == torch.float32
    np.testing.assert_array_equal(loaded.numpy(), values.astype(np.float32))
    np.save(path, values[0])
    np.testing.assert_array_equal(images.load_signal(path).numpy(), values[:1].astype(np.float32))
    integers = draw_integers(9, dtype=np.uint16)
    np.save(path, integers)
    expected = (integers / 65535).astype(np.float32)[None]
    np.testing.assert_array_equal(images.load_signal(path).numpy(), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((2, 3, 4)), r"shape \(2, 3, 4\); a signal has \(length,\) or"),
        (np.ones((0,)), r"shape \(0,\)"),
        (np.ones(()), r"shape \(\)"),
        (np.array([1.0, np.nan]), "holds 1 NaN or infinite"),
        (np.array([1, 2]), "holds int64 values"),
        (np.array([None, 1]), "can't be read as a signal"),
    ],
)
def test_what_is_no_signal(tmp_path: Path, values: np.ndarray, message: str) -> None:
    np.save(tmp_path / "signal.npy", values)
    with pytest.raises(ImageError, match=message):
        images.load_signal(tmp_path / "signal.npy")


def test_signals_are_npy_files(tmp_path: Path) -> None:
    (tmp_path / "signal.txt").write_text("1 2 3")
    for path in (tmp_path / "signal.txt", tmp_path / "missing.npy"):
        with pytest.raises(ImageError, match=r"is no \.npy file: save the signal by numpy"):
            images.load_signal(path)
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ImageError, match="can't be read as a signal"):
        images.load_signal(tmp_path / "text.npy")


# --- Files again ----------------------------------------------------------------------------


def test_black_and_white_and_palette_files(tmp_path: Path) -> None:
    bits = np.random.default_rng(2).random((5, 8)) > 0.4
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(images.load(tmp_path / "bits.png")[0].numpy(), bits)
    colours = np.array([[255, 0, 0], [0, 128, 255]], dtype=np.uint8)
    Image.fromarray(colours[bits.astype(int)]).quantize(2).save(tmp_path / "palette.png")
    expected = colours[bits.astype(int)].transpose(2, 0, 1) / 255
    np.testing.assert_allclose(images.load(tmp_path / "palette.png").numpy(), expected, rtol=1e-6)


def test_masks_are_cut_at_one_half(tmp_path: Path) -> None:
    pixels = draw_integers(6, 9, 3, dtype=np.uint8)
    skimage.io.imsave(tmp_path / "mask.png", pixels, check_contrast=False)
    mask = images.load_mask(tmp_path / "mask.png")
    assert mask.dtype == torch.bool
    np.testing.assert_array_equal(mask.numpy(), pixels.mean(axis=2) > 127.5)
    assert images.load_mask(tmp_path / "mask.png", size=(3, 4)).shape == (3, 4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((2, 3), np.nan), "holds 6 NaN or infinite values"),
        (np.array([[0.5, np.inf]]), "holds 1 NaN or infinite values"),
        (np.array([[0.5, 1.5]]), r"values from 0\.5 to 1\.5; scale them to \[0, 1\]"),
        (np.array([[-0.25, 0.5]]), r"values from -0\.25 to 0\.5"),
        (np.array([[-1, 5]], dtype=np.int16), "values from -"),
        (np.ones(7), r"has shape \(7,\); an image has"),
        (np.ones((0, 4)), r"has shape \(0, 4\)"),
        (np.ones((3, 20, 30)), r"has shape \(3, 20, 30\).*pass channel_axis=0"),
        (np.ones((2, 3, 4, 5)), r"has shape \(2, 3, 4, 5\)"),
        (np.array([[0, 255]]), "holds int64 values, whose white is unknown"),
        (np.ones((2, 3), dtype=np.uint32), "holds uint32 values"),
        (np.ones((2, 3), dtype=complex), "holds complex128 values"),
        (np.array([["a", "b"]]), "holds <U1 values"),
        (np.array([[None, 1]]), "can't be read as an image"),  # only pickle could
    ],
)
def test_arrays_that_are_no_images(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    np.save(tmp_path / "array.npy", pixels)
    with pytest.raises(ImageError, match=message):
        images.load(tmp_path / "array.npy")


def test_files_that_are_no_images(tmp_path: Path) -> None:
    for name in ("text.png", "text.npy", "text.tif"):
        (tmp_path / name).write_text("no image")
        with pytest.raises(ImageError, match=rf"{name} can't be read as an image \("):
            images.load(tmp_path / name)
    with pytest.raises(ImageError, match="is a folder, not an image file"):
        images.load(tmp_path)
    colours = Image.fromarray(draw_integers(5, 8, 3, dtype=np.uint8))
    colours.convert("CMYK").save(tmp_path / "print.jpg")
    with pytest.raises(ImageError, match="CMYK; convert it to RGB"):
        images.load(tmp_path / "print.jpg")


def test_what_can_not_be_saved(tmp_path: Path) -> None:
    for channels in (2, 4, 5):
        with pytest.raises(InvalidInputError, match=rf"1 or 3 channels, got shape \({channels}, 4"):
            images.save(draw_image(channels, 4, 5), tmp_path / "image.png")
    (tmp_path / "file").write_text("")
    for path in (
        *(tmp_path / folder / f"image{s}" for folder in ("no", "file") for s in (".png", ".npy")),
        tmp_path / "missing" / "image.tif",
        tmp_path / "image.unknown",
        tmp_path,
    ):
        with pytest.raises(OutputError, match="can't write image"):
            images.save(draw_image(3, 4, 5), path)


# --- Sizes ----------------------------------------------------------------------------------


def test_resizing_scales_until_covered_then_crops() -> None:
    rng = random.Random(0)
    for seed in range(6):
        shape = (rng.randrange(9, 30), rng.randrange(30, 50))
        size = (rng.randrange(4, 40), rng.randrange(4, 40))
        image = draw_image(2, *shape, seed=seed)
        # By hand: one factor for both axes, and the middle of what it gives.
        factor = max(size[0] / shape[0], size[1] / shape[1])
        height, width = (round(factor * side) for side in shape)
        scaled = skimage.transform.resize(
            image.double().numpy(),
            (2, height, width),
            order=1,
            mode="reflect",
            anti_aliasing=factor < 1,
        )
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        expected = scaled[:, top : top + size[0], left : left + size[1]]
        resized = images.resize(image, size)
        assert resized.shape == (2, *size)
        assert 0 in (height - size[0], width - size[1])
        # Rounded to float32.
        np.testing.assert_allclose(resized.numpy(), expected, rtol=0, atol=1e-7)


def test_resizing_does_not_stretch() -> None:
    # A disc stays a disc: its second moments along both axes stay equal.
    y, x = np.mgrid[:80, :120]
    disc = torch.from_numpy(((y - 39.5) ** 2 + (x - 59.5) ** 2 < 30**2).astype(np.float32))[None]
    small = images.resize(disc, (40, 40))[0].double()
    axis = torch.arange(40, dtype=torch.float64) - 19.5
    along_y = (small.sum(dim=1) * axis**2).sum()
    along_x = (small.sum(dim=0) * axis**2).sum()
    assert along_y == pytest.approx(float(along_x), rel=1e-9)
    # And shrinks by one half: area pi r^2 with r = 15, to the accuracy of its pixels.
    assert float(small.sum()) == pytest.approx(math.pi * 15**2, rel=0.01)


def test_cropping_cuts_the_middle_out() -> None:
    image = draw_image(3, 261, 400)
    # The literature's JPEG example: 261 rows of 400 pixels, its middle of 256x384.
    assert torch.equal(images.crop(image, (256, 384)), image[:, 2:258, 8:392])
    assert torch.equal(images.crop(image, 261), image[:, :, 69:330])
    assert torch.equal(images.crop(image[0], (1, 400)), image[0, 130:131])
    with pytest.raises(InvalidInputError, match=r"can't crop .* 261x400 pixels to 200x401"):
        images.crop(image, (200, 401))
    with pytest.raises(InvalidInputError, match="at least 1x1 pixel, got 0x5"):
        images.crop(image, (0, 5))


def test_a_constant_image_stays_constant() -> None:
    for size in [(3, 5), (17, 4), (50, 61)]:
        resized = images.resize(torch.full((3, 11, 13), 0.3), size)
        torch.testing.assert_close(resized, torch.full((3, *size), 0.3), rtol=0, atol=1e-6)


def test_sizes_of_one_number_are_squares_and_none_keeps_the_size(tmp_path: Path) -> None:
    image = draw_image(3, 9, 14)
    np.save(tmp_path / "image.npy", image.permute(1, 2, 0).numpy())
    assert torch.equal(images.load(tmp_path / "image.npy"), image)
    square = images.load(tmp_path / "image.npy", size=7)
    assert torch.equal(square, images.resize(image, (7, 7)))
    assert images.resize(image, (9, 14)) is image


def test_resizing_keeps_dtype_and_device(device: str) -> None:
    image = draw_image(2, 9, 14).to(device, torch.float64)
    resized = images.resize(image, (5, 6))
    assert (resized.dtype, resized.device.type) == (torch.float64, device)


@pytest.mark.parametrize("size", [0, (0, 4), (4, -1)])
def test_sizes_must_be_positive(size: int | tuple[int, int]) -> None:
    with pytest.raises(InvalidInputError, match="size must be at least 1x1 pixel"):
        images.resize(draw_image(1, 4, 5), size)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", 64), ("48x64", (48, 64)), ("7X5", (7, 5)), ("native", None)],
)
def test_parse_size(text: str, size: int | tuple[int, int] | None) -> None:
    assert images.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3", "4x", "x", "4x0", "2x3x4", "large", "1.5"])
def test_parse_size_refuses(text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'native', got '{text}'"):
        images.parse_size(text)


# --- Names ----------------------------------------------------------------------------------


def test_bundled_images_are_those_of_scikit_image() -> None:
    for name in images.names():
        image = images.load(name)
        assert image.shape[0] in (1, 3)
        assert 0 <= image.min() < image.max() <= 1
    astronaut = skimage.data.astronaut().transpose(2, 0, 1) / 255
    np.testing.assert_allclose(images.load("astronaut").numpy(), astronaut, rtol=1e-6)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """A folder of images named by DIPKERNELS_DATA; its images by their paths."""
    folder = tmp_path / "library"
    monkeypatch.setenv("DIPKERNELS_DATA", str(folder))
    contents = {}
    for i, file in enumerate(
        (
            "denoising/f16.png",
            "denoising/house.png",
            "inpainting/house.png",
            "twice.png",
            "twice.tif",
        )
    ):
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        contents[file] = draw_integers(4 + i, 5, dtype=np.uint8, seed=i)
        skimage.io.imsave(path, contents[file], check_contrast=False)
    (folder / "notes.txt").write_text("no image")
    (folder / "folder.png").mkdir()
    return {k: torch.from_numpy(v / np.float32(255))[None] for k, v in contents.items()}


def test_local_images_by_path_and_stem(library: dict[str, torch.Tensor]) -> None:
    bundled = len(images.names()) - 4
    assert images.names()[bundled:] == [
        "denoising/f16",
        "denoising/house",
        "inpainting/house",
        "twice",
    ]
    for name in ("denoising/f16", "f16", "denoising/f16.png"):
        assert torch.equal(images.load(name), library["denoising/f16.png"])
    assert torch.equal(images.load("inpainting/house"), library["inpainting/house.png"])
    assert torch.equal(images.load("twice.tif"), library["twice.tif"])
    assert images.load("f16", size=(2, 3)).shape == (1, 2, 3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("house", "denoising/house.png, inpainting/house.png"),
        ("twice", "twice.png, twice.tif"),
    ],
)
def test_ambiguous_names(library: dict[str, torch.Tensor], name: str, options: str) -> None:
    with pytest.raises(ImageError, match=f"'{name}' is ambiguous: say which of {options}"):
        images.load(name)


def test_a_file_wins_over_a_name_but_a_folder_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bundled = images.load("moon")
    (tmp_path / "moon").mkdir()
    assert torch.equal(images.load("moon"), bundled)
    images.save(draw_image(3, 4, 5), "page.png")
    (tmp_path / "page.png").rename("page")
    assert images.load("page").shape == (3, 4, 5)


def test_unknown_names_suggest_and_say_where_they_were_sought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ImageError, match=r"did you mean 'astronaut'.*DIPKERNELS_DATA.* is not set"):
        images.load("astronout")
    with pytest.raises(ImageError, match=r"'0123' is neither.*bundled names: astronaut, brick"):
        images.load("0123")
    monkeypatch.setenv("DIPKERNELS_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(ImageError, match=r"DIPKERNELS_DATA is .*nowhere, which is no folder"):
        images.load("f16")
    assert "astronaut" in images.names()


# --- Scores ---------------------------------------------------------------------------------


def test_scores_are_those_of_scikit_image() -> None:
    reference, image = draw_image(3, 11, 17).double(), draw_image(3, 11, 17, seed=1).double()
    a, b = reference.numpy(), image.numpy()
    assert float(images.mse(image, reference)) == pytest.approx(
        skimage.metrics.mean_squared_error(a, b), rel=1e-13
    )
    assert float(images.psnr(image, reference)) == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1), rel=1e-13
    )
    assert images.ssim(image, reference) == pytest.approx(
        skimage.metrics.structural_similarity(
            a.transpose(1, 2, 0), b.transpose(1, 2, 0), data_range=1, channel_axis=2, win_size=7
        ),
        rel=1e-12,
    )


@pytest.mark.parametrize("shape", [(3, 11, 17), (2, 23)])
def test_scores_over_a_region(shape: tuple[int, ...]) -> None:
    reference, image = draw_image(*shape).double(), draw_image(*shape, seed=1).double()
    mask = draw_image(*shape[1:], seed=2) > 0.6
    channelwise = draw_image(*shape, seed=3) > 0.6
    a, b = reference.numpy(), image.numpy()
    _, full = skimage.metrics.structural_similarity(a, b, data_range=1, channel_axis=0, full=True)
    inner = np.zeros(shape, dtype=bool)
    inner[(slice(None), *[slice(3, -3)] * (len(shape) - 1))] = True
    for where in (mask, channelwise):
        region = np.broadcast_to(where.numpy(), shape)
        expected = np.mean((a - b)[region] ** 2)
        assert float(images.mse(image, reference, where)) == pytest.approx(expected, rel=1e-13)
        decibels = -10 * math.log10(expected)
        assert float(images.psnr(image, reference, where)) == pytest.approx(decibels, rel=1e-13)
        similarity = full[region & inner].mean()
        assert float(images.ssim(image, reference, where)) == pytest.approx(similarity, rel=1e-12)
    everywhere = torch.ones(shape[1:], dtype=torch.bool)
    assert images.ssim(image, reference, everywhere) == images.ssim(image, reference)


def test_ssim_of_signals_is_that_of_scikit_image() -> None:
    reference, image = draw_image(2, 23).double(), draw_image(2, 23, seed=1).double()
    expected = [
        skimage.metrics.structural_similarity(x.numpy(), y.numpy(), data_range=1)
        for x, y in zip(image, reference, strict=True)
    ]
    assert float(images.ssim(image, reference)) == pytest.approx(np.mean(expected), rel=1e-12)


def test_regions_of_scores_must_fit_and_not_be_empty() -> None:
    image = draw_image(3, 9, 8)
    for score in (images.mse, images.psnr, images.ssim):
        with pytest.raises(ImageError, match=r"mask has shape \(8, 9\), the image \(3, 9, 8\)"):
            score(image, image, torch.ones(8, 9, dtype=torch.bool))
        with pytest.raises(ImageError, match="the mask is empty"):
            score(image, image, torch.zeros(9, 8, dtype=torch.bool))
    border = torch.ones(9, 8, dtype=torch.bool)
    border[3:6, 3:5] = False
    with pytest.raises(ImageError, match="no pixel at least 3 pixels away from the border"):
        images.ssim(image, image, border)
    unchecked = images.mse.__wrapped__  # past the checks of types
    with pytest.raises(ImageError, match=r"must be boolean, got torch\.float32"):
        unchecked(image, image, torch.ones(9, 8))


def test_luma_is_that_of_scikit_image() -> None:
    image = draw_image(2, 3, 5, 8).double()
    expected = skimage.color.rgb2ycbcr(image.numpy(), channel_axis=1)[:, :1] / 255
    # scikit-image rounds its weights to three decimals of 255.
    np.testing.assert_allclose(images.luma(image).numpy(), expected, rtol=0, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"expected \(\.\.\., 3, height, width\), got"):
        images.luma(image[:, :2])


def test_scores_of_a_batch_are_those_of_its_images() -> None:
    reference, batch = draw_image(3, 5, 8).double(), draw_image(2, 4, 3, 5, 8, seed=1).double()
    reference, batch = reference.repeat(1, 2, 1), batch.repeat(1, 1, 1, 2, 1)
    for score in (images.mse, images.psnr, images.ssim):
        together = score(batch, reference)
        assert together.shape == (2, 4)
        assert float(together[1, 2]) == pytest.approx(float(score(batch[1, 2], reference)))


def test_scores_of_equal_images() -> None:
    image = draw_image(3, 9, 8)
    assert images.mse(image, image) == 0
    assert images.psnr(image, image) == math.inf
    assert images.ssim(image, image) == 1
    errors = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    torch.testing.assert_close(
        mse_to_psnr(errors), torch.tensor([0.0, 10.0, 20.0], dtype=torch.float64)
    )


def test_scores_need_one_shape() -> None:
    image, grey = draw_image(3, 9, 8), draw_image(1, 9, 8)
    for score in (images.mse, images.ssim):
        unchecked = score.__wrapped__  # past the checks of shapes
        with pytest.raises(InvalidInputError, match=r"\(3, 9, 8\) can't be .*\(1, 9, 8\)"):
            unchecked(image, grey)
    with pytest.raises(InvalidInputError, match=r"at least 7x7 pixels, got \(9, 6\)"):
        images.ssim(draw_image(3, 9, 6), draw_image(3, 9, 6))


def test_image_errors_are_value_errors_of_the_package() -> None:
    assert issubclass(ImageError, DipkernelsError)
    assert issubclass(ImageError, ValueError)
