"""What a file says of itself is honoured, or refused in one sentence: kind by kind, by its content.

Every file is written here, by another library than the one that reads it or by hand, from pixels
that are known.
"""

import io
import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, ImageOps

from dipkernels import images
from dipkernels.errors import ImageError
from dipkernels.images import pixels as meaning
from dipkernels.images.pillow_files import read_by_pillow
from helpers.image_files import COLOURS, DEEP, RNG, expected

ORIENTATION = 0x0112


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """Pillow's own transposition, as an oracle."""
    picture = Image.fromarray(stored)
    picture.getexif()[ORIENTATION] = orientation
    return np.asarray(ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg", ".jfif"])
def test_images_are_turned_as_viewers_turn_them(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    path = tmp_path / f"image{suffix}"
    # Flat in blocks of 8, which JPEG keeps to within its rounding of colours.
    stored = np.kron(COLOURS[:3, :2], np.ones((8, 8, 1), np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    if suffix == ".tif":
        tag = (ORIENTATION, "H", 1, orientation, True)
        tifffile.imwrite(path, stored, photometric="rgb", extratags=[tag])
    else:
        kind = {".png": "PNG", ".webp": "WebP"}.get(suffix, "JPEG")
        options = {"lossless": True} if kind == "WebP" else {}
        options |= {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
        Image.fromarray(stored).save(path, format=kind, exif=exif, **options)
    loaded = images.load(path).numpy()
    wanted = expected(upright(stored, orientation), 255)
    assert loaded.shape == wanted.shape
    tolerance = 3 / 255 if suffix in (".jpg", ".jfif") else 1e-7
    np.testing.assert_allclose(loaded, wanted, atol=tolerance)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_compressed_tiffs_are_turned_once(tmp_path: Path, compression: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "image.tif"
    Image.fromarray(COLOURS).save(path, exif=exif, compression=compression)
    np.testing.assert_array_equal(images.load(path), expected(upright(COLOURS, 6), 255))


def test_masks_alpha_and_deep_pngs_are_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    half = np.zeros((4, 6), np.uint8)
    half[:, :3] = 255
    Image.fromarray(half).save(tmp_path / "mask.png", exif=exif)
    known = images.load_mask(tmp_path / "mask.png")
    np.testing.assert_array_equal(known.numpy(), upright(half, 6) > 0)
    rgba = np.dstack([COLOURS[:4, :6], half])
    Image.fromarray(rgba).save(tmp_path / "hole.png", exif=exif)
    np.testing.assert_array_equal(images.read(tmp_path / "hole.png").known.numpy(), known.numpy())
    Image.fromarray(DEEP[..., 0]).save(tmp_path / "deep.png", exif=exif)
    turned = DEEP[::-1, :, 0].T
    np.testing.assert_array_equal(images.load(tmp_path / "deep.png"), expected(turned, 65535))


# By any suffix: what counts is how a file begins.
@pytest.mark.parametrize("suffix", [".jpe", ".jfif", ".png", ".tif", ".x"])
def test_cmyk_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"print{suffix}"
    Image.fromarray(COLOURS).convert("CMYK").save(path, format="JPEG")
    with pytest.raises(ImageError, match="its colours are CMYK; convert it to RGB"):
        images.load(path)


def lab() -> Image.Image:
    to_lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    return ImageCms.profileToProfile(Image.fromarray(COLOURS), *to_lab, outputMode="LAB")


@pytest.mark.parametrize(
    ("mode", "named"), [("LAB", r"L\*a\*b\*"), ("YCbCr", "YCbCr"), ("CMYK", "CMYK")]
)
def test_colour_models_of_tiffs_are_refused_by_name(tmp_path: Path, mode: str, named: str) -> None:
    picture = lab() if mode == "LAB" else Image.fromarray(COLOURS).convert(mode)
    for name in ("image.tif", "image.png"):
        picture.save(tmp_path / name, format="TIFF")
        with pytest.raises(ImageError, match=f"its colours are {named}"):
            images.load(tmp_path / name)


def test_mosaics_of_cameras_are_refused_by_name(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.dng", DEEP[..., 0], photometric="cfa")
    with pytest.raises(ImageError, match="its colours are CFA"):
        images.load(tmp_path / "raw.dng")


@pytest.mark.parametrize("compression", ["tiff_lzw", "jpeg", "tiff_deflate", "packbits", "group4"])
def test_compressed_tiffs(tmp_path: Path, compression: str) -> None:
    bits = COLOURS[..., 0] > 127
    stored = bits if compression == "group4" else np.full((16, 24, 3), (250, 20, 60), np.uint8)
    Image.fromarray(stored).save(tmp_path / "image.tif", compression=compression)
    loaded = images.load(tmp_path / "image.tif")
    tolerance = 4 / 255 if compression == "jpeg" else 1e-7
    white = 1 if compression == "group4" else 255
    np.testing.assert_allclose(loaded.numpy(), expected(stored, white), atol=tolerance)


def packed_tiff(values: np.ndarray, bits: int) -> bytes:
    """Grey of few bits, packed row by row, from the standard alone."""
    height, width = values.shape
    rows = b""
    for row in values:
        text = "".join(f"{value:0{bits}b}" for value in row)
        text += "0" * (-len(text) % 8)
        rows += int(text, 2).to_bytes(len(text) // 8, "big")
    rows += b"\0" * (len(rows) % 2)
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height}
    tags[279] = len(rows)
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, n, 0) for tag, n in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(rows))
    return head + rows + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


@pytest.mark.parametrize(("bits", "white"), [(1, 1), (2, 255), (4, 255), (12, 4095)])
def test_packed_tiffs(tmp_path: Path, bits: int, white: int) -> None:
    values = RNG.integers(0, 2**bits, (4, 6))
    (tmp_path / "image.tif").write_bytes(packed_tiff(values, bits))
    file = images.read(tmp_path / "image.tif")
    np.testing.assert_allclose(file.image.numpy(), expected(values, 2**bits - 1), atol=1e-7)
    assert file.white in (white, 2**bits - 1)  # Pillow scales what imagecodecs, if there, doesn't


@pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="imagecodecs is there")
def test_what_needs_another_package_is_named(tmp_path: Path) -> None:
    values = RNG.integers(0, 2**10, (4, 6))
    (tmp_path / "image.tif").write_bytes(packed_tiff(values, 10))
    with pytest.raises(
        ImageError, match=r"packed \(NONE, 10 bits\): install the package imagecodecs"
    ):
        images.load(tmp_path / "image.tif")
    pages = [Image.fromarray(COLOURS)] * 2
    pages[0].save(
        tmp_path / "pages.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw"
    )
    with pytest.raises(ImageError, match=r"2 pages are compressed \(LZW, .* imagecodecs"):
        images.load(tmp_path / "pages.tif")


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("suffix", [".tif", ".png", ".bin"])
def test_deep_tiffs_keep_their_low_bytes_under_any_suffix(
    tmp_path: Path, suffix: str, order: str
) -> None:
    path = tmp_path / f"image{suffix}"
    tifffile.imwrite(path, DEEP, photometric="rgb", byteorder=order)
    np.testing.assert_array_equal(images.load(path).numpy(), expected(DEEP, 65535))


# Pillow serves for compressions that tifffile leaves to another package.
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [3, 4])
def test_deep_tiffs_by_pillow(
    tmp_path: Path, channels: int, compression: str | None, order: str
) -> None:
    path = tmp_path / "image.tif"
    values = np.dstack([DEEP, np.full((10, 7), 65535, np.uint16)])[..., :channels]
    extra = ["unassalpha"] * (channels - 3) or None
    tifffile.imwrite(
        path,
        values,
        photometric="rgb",
        byteorder=order,
        compression=compression,
        extrasamples=extra,
    )
    np.testing.assert_array_equal(read_by_pillow(path).values, DEEP)


@pytest.mark.parametrize("white", [1023, 4095, 65535])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_deep_netpbm_files(tmp_path: Path, channels: int, plain: bool, white: int) -> None:
    values = (DEEP[..., :channels].astype(int) * white // 65535).astype(np.uint16)
    magic = {(1, False): "P5", (3, False): "P6", (1, True): "P2", (3, True): "P3"}[channels, plain]
    text = " ".join(map(str, values.ravel())).replace(" ", " # a remark\n", 1)
    body = text.encode() if plain else values.astype(">u2").tobytes()
    path = tmp_path / "image.ppm"
    path.write_bytes(f"{magic}\n# made by hand\n7 10\n{white}\n".encode() + body)
    file = images.read(path)
    np.testing.assert_array_equal(file.image.numpy(), expected(values, white))
    assert (file.bits, file.white) == (16, white)
    path.write_bytes(f"{magic}\n7 10\n{white}\n".encode() + body[: len(body) // 2])
    with pytest.raises(ImageError, match=r"it has \d+ of \d+ numbers"):
        images.load(path)


@pytest.mark.parametrize("bits", [12, 16])
def test_deep_jpeg_2000_is_read_in_grey_and_refused_in_colours(tmp_path: Path, bits: int) -> None:
    grey = DEEP[..., 0] >> (16 - bits)
    path = tmp_path / "image.jp2"
    Image.fromarray(DEEP[..., 0]).save(path, irreversible=False)
    if bits == 16:
        np.testing.assert_array_equal(images.load(path).numpy(), expected(grey, 65535))
    data = bytearray()
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, format="JPEG2000", irreversible=False)
    data = bytearray(file.getvalue())
    at = data.index(b"\xff\x4f\xff\x51") + 42
    for channel in range(3):  # the precision of each, as a deeper file states it
        data[at + 3 * channel] = bits - 1
    path.write_bytes(bytes(data))
    with pytest.raises(ImageError, match=f"it has {bits} bits, of which Pillow reads 8"):
        images.load(path)


def test_deep_avif_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.avif"
    Image.fromarray(COLOURS).save(path)
    assert images.load(path).shape == (3, 10, 7)
    # Pillow writes 8 bits alone: the box that states the bits is changed, the image isn't.
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"pixi\0\0\0\0\x03\x0a\x0a\x0a")
    with pytest.raises(ImageError, match="it has 10 bits"):
        images.load(path)


def palette_tiff(path: Path, *, scale: int) -> None:
    colours = np.zeros((3, 256), np.uint16)
    colours[:, 1], colours[:, 2] = (np.array([[255, 128, 1], [0, 7, 9]]) * scale).astype(np.uint16)
    index = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    tifffile.imwrite(path, index, photometric="palette", colormap=colours)


@pytest.mark.parametrize("scale", [256, 257])
def test_palettes_of_tiffs(tmp_path: Path, scale: int) -> None:
    palette_tiff(tmp_path / "image.tif", scale=scale)
    file = images.read(tmp_path / "image.tif")
    assert file.bits == 8
    assert (file.image[:, 0, 1] * 255).round().tolist() == [255, 128, 1]
    assert (file.image[:, 1, 0] * 255).round().tolist() == [0, 7, 9]


def test_orientations_of_arrays_are_those_of_pillow() -> None:
    for orientation, turn in meaning.UPRIGHT.items():
        np.testing.assert_array_equal(turn(COLOURS), upright(COLOURS, orientation))
