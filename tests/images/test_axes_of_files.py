"""Axes and several images of a file: honoured by name, or refused in one sentence.

Every file is written here, by another library than the one that reads it, from pixels that are
known.
"""

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from dipkernels import images
from dipkernels.errors import ImageError
from helpers.image_files import COLOURS, RNG, expected

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


@pytest.mark.parametrize(("shape", "axis", "read"), [
    ((1, 24), None, (1, 24)),  # a signal, as tensors of one have it
    ((5, 24), 0, (5, 24)),
    ((24, 24), 0, (24, 24)),
    ((24, 1), None, (1, 24, 1)),
    ((1, 1), None, (1, 1, 1)),
    ((5, 24), None, (1, 5, 24)),
    ((1, 24, 1), None, (1, 1, 24)),
    ((1, 1, 24), None, (1, 1, 24)),
])  # fmt: skip
def test_signals_in_arrays_of_two_axes(
    tmp_path: Path, shape: tuple[int, ...], axis: int | None, read: tuple[int, ...]
) -> None:
    values = RNG.random(shape, dtype=np.float32)
    np.save(tmp_path / "array.npy", values)
    loaded = images.load(tmp_path / "array.npy", channel_axis=axis)
    assert tuple(loaded.shape) == read
    np.testing.assert_array_equal(loaded.numpy().ravel(), values.ravel())
    if len(shape) == 2:
        with pytest.raises(ImageError, match="has no effect"):
            images.load(tmp_path / "array.npy", channel_axis=axis, volume=True)


@pytest.mark.parametrize("shape", [(1, 1, 24), (3, 1, 24), (1, 24, 1), (1, 6, 7), (1, 24)])
def test_arrays_are_read_as_they_were_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    images.save(image, tmp_path / "image.npy")
    torch.testing.assert_close(images.load(tmp_path / "image.npy"), image, rtol=0, atol=0)


def test_masks_of_rows_are_of_signals_too(tmp_path: Path) -> None:
    known = RNG.random((1, 24)) > 0.3
    np.save(tmp_path / "mask.npy", known)
    np.testing.assert_array_equal(images.load_mask(tmp_path / "mask.npy").numpy(), known[0])
