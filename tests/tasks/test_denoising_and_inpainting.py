"""Denoising and inpainting tasks, their scores, and the seeds of all that is drawn."""

import inspect
import math

import pytest
import torch
from torch import Tensor

from dipkernels import tasks
from dipkernels.base import seeds
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


def test_shared_noise_is_one_image_for_all_channels() -> None:
    clean = draw_image(3, 50, 60)
    task = tasks.denoise(clean, noise_sigma=0.2, shared_noise=True, seed=2)
    noise = task.measurement - clean
    torch.testing.assert_close(noise[1:], noise[:1].expand(2, 50, 60), rtol=0, atol=1e-15)
    # Its variance is that of the level: relative deviation sqrt(2 / 3000), six of them.
    assert float(noise.square().mean()) == pytest.approx(0.04, rel=6 * math.sqrt(2 / 3000))


def test_a_noisy_image_alone_is_a_task() -> None:
    noisy, clean = draw_image(3, 6, 11), draw_image(3, 6, 11, seed=1)
    task = tasks.denoise(measurement=noisy, noise_sigma=0.1)
    assert (task.clean, task.noise_sigma, task.shape) == (None, 0.1, (3, 6, 11))
    assert torch.equal(task.measurement, noisy)
    with pytest.raises(InvalidInputError, match="has no clean image"):
        task.psnr(noisy)
    pair = tasks.denoise(clean, measurement=noisy, noise_sigma=0.1)
    assert torch.equal(pair.measurement, noisy)
    assert float(pair.mse(noisy)) == pytest.approx(float((noisy - clean).square().mean()))


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


def test_a_damaged_image_alone_is_a_task(inpainting: tasks.Task) -> None:
    damaged = inpainting.measurement.clone()
    damaged[:, ~inpainting.mask] = float("nan")  # what lies in the hole is nobody's business
    task = tasks.inpaint(None, inpainting.mask, measurement=damaged, noise_sigma=0.05)
    assert torch.equal(task.measurement, inpainting.measurement)
    assert (task.clean, task.score_region) == (None, "hole")
    assert list(task.regions) == ["whole", "hole", "known"]
    damaged[0, inpainting.mask] = float("nan")
    with pytest.raises(ImageError, match="the measurement holds NaN"):
        tasks.inpaint(None, inpainting.mask, measurement=damaged)


def test_masks_may_differ_between_channels() -> None:
    clean = draw_image(2, 9, 14)
    mask = torch.stack([tasks.bernoulli_mask((9, 14), seed=seed) for seed in (1, 2)])
    task = tasks.inpaint(clean, mask)
    assert torch.equal(task.measurement, clean * mask)
    assert torch.equal(task.regions["known"], mask)
    assert torch.equal(task.regions["hole"], ~mask)


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
    with pytest.raises(InvalidInputError, match=f"noise_sigma must .*, got {sigma}"):
        tasks.denoise(clean, noise_sigma=sigma)
    with pytest.raises(InvalidInputError, match=f"noise_sigma must .*, got {sigma}"):
        tasks.inpaint(clean, mask, noise_sigma=sigma)


def test_simulations_and_measurements_exclude_each_other() -> None:
    image, mask = draw_image(3, 4, 5), tasks.bernoulli_mask((4, 5))
    for task in (lambda: tasks.denoise(), lambda: tasks.inpaint(None, mask)):
        with pytest.raises(InvalidInputError, match="a task needs a clean image to simulate"):
            task()
    for name, options in {
        "clip": {"clip": True},
        "shared_noise": {"shared_noise": True},
        "clip, seed": {"clip": True, "seed": 2},
    }.items():
        with pytest.raises(InvalidInputError, match=f"{name} would have no effect on a meas"):
            tasks.denoise(measurement=image, noise_sigma=0.1, **options)
    with pytest.raises(InvalidInputError, match="seed would have no effect"):
        tasks.inpaint(None, mask, measurement=image, seed=1)
    with pytest.raises(InvalidInputError, match=r"noise_sigma, .* must be said; 0 if unknown"):
        tasks.denoise(measurement=image)
    with pytest.raises(InvalidInputError, match=r"shared_noise has no effect on .* one channel"):
        tasks.denoise(image[:1], shared_noise=True)
    unchecked = inspect.unwrap(tasks.denoise)  # past the checks of shapes
    with pytest.raises(ImageError, match=r"measurement has shape \(3, 4, 5\), the clean image"):
        unchecked(draw_image(3, 4, 4), measurement=image, noise_sigma=0.1)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_images_must_be_finite(value: float) -> None:
    clean, mask = draw_image(1, 4, 5), tasks.bernoulli_mask((4, 5))
    clean[0, 2, 3] = value
    for task in (lambda: tasks.denoise(clean), lambda: tasks.inpaint(clean, mask)):
        with pytest.raises(ImageError, match="holds NaN or infinite values"):
            task()


def test_images_must_be_floating_point_with_channels() -> None:
    unchecked = inspect.unwrap(tasks.denoise)  # past the checks of shapes and types
    for wrong in (torch.ones(5), torch.ones(2, 3, 4, 5, 6), torch.ones(3, 4, 5).byte()):
        with pytest.raises(ImageError, match=r"floating-point tensor, \(channels, length\)"):
            unchecked(wrong)


def test_arrays_are_no_tensors() -> None:
    clean = draw_image(3, 4, 5)
    denoise = inspect.unwrap(tasks.denoise)
    for task in (denoise, lambda x: denoise(measurement=x, noise_sigma=0.1)):
        with pytest.raises(ImageError, match=r"must be a tensor, got ndarray: see .*from_numpy"):
            task(clean.numpy())


def test_gradients_of_an_image_do_not_enter_its_task() -> None:
    clean = draw_image(3, 4, 5).requires_grad_()
    task = tasks.denoise(clean)
    assert not task.measurement.requires_grad
    assert task.clean is not None and not task.clean.requires_grad
    assert clean.requires_grad


def test_masks_must_fit() -> None:
    clean = draw_image(1, 4, 5)
    with pytest.raises(ImageError, match=r"the mask has shape \(5, 4\), the image \(1, 4, 5\)"):
        tasks.inpaint(clean, tasks.bernoulli_mask((5, 4)))
    with pytest.raises(ImageError, match="all black: no pixel is known"):
        tasks.inpaint(clean, torch.zeros(4, 5, dtype=torch.bool))
    with pytest.raises(ImageError, match="all white: nothing is missing"):
        tasks.inpaint(clean, torch.ones(4, 5, dtype=torch.bool))
    unchecked = inspect.unwrap(tasks.inpaint)
    with pytest.raises(ImageError, match=r"must be boolean, got torch\.float32"):
        unchecked(clean, torch.ones(4, 5))


def test_unknown_regions(inpainting: tasks.Task) -> None:
    with pytest.raises(UnknownNameError, match=r"no region 'edge' .* whole, hole, known"):
        inpainting.psnr(inpainting.clean, "edge")
    denoising = tasks.denoise(inpainting.clean)
    with pytest.raises(UnknownNameError, match=r"no region 'hole' .*: whole$"):
        denoising.psnr(denoising.clean, "hole")
