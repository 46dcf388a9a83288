"""Signals, volumes and complex images: read, brought to a size, scored and written."""

import inspect
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from dipkernels import images
from dipkernels.errors import ImageError, InvalidInputError

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (5, 8, 9), dtype=np.uint8)
FRACTIONS = (STACK / 255).astype(np.float32)


def drawn(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("form", ["imagej", "ome"])
def test_a_depth_that_a_file_names_makes_a_volume(tmp_path: Path, form: str) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, **{form: True}, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(images.load(path).numpy(), FRACTIONS[None])
    np.testing.assert_array_equal(images.load(path, volume=True).numpy(), FRACTIONS[None])
    np.testing.assert_array_equal(images.load(path, channel_axis=0).numpy(), FRACTIONS)


@pytest.mark.parametrize("axes", ["ZCYX", "ZYXS"])
def test_channels_of_a_volume_come_first(tmp_path: Path, axes: str) -> None:
    pixels = RNG.integers(0, 256, (5, 8, 9, 3), dtype=np.uint8)
    stored = np.moveaxis(pixels, -1, 1) if axes == "ZCYX" else pixels
    tifffile.imwrite(tmp_path / "stack.tif", stored, imagej=True, metadata={"axes": axes})
    loaded = images.load(tmp_path / "stack.tif").numpy()
    np.testing.assert_array_equal(loaded, (np.moveaxis(pixels, -1, 0) / 255).astype(np.float32))


@pytest.mark.parametrize("options", [
    {"imagej": True, "metadata": {"axes": "TYX"}}, {"photometric": "minisblack"},
    {"photometric": "minisblack", "metadata": None},
])  # fmt: skip
def test_a_third_axis_that_is_no_depth_is_one_if_said(
    tmp_path: Path, options: dict[str, object]
) -> None:
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, STACK, **options)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"volume=True .*--channel-axis|--channel-axis.*--volume"):
        images.load(path)
    np.testing.assert_array_equal(images.load(path, volume=True).numpy(), FRACTIONS[None])
    with pytest.raises(ImageError, match="channel_axis has no effect"):
        images.load(path, volume=True, channel_axis=0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_planes_of_a_volume_are_turned_upright_as_one_is(tmp_path: Path, orientation: int) -> None:
    tag = [(274, "H", 1, orientation, False)]
    for name, values in (("stack", STACK), ("plane", STACK[3])):
        tifffile.imwrite(tmp_path / f"{name}.tif", values, photometric="minisblack", extratags=tag)
    stack = images.load(tmp_path / "stack.tif", volume=True)
    assert torch.equal(stack[:, 3], images.load(tmp_path / "plane.tif"))


@pytest.mark.parametrize(("shape", "options", "read"), [
    ((5, 8, 9), {"volume": True}, (1, 5, 8, 9)),
    ((9, 9, 9), {"volume": True}, (1, 9, 9, 9)),
    ((5, 8, 9, 2), {}, (2, 5, 8, 9)),
    ((2, 5, 8, 9), {"channel_axis": 0}, (2, 5, 8, 9)),
    ((5, 8, 9, 31), {"channel_axis": -1}, (31, 5, 8, 9)),
    ((40,), {}, (1, 40)),
])  # fmt: skip
def test_axes_of_arrays(
    tmp_path: Path, shape: tuple[int, ...], options: dict[str, object], read: tuple[int, ...]
) -> None:
    values = RNG.random(shape)
    np.save(tmp_path / "array.npy", values)
    loaded = images.load(tmp_path / "array.npy", **options)  # type: ignore[arg-type]
    assert tuple(loaded.shape) == read
    if read[0] == 1:
        np.testing.assert_allclose(loaded[0].numpy(), values, rtol=1e-6)
    else:
        first = values[..., 1] if options.get("channel_axis") != 0 else values[1]
        np.testing.assert_allclose(loaded[1].numpy(), first, rtol=1e-6)


def test_arrays_whose_axes_cannot_be_told_ask_for_them(tmp_path: Path) -> None:
    np.save(tmp_path / "cube.npy", RNG.random((8, 8, 8)))
    with pytest.raises(ImageError, match=r"--channel-axis 0.* or volume=True \(--volume\)"):
        images.load(tmp_path / "cube.npy")
    np.save(tmp_path / "plane.npy", RNG.random((8, 8)))
    with pytest.raises(ImageError, match="volume has no effect on"):
        images.load(tmp_path / "plane.npy", volume=True)
    with pytest.raises(ImageError, match="volume has no effect on camera"):
        images.load("camera", volume=True)


def test_a_mask_of_a_volume_and_one_with_an_axis_of_one(tmp_path: Path) -> None:
    known = RNG.random((5, 8, 9)) > 0.3
    np.save(tmp_path / "mask.npy", known)
    np.testing.assert_array_equal(images.load_mask(tmp_path / "mask.npy", volume=True), known)
    np.save(tmp_path / "flat.npy", known[:1])
    np.testing.assert_array_equal(images.load_mask(tmp_path / "flat.npy"), known[0])


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("channels", [1, 2, 4, 31])
def test_volumes_are_written_and_read_again(tmp_path: Path, channels: int, bits: int) -> None:
    volume = drawn(channels, 3, 4, 5)
    images.save(volume, tmp_path / "volume.tif", bits=bits)
    file = images.read(tmp_path / "volume.tif")
    assert file.bits == bits
    # Half a step of the integers; float32 is exact.
    bound = {8: 0.501 / 255, 16: 0.501 / 65535, 32: 0.0}[bits]
    torch.testing.assert_close(file.image, volume, rtol=0, atol=bound)
    images.save(volume, tmp_path / "volume.npy")
    axis = None if channels < 5 else -1
    options = {"volume": True} if channels == 1 else {"channel_axis": axis}
    again = images.load(tmp_path / "volume.npy", **options)  # type: ignore[arg-type]
    assert torch.equal(again, volume)
    with pytest.raises(InvalidInputError, match=r"a volume, .* can't be saved as .png"):
        images.save(volume, tmp_path / "volume.png")


def test_signals_are_written_and_read_again(tmp_path: Path) -> None:
    for channels in (1, 3):
        signal = drawn(channels, 11)
        images.save(signal, tmp_path / "signal.npy")
        assert torch.equal(images.load_signal(tmp_path / "signal.npy"), signal)
    with pytest.raises(InvalidInputError, match=r"a signal, .* can't be saved as .tif"):
        images.save(signal, tmp_path / "signal.tif")


def test_resizing_a_volume_keeps_its_proportions() -> None:
    # A linear function of position is what linear interpolation reproduces, up to its borders.
    z, y, x = torch.meshgrid(*(torch.linspace(0, 1, n) for n in (6, 8, 10)), indexing="ij")
    doubled = images.resize((0.2 * z + 0.3 * y + 0.5 * x)[None].double(), (12, 16, 20))
    steps = [doubled[0].diff(dim=axis)[2:-2, 3:-3, 4:-4] for axis in range(3)]
    for step, slope, side in zip(steps, (0.2, 0.3, 0.5), (6, 8, 10), strict=True):
        expected = torch.full_like(step, slope / (side - 1) / 2)
        torch.testing.assert_close(step, expected, rtol=0, atol=1e-6)  # x in float32
    assert images.resize(drawn(2, 6, 8, 10), 5).shape == (2, 5, 5, 5)
    assert images.resize(drawn(1, 40), 20).shape == (1, 20)
    volume = drawn(1, 6, 8, 10)
    assert torch.equal(images.crop(volume, (2, 3, 10)), volume[:, 2:4, 2:5])
    with pytest.raises(InvalidInputError, match="5x5 has 2 numbers, but the image 3 dimensions"):
        images.resize(volume, (5, 5))


def test_complex_images_are_pairs_of_channels(tmp_path: Path) -> None:
    values = torch.complex(drawn(3, 4, 5), drawn(3, 4, 5) - 1)
    pairs = images.from_complex(values)
    assert torch.equal(pairs[0::2], values.real)
    assert torch.equal(pairs[1::2], values.imag)
    assert torch.equal(images.to_complex(pairs), values)
    np.save(tmp_path / "coils.npy", values.movedim(0, -1).numpy())
    assert torch.equal(images.load(tmp_path / "coils.npy", any_range=True), pairs)
    np.save(tmp_path / "one.npy", values[0].numpy())
    assert torch.equal(images.load(tmp_path / "one.npy", any_range=True), pairs[:2])
    np.save(tmp_path / "echo.npy", values[:, 0].numpy())
    assert torch.equal(images.load_signal(tmp_path / "echo.npy"), pairs[:, 0])
    # Half of the mean squared modulus: the docstring's promise.
    other = values + (0.1 + 0.2j)
    error = images.mse(images.from_complex(other), pairs)
    assert float(error) == pytest.approx(float((other - values).abs().square().mean()) / 2)
    for function, wrong in ((images.from_complex, pairs), (images.to_complex, pairs[:3])):
        with pytest.raises(InvalidInputError, match=r"expected a .*complex"):
            inspect.unwrap(function)(wrong)  # past the checks of shapes


@pytest.mark.parametrize("shape", [(1, 9), (2, 8, 9), (1, 8, 7, 9)])
def test_scores_of_any_dimension(shape: tuple[int, ...]) -> None:
    image, reference = drawn(*shape), drawn(*shape).flip(-1)
    expected = float(((image - reference) ** 2).mean())
    assert float(images.mse(image, reference)) == pytest.approx(expected, rel=1e-5)
    assert float(images.ssim(image, image)) == pytest.approx(1.0, abs=1e-12)
    mask = torch.zeros(shape[1:], dtype=torch.bool)
    mask[..., 4] = True
    assert float(images.mse(image, reference, mask[None])) == pytest.approx(
        float(((image - reference) ** 2)[..., 4].mean()), rel=1e-5
    )
