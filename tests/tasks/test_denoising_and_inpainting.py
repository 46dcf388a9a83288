"""Denoising and inpainting tasks, their scores, and the seeds of all that is drawn."""

import math

import pytest
import torch
from torch import Tensor

from dipkernels import seeds, tasks
from dipkernels.errors import ImageError, InvalidInputError, UnknownNameError


def draw_image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def inpainting() -> tasks.Task:
    mask = tasks.bernoulli_mask((9, 14), known=0.7, seed=3)
    return tasks.inpaint(draw_image(2, 9, 14), mask, noise_sigma=0.05, seed=1)


# --- Denoising ------------------------------------------------------------------------------


def test_noise_is_white_and_gaussian() -> None:
    clean = draw_image(3, 120, 170)
    task = tasks.denoise(clean, noise_sigma=0.2, seed=4)
    noise = (task.measurement - clean) / 0.2
    n = noise.numel()
    # Moments of n normal numbers, each within six standard errors.
    assert abs(noise.mean()) < 6 * math.sqrt(1 / n)
    assert abs(noise.square().mean() - 1) < 6 * math.sqrt(2 / n)
    assert abs(noise.pow(4).mean() - 3) < 6 * math.sqrt(96 / n)
    # Neighbours, and the same pixel of two channels, are uncorrelated.
    for a, b in [
        (noise[:, 1:], noise[:, :-1]),
        (noise[:, :, 1:], noise[:, :, :-1]),
        (noise[0], noise[1]),
    ]:
        assert abs((a * b).mean()) < 6 * math.sqrt(1 / a.numel())


def test_published_noise_is_the_default() -> None:
    clean = draw_image(3, 60, 70)
    task = tasks.denoise(clean)
    assert task.noise_sigma == 25 / 255
    # A mean of n squares of normal numbers: relative deviation sqrt(2 / n), six of them, in dB.
    expected = -20 * math.log10(25 / 255)
    error = 6 * math.sqrt(2 / clean.numel()) * 10 / math.log(10)
    assert float(task.psnr(task.measurement)) == pytest.approx(expected, abs=error)


def test_denoising_measures_every_pixel() -> None:
    task = tasks.denoise(draw_image(3, 6, 11))
    assert task.name == "denoise"
    assert task.shape == (3, 6, 11)
    assert task.score_region == "whole"
    assert list(task.regions) == ["whole"]
    assert task.regions["whole"].all()
    image = draw_image(3, 6, 11, seed=1)
    assert torch.equal(task.forward(image), image)


def test_clipping_cuts_the_same_noise() -> None:
    clean = draw_image(3, 20, 30)
    plain = tasks.denoise(clean, noise_sigma=0.3, seed=2)
    clipped = tasks.denoise(clean, noise_sigma=0.3, seed=2, clip=True)
    assert plain.measurement.min() < 0 < 1 < plain.measurement.max()
    assert torch.equal(clipped.measurement, plain.measurement.clamp(0, 1))


def test_without_noise_the_measurement_is_clean() -> None:
    clean = draw_image(3, 6, 11)
    task = tasks.denoise(clean, noise_sigma=0.0)
    assert torch.equal(task.measurement, clean)
    assert task.psnr(task.measurement) == math.inf


# --- Inpainting -----------------------------------------------------------------------------


def test_inpainting_measures_the_known_pixels(inpainting: tasks.Task) -> None:
    task = inpainting
    noise = task.measurement - task.clean
    known = task.mask
    assert task.name == "inpaint"
    assert (task.measurement[:, ~known] == 0).all()
    assert 0.02 < noise[:, known].std() < 0.08  # of 0.05, some 170 numbers
    image = draw_image(2, 9, 14, seed=5)
    seen = task.forward(image)
    assert torch.equal(seen[:, known], image[:, known])
    assert (seen[:, ~known] == 0).all()


