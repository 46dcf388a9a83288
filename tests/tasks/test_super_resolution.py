"""The Lanczos operator against its formula and torch's convolution, and what it is measured by."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dipkernels import images, tasks
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.downsampling import LanczosDownsampling, lanczos_kernel


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


# --- The kernel -----------------------------------------------------------------------------


def published_kernel(factor: int) -> np.ndarray:
    """Lanczos2 at phase 1/2, entry by entry, as facts.md states it: 4 factor pixels wide."""
    width = 4 * factor
    kernel = np.zeros((width, width))
    for i in range(width):
        for j in range(width):
            value = 1.0
            for position in (i, j):
                x = math.pi * abs(position + 0.5 - width / 2) / factor
                value *= 2 * math.sin(x) * math.sin(x / 2) / x**2
            kernel[i, j] = value
    return kernel / kernel.sum()


@pytest.mark.parametrize(("factor", "width"), [(4, 16), (8, 32), (2, 8), (6, 24)])
def test_even_factors_have_the_published_kernel(factor: int, width: int) -> None:
    kernel = lanczos_kernel(factor)
    assert kernel.shape == (width,)
    np.testing.assert_allclose(np.outer(kernel, kernel), published_kernel(factor), atol=1e-16)


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 7, 8])
def test_kernels_are_symmetric_and_sum_to_one(factor: int) -> None:
    kernel = lanczos_kernel(factor)
    assert len(kernel) == 4 * factor - factor % 2
    np.testing.assert_allclose(kernel, kernel[::-1], rtol=1e-12, atol=1e-17)
    assert kernel.sum() == pytest.approx(1, rel=1e-14)
    # Zero at one factor from the centre, where sinc is; only odd factors have a pixel there.
    if factor % 2:
        assert kernel[len(kernel) // 2 + factor] == pytest.approx(0, abs=1e-16)


@pytest.mark.parametrize(("factor", "size"), [(4, (24, 36)), (8, (32, 16)), (3, (15, 21))])
def test_the_operator_is_a_padded_strided_convolution(factor: int, size: tuple[int, int]) -> None:
    # Another algorithm, by torch: replication padding of 6 and stride 4 at a factor of 4.
    weights = torch.from_numpy(lanczos_kernel(factor))
    padding = (len(weights) - factor) // 2
    assert factor != 4 or (len(weights), padding) == (16, 6)
    image = draw(3, *size)
    padded = nn.functional.pad(image[None], (padding,) * 4, mode="replicate")[0]
    kernel = torch.outer(weights, weights)[None, None]
    expected = nn.functional.conv2d(padded[:, None], kernel, stride=factor)[:, 0]
    found = LanczosDownsampling((3, *size), factor).forward(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_constants_stay_and_ramps_are_sampled_at_the_centres_of_blocks(factor: int) -> None:
    size = 10 * factor
    operator = LanczosDownsampling((1, size), factor)
    ones = torch.ones(1, size, dtype=torch.float64)
    torch.testing.assert_close(operator.forward(ones), ones[:, :10], rtol=0, atol=1e-14)
    ramp = torch.arange(size, dtype=torch.float64)[None]
    centres = torch.arange(10, dtype=torch.float64)[None] * factor + (factor - 1) / 2
    inner = slice(2, -2)  # the borders see replicated pixels
    torch.testing.assert_close(
        operator.forward(ramp)[:, inner], centres[:, inner], rtol=1e-13, atol=0
    )


# --- The task -------------------------------------------------------------------------------


def test_the_measurement_is_made_by_the_operator_and_noise() -> None:
    clean = draw(3, 80, 120)
    plain = tasks.super_resolve(clean, factor=4)
    assert (plain.name, plain.shape, plain.measurement.shape) == (
        "super-resolve",
        (3, 80, 120),
        (3, 20, 30),
    )
    assert plain.misfit(clean) == 0
    noisy = tasks.super_resolve(clean, factor=4, noise_sigma=0.2, seed=3)
    noise = (noisy.measurement - plain.measurement) / 0.2
    # 1800 normal numbers: each moment within six standard errors.
    assert abs(noise.mean()) < 6 / math.sqrt(1800)
    assert abs(noise.square().mean() - 1) < 6 * math.sqrt(2 / 1800)
    assert noisy.noise_sigma == 0.2


def test_pillow_makes_the_measurement_as_the_paper_did() -> None:
    clean = images.load("astronaut", size=(64, 96))
    task = tasks.super_resolve(clean, factor=4, downsampling="pillow")
    pixels = clean.mul(255).round().byte().permute(1, 2, 0).numpy()
    # All colours at once, where the package resizes channel by channel.
    small = np.asarray(Image.fromarray(pixels).resize((24, 16), Image.Resampling.LANCZOS))
    expected = torch.from_numpy(small.transpose(2, 0, 1) / np.float32(255))
    torch.testing.assert_close(task.measurement, expected, rtol=0, atol=1e-7)
    # Its filter has three lobes, the operator's two: alike and not equal.
    assert 0 < float(task.misfit(clean)) < 1e-3


def test_a_small_image_alone_is_a_task() -> None:
    small = draw(3, 5, 7)
    task = tasks.super_resolve(measurement=small, factor=8, noise_sigma=0.1)
    assert (task.shape, task.clean, task.noise_sigma) == ((3, 40, 56), None, 0.1)
    assert list(task.regions) == ["whole", "interior"]
    assert task.regions["interior"].sum() == 3 * 24 * 40  # without a border of the factor
    clean = draw(3, 40, 56)
    both = tasks.super_resolve(clean, measurement=small, factor=8)
    assert torch.equal(both.measurement, small)
    assert both.psnr(clean) == math.inf


def test_the_published_score_is_luma_without_the_border() -> None:
    clean, image = draw(3, 32, 48), draw(3, 32, 48, seed=1)
    task = tasks.super_resolve(clean, factor=8, border=4)
    interior = task.regions["interior"]
    assert interior.sum() == 3 * 24 * 40
    assert interior[:, 4:-4, 4:-4].all()
    cropped = (image - clean)[:, 4:-4, 4:-4]
    assert float(task.mse(image, "interior")) == pytest.approx(float(cropped.square().mean()))
    score = images.psnr(images.luma(image), images.luma(clean), interior[:1])
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    error = (cropped * weights).sum(dim=0) * (235 - 16) / 255
    assert float(score) == pytest.approx(-10 * math.log10(float(error.square().mean())))
    assert task.score_region == "whole"


# --- Errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 0, -4])
def test_factors_are_at_least_two(factor: int) -> None:
    with pytest.raises(InvalidInputError, match=f"an integer of at least 2, got {factor}"):
        tasks.super_resolve(draw(1, 8, 8), factor=factor)


def test_factors_are_integers() -> None:
    check = tasks.downsampling.check_factor
    unchecked = getattr(check, "__wrapped__", check)  # past the checks of types
    with pytest.raises(InvalidInputError, match=r"an integer of at least 2, got 2\.5"):
        unchecked((1, 10, 10), 2.5)


def test_factors_divide_the_sides() -> None:
    with pytest.raises(InvalidInputError, match="10x13 can't be divided by 4: crop it to 8x12"):
        tasks.super_resolve(draw(1, 10, 13), factor=4)
    with pytest.raises(InvalidInputError, match="size 3x8 can't be divided by 4: take a larger"):
        tasks.super_resolve(draw(1, 3, 8), factor=4)


def test_options_of_super_resolution() -> None:
    clean = draw(1, 8, 16)
    for border in (0, -1, 4):
        with pytest.raises(InvalidInputError, match=f"a border of {border} pixels must be a pos"):
            tasks.super_resolve(clean, factor=4, border=border)
    with pytest.raises(InvalidInputError, match=r"'lanczos' .* or 'pillow', got 'bicubic'"):
        tasks.super_resolve(clean, downsampling="bicubic")
    with pytest.raises(InvalidInputError, match="is for images of two dimensions"):
        tasks.super_resolve(draw(1, 16), downsampling="pillow")
    with pytest.raises(ImageError, match=r"rounds .* to 8 bits, but .* to 1\.[0-9]*; scale"):
        tasks.super_resolve(clean + 1, downsampling="pillow")
    with pytest.raises(InvalidInputError, match="downsampling would have no effect on a meas"):
        tasks.super_resolve(measurement=clean, downsampling="pillow")
    with pytest.raises(InvalidInputError, match="a task needs a clean image to simulate"):
        tasks.super_resolve(factor=4)
    with pytest.raises(ImageError, match=r"4 times the measurement is \(1, 32, 64\)"):
        tasks.super_resolve(draw(1, 32, 63), measurement=clean)
    with pytest.raises(ImageError, match="the measurement holds NaN"):
        tasks.super_resolve(measurement=clean * float("nan"))
