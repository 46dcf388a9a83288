"""What a file says of itself is honoured, or refused in one sentence: kind by kind, by its content.

Every file is written here, by another library than the one that reads it or by hand, from pixels
that are known.
"""

import io
import struct
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms, ImageOps

from dipkernels import images
from dipkernels.errors import ImageError, InvalidInputError, MemoryLimitError, UnitWarning
from dipkernels.images import pixels as meaning
from dipkernels.images.pillow_files import read_by_pillow

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (10, 7, 3), dtype=np.uint8)
COLOURS[0, 0] = 255
DEEP = RNG.integers(0, 65536, (10, 7, 3), dtype=np.uint16)
DEEP[0, 0] = 65535  # no camera of fewer bits
ORIENTATION = 0x0112


def expected(values: np.ndarray, white: float) -> np.ndarray:
    return (np.atleast_3d(values).transpose(2, 0, 1) / white).astype(np.float32)


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


PICTURES = [Image.fromarray(np.full((8, 9, 3), level, np.uint8)) for level in (10, 200)]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WebP", "AVIF"])
def test_animations_are_refused_and_single_frames_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image.png"
    options = {"lossless": True} if kind == "WebP" else {}
    first, *more = PICTURES
    first.save(path, format=kind, save_all=True, append_images=more, **options)
    with pytest.raises(ImageError, match="it holds 2 frames, an animation"):
        images.load(path)
    first.save(path, format=kind, **options)
    loaded = images.load(path)
    np.testing.assert_allclose(loaded.mean().item(), 10 / 255, atol=3 / 255)


def test_photographs_with_a_preview_are_read(tmp_path: Path) -> None:
    first, second = PICTURES
    first.save(tmp_path / "phone.jpg", format="MPO", save_all=True, append_images=[second])
    assert images.load(tmp_path / "phone.jpg").mean().item() == pytest.approx(10 / 255, abs=2 / 255)


STACK = RNG.integers(0, 256, (5, 8, 9), dtype=np.uint8)
AXES = {
    "ImageJ TYX": (STACK, {"imagej": True, "metadata": {"axes": "TYX"}}, "T 5, .*time"),
    "pages": (STACK, {"photometric": "minisblack", "metadata": None}, "I 5, .*pages"),
    "tifffile": (STACK, {"photometric": "minisblack"}, "can't be told which axis"),
    "OME TZYX": (
        STACK[None].repeat(2, 0),
        {"ome": True, "metadata": {"axes": "TZYX"}},
        "at most one axis of channels",
    ),
    "colours": (STACK[..., None].repeat(3, -1), {"photometric": "rgb"}, r"--volume\) to take"),
}  # fmt: skip


@pytest.mark.parametrize("case", AXES)
def test_stacks_are_refused_by_the_names_of_their_axes(tmp_path: Path, case: str) -> None:
    values, options, words = AXES[case]
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, values, **options)
    with pytest.raises(ImageError, match=words):
        images.load(path)
    if values.ndim == 3:
        taken = images.load(path, channel_axis=0).numpy()
        np.testing.assert_array_equal(taken, (values / 255).astype(np.float32))


@pytest.mark.parametrize("form", ["imagej", "ome"])
@pytest.mark.parametrize(("axes", "shape"), [("CYX", (5, 8, 9)), ("TCZYX", (1, 5, 1, 8, 9))])
def test_channels_that_are_named_are_channels(
    tmp_path: Path, form: str, axes: str, shape: tuple[int, ...]
) -> None:
    axes = "TZCYX" if form == "imagej" and axes == "TCZYX" else axes
    shape = (1, 1, 5, 8, 9) if axes == "TZCYX" else shape
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, STACK.reshape(shape), **{form: True}, metadata={"axes": axes})
    np.testing.assert_array_equal(images.load(path).numpy(), (STACK / 255).astype(np.float32))
    with pytest.raises(ImageError, match="channel_axis has no effect"):
        images.load(path, channel_axis=0)


def test_files_of_several_images_are_refused_but_for_thumbnails(tmp_path: Path) -> None:
    path = tmp_path / "several.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(COLOURS, photometric="rgb", metadata=None)
        file.write(COLOURS[:9, :6], photometric="rgb", metadata=None, subfiletype=1)
    np.testing.assert_array_equal(images.load(path).numpy(), expected(COLOURS, 255))
    with tifffile.TiffWriter(path) as file:
        file.write(COLOURS, photometric="rgb", metadata=None)
        file.write(COLOURS[:9, :6], photometric="rgb", metadata=None)
    with pytest.raises(ImageError, match=r"it holds 2 images \(10x7x3, 9x6x3\)"):
        images.load(path)


@pytest.mark.parametrize("shape", [(8, 8, 8), (9, 6, 6), (6, 6, 9), (5, 8, 9), (8, 5, 9)])
def test_cubes_do_not_say_where_their_channels_are(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "cube.npy", RNG.random(shape))
    with pytest.raises(ImageError, match="can't be told which axis"):
        images.load(tmp_path / "cube.npy")
    assert images.load(tmp_path / "cube.npy", channel_axis=0).shape == shape


def test_one_leading_axis_of_one_is_no_row(tmp_path: Path) -> None:
    np.save(tmp_path / "grey.npy", RNG.random((1, 8, 9)))
    assert images.load(tmp_path / "grey.npy").shape == (1, 8, 9)


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


def test_orientations_of_arrays_are_those_of_pillow() -> None:
    for orientation, turn in meaning.UPRIGHT.items():
        np.testing.assert_array_equal(turn(COLOURS), upright(COLOURS, orientation))
