"""Scaling and cropping without stretching; named images."""

import math
import random
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import skimage.io
import skimage.transform
import torch

from dipkernels import images, networks
from dipkernels.errors import ImageError, InvalidInputError, MemoryLimitError


def draw_integers(*shape: int, dtype: type, seed: int = 0) -> np.ndarray:
    """Draw pixels of the whole range of an integer type."""
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(seed).integers(0, limits.max, shape, dtype, endpoint=True)
    pixels.flat[:2] = 0, limits.max
    return pixels


def draw_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


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
    assert along_y == pytest.approx(float(along_x), rel=1e-6)  # pixels of single precision
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
    with pytest.raises(InvalidInputError, match="at least 1 pixel along each axis, got 0x5"):
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
    with pytest.raises(InvalidInputError, match="size must be at least 1 pixel"):
        images.resize(draw_image(1, 4, 5), size)


@pytest.mark.parametrize(
    ("text", "size"),
    [("64", 64), ("48x64", (48, 64)), ("7X5", (7, 5)), ("2x3x4", (2, 3, 4)), ("native", None)],
)
def test_parse_size(text: str, size: int | tuple[int, int] | None) -> None:
    assert images.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3", "4x", "x", "4x0", "2x3x4x5", "large", "1.5"])
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


def test_sizes_beyond_the_memory_are_refused_before_they_are_made() -> None:
    image = torch.rand(1, 4, 4)
    for size in (10_000_000, 999_999_999):
        with pytest.raises(MemoryLimitError, match=rf"scaling to {size}x{size} pixels needs about"):
            images.resize(image, size)


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 4000, "a\0b"])
def test_names_that_can_be_no_path(name: str) -> None:
    with pytest.raises(ImageError, match="no such image") as caught:
        images.load(name)
    assert len(str(caught.value)) < 500


def test_networks_beyond_the_memory_are_refused_before_they_are_made() -> None:
    with pytest.raises(MemoryLimitError, match="an image of 3000000x3000000 needs about 432 TB"):
        networks.create("deep-decoder", image_size=3_000_000)


def test_codes_beyond_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipkernels.base.memory.free_bytes", lambda: 10**5)
    with pytest.raises(MemoryLimitError, match="a code of 32x32x32 needs about 131 kB"):
        networks.create("skip", image_size=32, scales=2)
