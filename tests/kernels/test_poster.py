"""The formulas of Cheng et al.'s poster as the special cases that they are, and their error."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    activation,
    added,
    batch_norm,
    convolve,
    stride,
    upsample,
)
from dipkernels.kernels.stationary.normalisation import centred

PLAIN = Weights.ntk(2.0)


def random_lags(n: int, seed: int) -> Tensor:
    spectrum = np.random.default_rng(seed).uniform(0.1, 2, n)
    return torch.tensor(np.fft.ifft(spectrum + np.roll(spectrum[::-1], 1)).real)


def test_relu_bias_downsampling_and_sums() -> None:
    lags = random_lags(12, 0)
    kernel = StationaryKernel.from_lags(lags)
    theta = torch.arccos(lags / lags[0])
    poster = lags[0] / (2 * math.pi) * (theta.sin() + (math.pi - theta) * theta.cos())
    found = activate(convolve(kernel, 3, Weights.ntk(1.0)), "relu")
    torch.testing.assert_close(found.covariance, poster, rtol=0, atol=1e-14)
    biased = convolve(kernel, 3, Weights.ntk(1.0, 0.7)).covariance
    torch.testing.assert_close(biased, lags + 0.7, rtol=0, atol=1e-14)
    torch.testing.assert_close(stride(kernel, 3).covariance, lags[::3], rtol=0, atol=1e-14)
    linear = added(kernel, StationaryKernel.from_lags(2 * lags)).covariance
    torch.testing.assert_close(linear, 3 * lags, rtol=0, atol=1e-14)
    # Two rectified branches have means, whose product the poster leaves out.
    both = added(found, found).covariance - 2 * poster
    expected = 2 * lags[0] / (2 * math.pi)
    torch.testing.assert_close(both, expected.expand(12), rtol=0, atol=1e-14)


def test_erf_formula_is_the_limit_of_large_variance() -> None:
    rho = torch.tensor([1.0, 0.5], dtype=torch.float64)
    poster = 2 / math.pi * torch.arcsin(rho)
    for variance in (1e2, 1e4):
        q = torch.tensor(variance, dtype=torch.float64)
        error = poster - activation("erf").covariance(q, q, variance * rho)
        # To first order in 1/variance at lag 0.5, in its root at lag 0.
        at_zero = 2 / math.pi * math.sqrt(2 / (1 + 2 * variance))
        elsewhere = 0.5 / (math.pi * variance * math.sqrt(0.75))
        assert float(error[0]) == pytest.approx(at_zero, rel=0.01)
        assert float(error[1]) == pytest.approx(elsewhere, rel=0.01)


def stretched(lags: Tensor) -> Tensor:
    """K(r/2) by the poster's band-limited filter, along each axis."""
    values = lags.numpy()
    for axis in range(values.ndim):
        values = np.moveaxis(values, axis, -1)
        n = values.shape[-1]
        spectrum = np.fft.fft(values)
        fine = np.zeros((*values.shape[:-1], 2 * n), complex)
        fine[..., : n // 2] = spectrum[..., : n // 2]
        fine[..., 2 * n - n // 2 + 1 :] = spectrum[..., n // 2 + 1 :]
        fine[..., n // 2] = fine[..., 2 * n - n // 2] = spectrum[..., n // 2] / 2
        values = np.moveaxis(2 * np.fft.ifft(fine).real, -1, axis)
    return torch.tensor(values)


NETS = {
    "up-conv-act": ["up", "conv", "act"],
    "conv-act-up": ["conv", "act", "up"],
    "with normalisation": ["up", "conv", "norm", "act", "point", "norm", "act"],
    "point-up-relu": ["point", "up", "relu"],
}


def run(name: str, size: tuple[int, ...], kind: str, scales: int) -> StationaryKernel:
    kernel = StationaryKernel.white(size)
    for step in NETS[name] * scales + ["conv" if name == "conv-act-up" else "point"]:
        if step == "up" and kind == "poster":
            kernel = StationaryKernel.from_lags(stretched(kernel.covariance))
        elif step == "up":
            kernel = upsample(kernel, 2, "bilinear", max_period=None if kind == "exact" else 1)
        elif step in ("conv", "point"):
            kernel = convolve(kernel, 3 if step == "conv" else 1, PLAIN)
        elif step == "norm":
            kernel = batch_norm(kernel, epsilon=0.0, learned=False)
        else:
            kernel = activate(kernel, "leaky-relu" if step == "act" else "relu")
    return centred(kernel)


def error(name: str, size: tuple[int, ...], kind: str, scales: int = 5) -> float:
    """Relative Frobenius error of the covariance of mean-free images, at equal variance."""
    exact, other = run(name, size, "exact", scales), run(name, size, kind, scales)
    lags = other.covariance * (exact.covariance.flatten()[0] / other.covariance.flatten()[0])
    difference = (exact.covariance_table - lags).norm()
    return float(difference / exact.covariance_table.norm())


@pytest.mark.parametrize(
    ("name", "poster", "closure"),
    [
        ("up-conv-act", 0.39, 0.010),
        ("conv-act-up", 0.41, 0.010),
        ("with normalisation", 0.29, 0.015),
        ("point-up-relu", 0.39, 0.136),
    ],
)
def test_stretching_the_kernel_is_wrong_for_bilinear_signals(
    name: str, poster: float, closure: float
) -> None:
    # The values of the theory's own check, to the digits that it gives.
    assert error(name, (8,), "poster") == pytest.approx(poster, abs=0.006)
    assert error(name, (8,), "closure") == pytest.approx(closure, abs=0.0006)


@pytest.mark.parametrize(
    ("name", "poster", "closure"),
    [
        ("up-conv-act", 0.49, 0.014),
        ("conv-act-up", 0.51, 0.014),
        ("with normalisation", 0.43, 0.020),
        ("point-up-relu", 0.52, 0.185),
    ],
)
@pytest.mark.long
def test_stretching_the_kernel_is_wrong_for_bilinear_images(
    name: str, poster: float, closure: float
) -> None:
    assert error(name, (4, 4), "poster") == pytest.approx(poster, abs=0.006)
    assert error(name, (4, 4), "closure") == pytest.approx(closure, abs=0.0006)