def test_regions_partition_the_image(inpainting: tasks.Task) -> None:
    regions = inpainting.regions
    assert list(regions) == ["whole", "hole", "known"]
    assert inpainting.score_region == "hole"
    assert (regions["hole"] ^ regions["known"]).all()
    assert regions["whole"].all()
    assert torch.equal(regions["known"], inpainting.mask.expand(2, 9, 14))


def test_misfit_is_the_mean_over_all_pixels(inpainting: tasks.Task) -> None:
    image = draw_image(2, 9, 14, seed=5)
    total = 0.0
    for channel in range(2):
        for y in range(9):
            for x in range(14):
                if inpainting.mask[y, x]:
                    error = image[channel, y, x] - inpainting.measurement[channel, y, x]
                    total += float(error) ** 2
    # facts.md: MSE(image * mask, measurement * mask) over all pixels, not over the known ones.
    assert float(inpainting.misfit(image)) == pytest.approx(total / (2 * 9 * 14), rel=1e-13)


def test_psnr_of_each_region(inpainting: tasks.Task) -> None:
    image = draw_image(2, 9, 14, seed=5)
    squared = (image - inpainting.clean).square()
    expected = {
        "whole": squared.mean(),
        "hole": torch.stack([c[~inpainting.mask] for c in squared]).mean(),
        "known": torch.stack([c[inpainting.mask] for c in squared]).mean(),
    }
    for region, value in expected.items():
        score = float(inpainting.psnr(image, region))
        assert score == pytest.approx(-10 * math.log10(float(value)), rel=1e-13)
    assert inpainting.psnr(image) == inpainting.psnr(image, "hole")


def test_bernoulli_masks() -> None:
    mask = tasks.bernoulli_mask((200, 300), known=0.3, seed=1)
    assert mask.dtype == torch.bool
    # A binomial fraction, within six deviations.
    deviation = math.sqrt(0.3 * 0.7 / mask.numel())
    assert float(mask.double().mean()) == pytest.approx(0.3, abs=6 * deviation)
    both = (mask[1:] & mask[:-1]).double().mean()
    assert float(both) == pytest.approx(0.09, abs=6 * math.sqrt(0.09 / mask.numel()))
    assert torch.equal(mask, tasks.bernoulli_mask((200, 300), known=0.3, seed=1))
    assert not torch.equal(mask, tasks.bernoulli_mask((200, 300), known=0.3, seed=2))


# --- Both -----------------------------------------------------------------------------------


def test_seeds_are_reproducible_independent_and_apart_from_the_global_state() -> None:
    clean = draw_image(3, 40, 50)
    before = torch.get_rng_state()
    first, again, other = (
        tasks.denoise(clean, noise_sigma=1.0, seed=seed).measurement - clean for seed in (7, 7, 8)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    # Two independent normal fields: six deviations of their mean product.
    assert abs((first * other).mean()) < 6 / math.sqrt(clean.numel())


def test_noise_is_the_same_in_both_precisions() -> None:
    clean = draw_image(3, 6, 11)
    double = tasks.denoise(clean).measurement
    single = tasks.denoise(clean.float()).measurement
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=0, atol=2e-7)


def test_to_moves_and_keeps_the_original(inpainting: tasks.Task, device: str) -> None:
    moved = inpainting.to(device=device, dtype=torch.float32)
    for tensor, original in (
        (moved.clean, inpainting.clean),
        (moved.measurement, inpainting.measurement),
    ):
        assert (tensor.dtype, tensor.device.type) == (torch.float32, device)
        assert torch.equal(tensor.cpu(), original.float())
    assert (moved.mask.dtype, moved.mask.device.type) == (torch.bool, device)
    assert inpainting.clean.dtype == torch.float64
    assert (moved.name, moved.noise_sigma) == (inpainting.name, inpainting.noise_sigma)


def test_tasks_are_made_on_the_device_of_the_image(device: str) -> None:
    clean = draw_image(2, 9, 14)
    mask = tasks.bernoulli_mask((9, 14))
    for here, there in (
        (tasks.denoise(clean), tasks.denoise(clean.to(device))),
        (tasks.inpaint(clean, mask), tasks.inpaint(clean.to(device), mask)),
    ):
        assert there.measurement.device.type == there.mask.device.type == device
        torch.testing.assert_close(there.measurement.cpu(), here.measurement, rtol=0, atol=1e-15)


