"""Cheng et al.: covariance against depth and input scale."""

import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import torch

from dipkernels.errors import InvalidInputError
from dipkernels.kernels import infinite_width
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.literature.poster import (
    autoencoder,
    convolutional,
    poster_autoencoder,
    poster_convolutional,
    smooth_codes,
    smooth_kernel,
    stretched,
)

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, where experiments are

from experiments.gp_kernels.covariances import covariance_three_ways, width_convergence


def test_smooth_kernel_is_the_published_gaussian() -> None:
    lags = smooth_kernel(3.0, (200,)).covariance.numpy()
    expected = np.exp(-(np.arange(50) ** 2) / (4 * 9.0))
    # The torus adds images 150 pixels off and more: below 1e-200; the rest is rounding.
    np.testing.assert_allclose(lags[:50], expected, rtol=0, atol=1e-12)
    plane = smooth_kernel(2.0, (40, 60)).covariance.numpy()
    y, x = np.ogrid[:10, :10]
    np.testing.assert_allclose(plane[:10, :10], np.exp(-(y**2 + x**2) / 16), rtol=0, atol=1e-10)
    assert smooth_kernel(0.0, (9,)).covariance.tolist() == [1.0] + [0.0] * 8
    for wrong in (-1.0, float("inf")):
        with pytest.raises(InvalidInputError, match="negative"):
            smooth_kernel(wrong, (9,))


def test_smooth_codes_have_that_covariance() -> None:
    draw = smooth_codes(3000, (24,), 1.5)
    code = draw(1)[0].double()
    found = code.T @ code / len(code)
    expected = smooth_kernel(1.5, (24,)).to_dense()
    # 3000 channels: errors of 1/55 an entry, and the largest of 300.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.09)
    assert not torch.equal(draw(2), draw(1))


def test_poster_formula_by_its_own_words() -> None:
    lags = smooth_kernel(2.0, (40,)).covariance.numpy()
    for _ in range(3):
        angle = np.arccos(np.clip(lags / lags[0], -1, 1))
        lags = lags[0] / (2 * np.pi) * (np.sin(angle) + (np.pi - angle) * np.cos(angle))
    found = poster_convolutional(smooth_kernel(2.0, (40,)), 3).covariance.numpy()
    np.testing.assert_allclose(found, lags, rtol=1e-12, atol=0)


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="depth"):
        poster_convolutional(smooth_kernel(0.0, (8,)), -1)


def test_the_limit_that_is_read_off_the_network_is_the_posters_for_convolutions() -> None:
    code = smooth_kernel(2.0, (32,))
    limit = infinite_width(convolutional((32,), 3, width=16), code=code).kernel.covariance
    poster = poster_convolutional(code, 3).covariance
    torch.testing.assert_close(limit / limit[0], poster / poster[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("n", [9, 12])
def test_stretched_lags_are_the_trigonometric_interpolant(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    values = values + np.roll(values[::-1], 1)
    kernel = StationaryKernel.from_lags(torch.tensor(values))
    found = stretched(kernel).covariance.numpy()
    np.testing.assert_allclose(found, scipy.signal.resample(values, 2 * n), rtol=0, atol=1e-12)
    np.testing.assert_allclose(found[::2], values, rtol=0, atol=1e-12)


@pytest.mark.slow
def test_three_ways_agree_for_a_wide_convolutional_network() -> None:
    code = smooth_kernel(2.0, (32,))
    prior = convolutional((32,), 2, width=48, deviation=2.0)
    found = covariance_three_ways(
        prior,
        code,
        poster_convolutional(code, 2),
        samples=64,
        codes=smooth_codes(48, (32,), 2.0),
        max_lag=12,
    )
    measured, limit, poster = found.correlation.values
    np.testing.assert_allclose(limit, poster, rtol=1e-12)
    assert (limit[1:] < 1).all()
    # Within four standard errors at all lags, plus the bias of order 1 / width.
    assert (np.abs(measured - limit) <= 4 * found.standard_error.values + 0.01).all()
    # The error bar is what independent repetitions scatter by, within the chance of both.
    narrow = convolutional((16,), 1, width=6, deviation=1.0)
    code = smooth_kernel(1.0, (16,))
    others = [
        covariance_three_ways(
            narrow,
            code,
            poster_convolutional(code, 1),
            samples=16,
            codes=smooth_codes(6, (16,), 1.0),
            max_lag=4,
            seed=seed,
        )
        for seed in range(1, 13)
    ]
    scatter = np.std([o.correlation[0, 4] for o in others], ddof=1)
    typical = np.mean([o.standard_error[4] for o in others])
    assert 0.5 < scatter / typical < 2
    with pytest.raises(InvalidInputError, match="multiple of 8"):
        covariance_three_ways(
            prior, code, code, samples=9, codes=smooth_codes(48, (32,), 2.0), max_lag=2
        )
    with pytest.raises(InvalidInputError, match="1D"):
        covariance_three_ways(
            convolutional((8, 8), 1, width=4),
            smooth_kernel(0.0, (8, 8)),
            smooth_kernel(0.0, (8, 8)),
            samples=8,
            codes=smooth_codes(4, (8, 8), 0.0),
            max_lag=2,
        )


def test_autoencoder_tends_to_what_is_read_off_it_and_not_to_the_poster() -> None:
    code = smooth_kernel(0.0, (32,))
    found = covariance_three_ways(
        autoencoder((32,), 2, width=48),
        code,
        poster_autoencoder(code, 2),
        samples=64,
        codes=smooth_codes(48, (32,), 0.0),
        max_lag=8,
    )
    measured, limit, poster = found.correlation.values
    # Four standard errors, and for the closure over phases and the finite width 0.02 more.
    assert (np.abs(measured - limit) <= 4 * found.standard_error.values + 0.02).all()
    assert np.abs(poster - limit).max() > 0.05


def test_error_shrinks_with_the_width() -> None:
    code = smooth_kernel(1.0, (16,))
    limit = poster_convolutional(code, 2).covariance[:8]
    found = width_convergence(
        lambda width: convolutional((16,), 2, width=width, deviation=1.0),
        [4, 16, 64],
        limit,
        samples=4,
        codes=lambda width: smooth_codes(width, (16,), 1.0),
        repetitions=6,
    )
    assert found.error.dims == ("width", "repetition")
    # All channels count, of each of which the variance falls: between -1/2 and -1, with scatter.
    assert -1.3 < found.slope < -0.3
    for widths, repetitions in (([4], 2), ([4, 8], 1)):
        with pytest.raises(InvalidInputError, match="at least 2"):
            width_convergence(
                lambda width: convolutional((16,), 2, width=width),
                widths,
                limit,
                samples=2,
                codes=lambda width: smooth_codes(width, (16,), 0.0),
                repetitions=repetitions,
            )
