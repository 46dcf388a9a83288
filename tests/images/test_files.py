"""Loading and saving images, masks and signals; files that are none."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import skimage.io
import torch
from PIL import Image

from dipkernels import images
from dipkernels.errors import ImageError, InvalidInputError, OutputError, UnitWarning


def draw_integers(*shape: int, dtype: type, seed: int = 0) -> np.ndarray:
    """Draw pixels of the whole range of an integer type."""
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(seed).integers(0, limits.max, shape, dtype, endpoint=True)
    pixels.flat[:2] = 0, limits.max
    return pixels


def draw_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


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
    share = (pixels[..., kept] <= 127).mean()
    with pytest.warns(UnitWarning, match=f"transparent in {share:.1%} of its pixels, whose colour"):
        loaded = images.load(tmp_path / "image.png")
    np.testing.assert_array_equal(loaded.numpy(), expected)


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
        (np.ones((2, 3, 4, 5, 6)), r"has shape \(2, 3, 4, 5, 6\); an image has"),
        (1.5 * np.ones(7), r"values from 1\.5"),
        (np.ones((0, 4)), r"has shape \(0, 4\)"),
        (np.ones((3, 20, 30)), r"has shape \(3, 20, 30\).*pass channel_axis=0"),
        (np.ones((2, 3, 4, 5)), r"has shape \(2, 3, 4, 5\)"),
        (np.array([[0, 255]]), "holds int64 values, whose white is unknown"),
        (np.ones((2, 3), dtype=np.uint32), "holds uint32 values"),
        (np.full((2, 3), 2j), "values from 0 to 2"),
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
