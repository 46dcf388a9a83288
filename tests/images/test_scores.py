"""Scores against scikit-image's, over images, signals, batches and regions."""

import inspect
import math

import numpy as np
import pytest
import skimage.color
import skimage.metrics
import torch

from dipkernels import images
from dipkernels.errors import DipkernelsError, ImageError, InvalidInputError
from dipkernels.images.metrics import mse_to_psnr


def draw_image(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_scores_are_those_of_scikit_image() -> None:
    reference, image = draw_image(3, 11, 17).double(), draw_image(3, 11, 17, seed=1).double()
    a, b = reference.numpy(), image.numpy()
    assert float(images.mse(image, reference)) == pytest.approx(
        skimage.metrics.mean_squared_error(a, b), rel=1e-13
    )
    assert float(images.psnr(image, reference)) == pytest.approx(
        skimage.metrics.peak_signal_noise_ratio(a, b, data_range=1), rel=1e-13
    )
    assert images.ssim(image, reference) == pytest.approx(
        skimage.metrics.structural_similarity(
            a.transpose(1, 2, 0), b.transpose(1, 2, 0), data_range=1, channel_axis=2, win_size=7
        ),
        rel=1e-12,
    )


@pytest.mark.parametrize("shape", [(3, 11, 17), (2, 23)])
def test_scores_over_a_region(shape: tuple[int, ...]) -> None:
    reference, image = draw_image(*shape).double(), draw_image(*shape, seed=1).double()
    mask = draw_image(*shape[1:], seed=2) > 0.6
    channelwise = draw_image(*shape, seed=3) > 0.6
    a, b = reference.numpy(), image.numpy()
    _, full = skimage.metrics.structural_similarity(a, b, data_range=1, channel_axis=0, full=True)
    inner = np.zeros(shape, dtype=bool)
    inner[(slice(None), *[slice(3, -3)] * (len(shape) - 1))] = True
    for where in (mask, channelwise):
        region = np.broadcast_to(where.numpy(), shape)
        expected = np.mean((a - b)[region] ** 2)
        assert float(images.mse(image, reference, where)) == pytest.approx(expected, rel=1e-13)
        decibels = -10 * math.log10(expected)
        assert float(images.psnr(image, reference, where)) == pytest.approx(decibels, rel=1e-13)
        similarity = full[region & inner].mean()
        assert float(images.ssim(image, reference, where)) == pytest.approx(similarity, rel=1e-12)
    everywhere = torch.ones(shape[1:], dtype=torch.bool)
    assert images.ssim(image, reference, everywhere) == images.ssim(image, reference)


def test_ssim_of_signals_is_that_of_scikit_image() -> None:
    reference, image = draw_image(2, 23).double(), draw_image(2, 23, seed=1).double()
    expected = [
        skimage.metrics.structural_similarity(x.numpy(), y.numpy(), data_range=1)
        for x, y in zip(image, reference, strict=True)
    ]
    assert float(images.ssim(image, reference)) == pytest.approx(np.mean(expected), rel=1e-12)


def test_regions_of_scores_must_fit_and_not_be_empty() -> None:
    image = draw_image(3, 9, 8)
    for score in (images.mse, images.psnr, images.ssim):
        with pytest.raises(ImageError, match=r"mask has shape \(8, 9\), the image \(3, 9, 8\)"):
            score(image, image, torch.ones(8, 9, dtype=torch.bool))
        with pytest.raises(ImageError, match="the mask is empty"):
            score(image, image, torch.zeros(9, 8, dtype=torch.bool))
    border = torch.ones(9, 8, dtype=torch.bool)
    border[3:6, 3:5] = False
    with pytest.raises(ImageError, match="no pixel at least 3 pixels away from the border"):
        images.ssim(image, image, border)
    unchecked = inspect.unwrap(images.mse)  # past the checks of types
    with pytest.raises(ImageError, match=r"must be boolean, got torch\.float32"):
        unchecked(image, image, torch.ones(9, 8))


def test_luma_is_that_of_scikit_image() -> None:
    image = draw_image(2, 3, 5, 8).double()
    expected = skimage.color.rgb2ycbcr(image.numpy(), channel_axis=1)[:, :1] / 255
    # scikit-image rounds its weights to three decimals of 255.
    np.testing.assert_allclose(images.luma(image).numpy(), expected, rtol=0, atol=1e-5)
    with pytest.raises(InvalidInputError, match=r"expected \(\.\.\., 3, height, width\), got"):
        images.luma(image[:, :2])


def test_scores_of_a_batch_are_those_of_its_images() -> None:
    reference, batch = draw_image(3, 5, 8).double(), draw_image(2, 4, 3, 5, 8, seed=1).double()
    reference, batch = reference.repeat(1, 2, 1), batch.repeat(1, 1, 1, 2, 1)
    for score in (images.mse, images.psnr, images.ssim):
        together = score(batch, reference)
        assert together.shape == (2, 4)
        assert float(together[1, 2]) == pytest.approx(float(score(batch[1, 2], reference)))


def test_scores_of_equal_images() -> None:
    image = draw_image(3, 9, 8)
    assert images.mse(image, image) == 0
    assert images.psnr(image, image) == math.inf
    assert images.ssim(image, image) == 1
    errors = torch.tensor([1.0, 0.1, 0.01], dtype=torch.float64)
    torch.testing.assert_close(
        mse_to_psnr(errors), torch.tensor([0.0, 10.0, 20.0], dtype=torch.float64)
    )


def test_scores_need_one_shape() -> None:
    image, grey = draw_image(3, 9, 8), draw_image(1, 9, 8)
    for score in (images.mse, images.ssim):
        unchecked = inspect.unwrap(score)  # past the checks of shapes
        with pytest.raises(InvalidInputError, match=r"\(3, 9, 8\) can't be .*\(1, 9, 8\)"):
            unchecked(image, grey)
    with pytest.raises(InvalidInputError, match="at least 7 pixels along each axis, got 9x6"):
        images.ssim(draw_image(3, 9, 6), draw_image(3, 9, 6))


def test_image_errors_are_value_errors_of_the_package() -> None:
    assert issubclass(ImageError, DipkernelsError)
    assert issubclass(ImageError, ValueError)