def test_streams_of_one_seed_are_independent() -> None:
    draws = torch.stack(
        [
            torch.randn(20_000, generator=seeds.generator(stream, seed))
            for stream in ("noise", "code", "probes")
            for seed in (0, 1)
        ]
    )
    correlations = torch.corrcoef(draws)[~torch.eye(6, dtype=torch.bool)]
    assert correlations.abs().max() < 6 / math.sqrt(20_000)


def test_derived_seeds_are_the_same_on_every_machine() -> None:
    # Pinned, from `printf noise:0 | sha256sum`: another one would silently change every result.
    assert seeds.derive("noise", 0) == 0xCBFD_6C7F_ADD3_ABA6 >> 1
    values = [seeds.derive("noise", seed) for seed in (-3, 0, 1, 2**40)]
    assert len(set(values)) == 4
    assert all(0 <= value < 2**63 for value in values)


# --- Errors ---------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf")])
def test_noise_levels_must_be_finite_and_not_negative(sigma: float) -> None:
    clean, mask = draw_image(1, 4, 5), tasks.bernoulli_mask((4, 5))
    with pytest.raises(InvalidInputError, match=f"finite and not negative, got {sigma}"):
        tasks.denoise(clean, noise_sigma=sigma)
    with pytest.raises(InvalidInputError, match=f"finite and not negative, got {sigma}"):
        tasks.inpaint(clean, mask, noise_sigma=sigma)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_must_be_finite(value: float) -> None:
    clean, mask = draw_image(1, 4, 5), tasks.bernoulli_mask((4, 5))
    clean[0, 2, 3] = value
    for task in (lambda: tasks.denoise(clean), lambda: tasks.inpaint(clean, mask)):
        with pytest.raises(ImageError, match="holds NaN or infinite values"):
            task()


def test_images_must_be_floating_point_with_channels() -> None:
    unchecked = tasks.denoise.__wrapped__  # past the checks of shapes and types
    for wrong in (torch.ones(5), torch.ones(2, 3, 4, 5), torch.ones(3, 4, 5).byte()):
        with pytest.raises(ImageError, match=r"floating-point tensor \(channels, height, width\)"):
            unchecked(wrong)


def test_masks_must_fit() -> None:
    clean = draw_image(1, 4, 5)
    with pytest.raises(ImageError, match=r"the mask has shape \(5, 4\), the image \(1, 4, 5\)"):
        tasks.inpaint(clean, tasks.bernoulli_mask((5, 4)))
    with pytest.raises(ImageError, match="all black: no pixel is known"):
        tasks.inpaint(clean, torch.zeros(4, 5, dtype=torch.bool))
    with pytest.raises(ImageError, match="all white: nothing is missing"):
        tasks.inpaint(clean, torch.ones(4, 5, dtype=torch.bool))
    unchecked = tasks.inpaint.__wrapped__
    with pytest.raises(ImageError, match=r"must be boolean, got torch\.float32"):
        unchecked(clean, torch.ones(4, 5))


@pytest.mark.parametrize("known", [0.0, 1.0, -0.2, float("nan")])
def test_fractions_of_known_pixels_lie_between_0_and_1(known: float) -> None:
    with pytest.raises(InvalidInputError, match=rf"in \(0, 1\), got {known}"):
        tasks.bernoulli_mask((4, 5), known=known)


def test_unknown_regions(inpainting: tasks.Task) -> None:
    with pytest.raises(UnknownNameError, match=r"no region 'edge' .* whole, hole, known"):
        inpainting.psnr(inpainting.clean, "edge")
    denoising = tasks.denoise(inpainting.clean)
    with pytest.raises(UnknownNameError, match=r"no region 'hole' .*: whole$"):
        denoising.psnr(denoising.clean, "hole")
