"""White, transparency, holes and masks: what a file says of them, or what is said of a file.

Every file is written here, by another library than the one that reads it or by hand, from pixels
that are known.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, TiffImagePlugin

from dipkernels import images
from dipkernels.errors import ImageError, InvalidInputError, MemoryLimitError, UnitWarning
from helpers.image_files import COLOURS, DEEP, RNG, expected


def test_premultiplied_alpha_is_divided_out(tmp_path: Path) -> None:
    straight = np.array([[[200, 100, 50], [8, 4, 2], [255, 255, 255]]], np.uint8)
    alpha = np.array([[128, 255, 0]], np.uint8)
    stored = np.round(straight * (alpha[..., None] / 255)).astype(np.uint8)
    path = tmp_path / "image.tif"
    tifffile.imwrite(
        path, np.dstack([stored, alpha]), photometric="rgb", extrasamples=["assocalpha"]
    )
    file = images.read(path)
    wanted = np.where(alpha[..., None] > 0, straight, 0)
    # Premultiplied values are rounded to 8 bits, which alpha of one half doubles.
    np.testing.assert_allclose(file.image.numpy(), expected(wanted, 255), atol=1.01 / 255)
    assert file.known.tolist() == [[True, True, False]]


def chunk(kind: bytes, body: bytes) -> bytes:
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_colour_that_means_transparent(tmp_path: Path, channels: int, deep: bool) -> None:
    values = (DEEP if deep else COLOURS)[..., :channels]
    key = [int(x) for x in values[2, 3]]
    rows = values.astype(">u2" if deep else np.uint8).tobytes()
    stride = len(rows) // 10
    raw = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(10))
    header = struct.pack(">IIBBBBB", 7, 10, 16 if deep else 8, 0 if channels == 1 else 2, 0, 0, 0)
    path = tmp_path / "image.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        + chunk(b"tRNS", struct.pack(f">{channels}H", *key))
        + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )  # fmt: skip
    file = images.read(path)
    np.testing.assert_array_equal(file.image.numpy(), expected(values, 65535 if deep else 255))
    np.testing.assert_array_equal(file.known.numpy(), (values != np.array(key)).any(axis=-1))


def test_palettes_with_a_transparent_entry(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOURS).quantize(4)
    picture.save(tmp_path / "image.gif", transparency=1)
    file = images.read(tmp_path / "image.gif")
    hidden = np.asarray(picture) == 1
    assert 0 < hidden.mean() < 1
    np.testing.assert_array_equal(file.known.numpy(), ~hidden)


def test_opaque_files_say_nothing_of_alpha(tmp_path: Path) -> None:
    Image.fromarray(np.dstack([COLOURS, np.full((10, 7), 255, np.uint8)])).save(tmp_path / "i.png")
    file = images.read(tmp_path / "i.png")
    assert file.alpha is None
    assert file.known.all()


def test_white_is_that_of_the_file_or_said(tmp_path: Path) -> None:
    camera = DEEP[..., 0] >> 4
    path = tmp_path / "camera.tif"
    tifffile.imwrite(path, camera)
    with pytest.warns(UnitWarning, match=r"4095 of 65535, .* 12 bits .*white=4095"):
        assert images.load(path).max() < 0.07
    file = images.read(path, white=4095)
    np.testing.assert_array_equal(file.image.numpy(), expected(camera, 4095))
    assert (file.white, file.bits) == (4095, 16)
    assert images.read(path, white=65535).white == 65535  # without a warning
    np.save(tmp_path / "bytes.npy", COLOURS.astype(np.float32))
    with pytest.raises(ImageError, match=r"from 0 to 255; .* pass white=255"):
        images.load(tmp_path / "bytes.npy")
    np.save(tmp_path / "whole.npy", COLOURS.astype(int))
    for name in ("bytes.npy", "whole.npy"):
        loaded = images.load(tmp_path / name, white=255)
        np.testing.assert_array_equal(loaded.numpy(), expected(COLOURS, 255))
    with pytest.raises(ImageError, match="the white that is said: choose a higher one"):
        images.load(tmp_path / "bytes.npy", white=200)
    np.save(tmp_path / "bright.npy", np.array([[0.2, 1.5]]))
    with pytest.raises(ImageError, match=r"to 1.5; .* or say which number is white"):
        images.load(tmp_path / "bright.npy")
    for white in (0, -1, np.nan, np.inf):
        with pytest.raises(InvalidInputError, match="white must be"):
            images.load(path, white=white)


def test_rounding_beyond_white_is_cut_and_other_ranges_are_asked_for(tmp_path: Path) -> None:
    values = np.array([[-1e-7, 0.5], [1.0000001, 1]])
    np.save(tmp_path / "image.npy", values)
    loaded = images.load(tmp_path / "image.npy")
    assert (loaded.min(), loaded.max()) == (0, 1)
    values[0, 0] = -3
    np.save(tmp_path / "signed.npy", values)
    with pytest.raises(ImageError, match="values from -3 to "):
        images.load(tmp_path / "signed.npy")
    assert images.load(tmp_path / "signed.npy", any_range=True).min() == -3


def test_holes_of_a_file_are_its_nan(tmp_path: Path) -> None:
    values = RNG.random((6, 5, 3)).astype(np.float32)
    values[1, 2, 0] = np.nan
    tifffile.imwrite(tmp_path / "image.tif", values, photometric="rgb")
    with pytest.raises(ImageError, match=r"holds 1 NaN or infinite values; .* mask"):
        images.load(tmp_path / "image.tif")
    file = images.read(tmp_path / "image.tif", any_range=True)
    assert (~file.known).nonzero().tolist() == [[1, 2]]


MASK = np.zeros((6, 9), bool)
MASK[1:4, 2:8] = True
MASKS = {
    "bool.npy": MASK,
    "zero-one.npy": MASK.astype(np.uint8),
    "int64.npy": MASK.astype(int),
    "float.npy": MASK.astype(float),
    "float255.npy": 255.0 * MASK,
    "leading.npy": MASK[None],
    "deep.npy": MASK.astype(np.uint16),
    "int16.npy": MASK.astype(np.int16),
    "seven.npy": 7 * MASK.astype(np.uint8),
}


@pytest.mark.parametrize("name", MASKS)
def test_masks_of_two_values_are_what_they_are(tmp_path: Path, name: str) -> None:
    np.save(tmp_path / name, MASKS[name])
    np.testing.assert_array_equal(images.load_mask(tmp_path / name).numpy(), MASK)
    opposite = images.load_mask(tmp_path / name, hides="white")
    np.testing.assert_array_equal(opposite.numpy(), ~MASK)


def test_masks_of_bool_and_of_ones_in_image_files(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "numpy.tif", MASK)
    Image.fromarray(MASK).save(tmp_path / "pillow.tif")
    Image.fromarray(MASK).save(tmp_path / "pillow.png")
    Image.fromarray(MASK.astype(np.uint8)).save(tmp_path / "ones.png")
    tifffile.imwrite(tmp_path / "ones.tif", MASK.astype(np.uint8))
    for name in ("numpy.tif", "pillow.tif", "pillow.png", "ones.png", "ones.tif"):
        np.testing.assert_array_equal(images.load_mask(tmp_path / name).numpy(), MASK)
    # A fax: one bit, 0 is white.
    tifffile.imwrite(tmp_path / "fax.tif", MASK, photometric="miniswhite", software="scanner")
    np.testing.assert_array_equal(images.load_mask(tmp_path / "fax.tif").numpy(), ~MASK)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "fax.tif")), ~MASK)


def test_transparent_masks(tmp_path: Path) -> None:
    alpha = np.where(MASK, 255, 0).astype(np.uint8)
    for colour in (0, 255):
        rgba = np.dstack([np.full((*MASK.shape, 3), colour, np.uint8), alpha])
        Image.fromarray(rgba).save(tmp_path / "mask.png")
        np.testing.assert_array_equal(images.load_mask(tmp_path / "mask.png").numpy(), MASK)
        opaque = images.load_mask(tmp_path / "mask.png", hides="opaque")
        np.testing.assert_array_equal(opaque.numpy(), ~MASK)
        assert images.load_mask(tmp_path / "mask.png", hides="black").all() == (colour == 255)
    Image.fromarray(alpha).save(tmp_path / "mask.png")
    with pytest.raises(ImageError, match="has no transparent pixels"):
        images.load_mask(tmp_path / "mask.png", hides="transparent")
    with pytest.raises(InvalidInputError, match="hides one of black, white"):
        images.load_mask(tmp_path / "mask.png", hides="grey")


def test_a_mask_of_nan_is_no_mask(tmp_path: Path) -> None:
    np.save(tmp_path / "mask.npy", np.array([[np.nan, 1.0]]))
    with pytest.raises(ImageError, match="say what they are by 0 and 1"):
        images.load_mask(tmp_path / "mask.npy")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_bombs_are_refused_before_they_are_decoded(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"bomb{suffix}"
    flat = np.zeros((400, 500), np.uint8)
    if suffix == ".npy":
        np.save(path, flat)
    elif suffix == ".tif":
        tifffile.imwrite(path, flat, compression="zlib")
    else:
        Image.fromarray(flat).save(path)
    monkeypatch.setattr("dipkernels.base.memory.free_bytes", lambda: 10**6)
    with pytest.raises(MemoryLimitError, match=r"400x500.* needs about 3 MB .* 1 MB are free"):
        images.load(path)


def test_profiles_are_kept_and_not_applied(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(COLOURS).save(tmp_path / "image.png", icc_profile=profile)
    file = images.read(tmp_path / "image.png")
    np.testing.assert_array_equal(file.image.numpy(), expected(COLOURS, 255))
    assert file.profile == profile
    for name in ("copy.png", "copy.tif"):
        images.save(file.image, tmp_path / name, profile=profile)
        again = images.read(tmp_path / name)
        assert again.profile == profile
        assert torch.equal(again.image, file.image)


@pytest.mark.parametrize("white", [4095, 65535])
def test_what_is_written_has_the_depth_and_white_of_what_was_read(
    tmp_path: Path, white: int
) -> None:
    camera = (DEEP.astype(int) * white // 65535).astype(np.uint16)
    tifffile.imwrite(tmp_path / "camera.tif", camera, photometric="rgb")
    file = images.read(tmp_path / "camera.tif", white=white)
    images.save(file.image, tmp_path / "out.tif", bits=file.bits, white=file.white)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), camera)
    with pytest.raises(InvalidInputError, match="white must be positive and below 256 in 8 bits"):
        images.save(file.image, tmp_path / "out.png", white=file.white)


def test_cameras_of_fewer_bits_are_asked_for_in_signed_files_too(tmp_path: Path) -> None:
    camera = (DEEP[..., 0] >> 4).astype(np.int16)
    np.save(tmp_path / "camera.npy", camera)
    with pytest.warns(UnitWarning, match=r"is 4095 of 32767, .* 12 bits .*white=4095"):
        images.load(tmp_path / "camera.npy")
    file = images.read(tmp_path / "camera.npy", white=4095)
    np.testing.assert_array_equal(file.image.numpy(), expected(camera, 4095))


@pytest.mark.parametrize(("bits", "white"), [(10, 1023), (12, 4095), (16, 65535)])
def test_bits_that_an_ome_file_calls_significant_are_its_white(
    tmp_path: Path, bits: int, white: int
) -> None:
    values = DEEP[..., 0] >> (16 - bits)
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, values, metadata={"axes": "YX", "SignificantBits": bits})
    with tifffile.TiffFile(path) as written:
        assert f'SignificantBits="{bits}"' in str(written.ome_metadata)
    file = images.read(path)
    np.testing.assert_array_equal(file.image.numpy(), expected(values, white))
    assert (file.white, file.bits) == (white, 16)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize(("dtype", "missing", "text"), [
    (np.float32, -9999, "-9999"), (np.float32, np.nan, "nan"), (np.int16, -9999, "-9999"),
    (np.uint8, 0, "0"), (np.float32, np.finfo(np.float32).min, "-3.4028234663852886e+38"),
])  # fmt: skip
def test_values_that_gdal_calls_missing_are_holes(
    tmp_path: Path, dtype: type, missing: float, text: str, compression: str | None
) -> None:
    values = (RNG.random((6, 7)) * (0.9 if dtype is np.float32 else 100) + 0.01).astype(dtype)
    values = np.maximum(values, 1) if dtype is not np.float32 else values
    hole = RNG.random((6, 7)) > 0.6
    stored = np.where(hole, np.asarray(missing, dtype), values)
    path = tmp_path / "land.tif"
    if compression is None:
        tag = (42113, "s", 0, text, True)
        tifffile.imwrite(path, stored, photometric="minisblack", extratags=[tag])
    else:  # by Pillow, for want of another package
        if dtype is np.int16:
            pytest.skip("Pillow writes no signed integers")
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[42113] = text
        Image.fromarray(stored).save(path, compression=compression, tiffinfo=tags)
    file = images.read(path, white=None if dtype is np.float32 else 255)
    np.testing.assert_array_equal(file.known.numpy(), ~hole)
    white = 1 if dtype is np.float32 else 255
    np.testing.assert_array_equal(file.image.numpy(), expected(np.where(hole, 0, values), white))


def test_no_white_is_zero_in_floating_point(tmp_path: Path) -> None:
    values = RNG.random((4, 5), dtype=np.float32)
    tifffile.imwrite(tmp_path / "image.tif", values, photometric="miniswhite")
    with pytest.raises(ImageError, match=r"its white is 0, .* float32: save it with black"):
        images.load(tmp_path / "image.tif")


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_as_zero_is_inverted_whatever_reads_it(
    tmp_path: Path, dtype: type, compression: str
) -> None:
    values = (DEEP if dtype is np.uint16 else COLOURS)[..., 0]
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    path = tmp_path / "image.tif"
    Image.fromarray(values).save(path, compression=compression, tiffinfo=tags)
    white_is_zero(path)
    top = np.iinfo(dtype).max
    np.testing.assert_array_equal(images.load(path).numpy(), expected(top - values, top))


def white_is_zero(path: Path) -> None:
    """Change the tag of a written file, as no library writes it for compressed 16 bits."""
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages.first.tags[262].overwrite(0)
