"""Normalisation on small grids: integrals, draws and closed form against each other."""

import math

import pytest
import torch
from torch import Tensor

from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    activation,
    batch_norm,
    convolve,
    stride,
    upsample,
)
from dipkernels.kernels.stationary.draws import Draws, normalise
from dipkernels.kernels.stationary.normalisation import normalised_moments


def blurred(n: int, width: float, floor: float = 0.3) -> Tensor:
    frequency = 2 * math.pi * torch.fft.fftfreq(n, dtype=torch.float64)
    lags = torch.fft.ifft(torch.exp(-(frequency**2) * width**2)).real
    return lags / lags[0] * (1 - floor) + floor


def dense_lags(matrix: Tensor) -> Tensor:
    n = len(matrix)
    i = torch.arange(n)
    return torch.stack([matrix[i, (i + r) % n].mean() for r in range(n)])


@pytest.mark.parametrize(("n", "epsilon"), [(8, 0.0), (16, 0.0), (16, 0.05)])
def test_integrals_agree_with_gaussian_draws(n: int, epsilon: float) -> None:
    kernel = StationaryKernel.from_lags(blurred(n, 1.0), blurred(n, 0.7, 0.2))
    exact = batch_norm(kernel, epsilon=epsilon, learned=False, method="integral")
    simple = batch_norm(kernel, epsilon=epsilon, learned=False)
    count = 100_000
    x = kernel.sample(count, seed=3)
    x = x - x.mean(dim=1, keepdim=True)
    s = (x.square().mean(dim=1, keepdim=True) + epsilon).sqrt()
    drawn = dense_lags((x / s).T @ (x / s) / count)
    # Of 16 shifts of 100,000 draws, which are correlated: 0.002 is four standard errors.
    assert (drawn - exact.covariance).abs().max() < 4e-3
    assert (drawn - simple.covariance).abs().max() > 0.03
    if epsilon:
        return
    # J = (P - x x'/n)/s, and E J Theta J' written out draw by draw.
    project = torch.eye(n, dtype=torch.float64) - 1 / n
    theta = project @ kernel.to_dense("ntk") @ project
    y = x / s
    turned = y @ theta
    inner = (turned * y).sum(dim=1, keepdim=True)
    w = s**-2
    cross = (w * y).T @ turned / (n * count)
    moved = theta * w.mean() - cross - cross.T + (w * y * inner).T @ y / (n**2 * count)
    error = (dense_lags(moved) - exact.ntk).abs().max() / exact.ntk[0]
    assert error < 0.02  # draws of 1/s^2 have heavy tails on 8 pixels
    assert (dense_lags(moved) - simple.ntk).abs().max() / exact.ntk[0] > 0.2


def test_known_values_of_the_integral() -> None:
    white = batch_norm(StationaryKernel.white((16,)), epsilon=0.0, learned=False, method="integral")
    expected = torch.full((16,), -1 / 15, dtype=torch.float64)
    expected[0] = 1
    torch.testing.assert_close(white.covariance, expected, rtol=0, atol=1e-10)
    lags = blurred(12, 1.5) - blurred(12, 1.5).mean()
    covariance, _ = normalised_moments(lags, lags)
    assert abs(float(covariance[0]) - 1) < 1e-10
    assert abs(float(covariance.sum())) < 1e-10
    two_dimensional = StationaryKernel.white((4, 6))
    flat = batch_norm(two_dimensional, epsilon=0.0, learned=False, method="integral")
    assert abs(float(flat.covariance[1, 2]) + 1 / 23) < 1e-10


def test_large_images_reach_the_closed_form() -> None:
    errors = []
    for n in (64, 256, 1024):
        kernel = StationaryKernel.from_lags(blurred(n, 1.0), blurred(n, 0.7, 0.2))
        exact, simple = (
            batch_norm(kernel, epsilon=0.0, method=m) for m in ("integral", "large-image")
        )
        errors.append(float((exact.covariance - simple.covariance).abs().max()))
    # The error is of order 1/n.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(("size", "mode"), [((8,), "nearest"), ((4, 2), "bilinear")])
def test_draws_of_a_chain_agree_with_its_maps(size: tuple[int, ...], mode: str) -> None:
    start = convolve(StationaryKernel.white(size, mean=0.3), 3, Weights.ntk(1.3, 0.1))
    kernel = convolve(upsample(start, 2, mode), 3, Weights.ntk(0.9))
    draws = Draws.of(kernel, seed=1, count=30_000)
    again = draws.moments()
    exact = stride(activate(kernel, "gelu"), 2)
    steps = (slice(None), *(slice(None, None, 2),) * len(size))
    drawn = draws.apply(activation("gelu").function)
    drawn = drawn.apply(lambda x: x[steps], period=exact.period)
    for found, wanted in ((again, kernel), (drawn.moments(), exact)):
        for name in ("covariance_table", "ntk_table"):
            a, b = getattr(found, name), getattr(wanted, name)
            # Five standard errors of a product of two normal numbers, no shift being counted.
            assert (a - b).abs().max() < 5 * math.sqrt(2 / 30_000) * b.abs().max()
        assert (found.mean - wanted.mean).abs().max() < 5 * math.sqrt(float(b.max()) / 30_000)


def test_draws_hold_the_derivative_of_normalisation_with_scale_and_bias() -> None:
    n, count = 6, 60_000
    kernel = StationaryKernel.from_lags(blurred(n, 0.6), blurred(n, 0.4, 0.1))
    draws = Draws.of(kernel, seed=2, count=count).apply(lambda x: normalise(x, 1e-2)).scaled(1.3)
    moments = draws.apply(torch.relu).moments()
    # The same expectation from full Jacobians, on other draws and without random directions.
    x = kernel.sample(4000, seed=5)
    scale, bias = (torch.full((4000,), v, dtype=torch.float64) for v in (1.3, 0.0))

    def channel(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
        return torch.relu(scale * normalise(x[None], 1e-2)[0] + bias)

    by_x, by_scale, by_bias = torch.func.vmap(torch.func.jacrev(channel, (0, 1, 2)))(x, scale, bias)
    total = torch.einsum("kpi,ij,kqj->pq", by_x, kernel.to_dense("ntk"), by_x)
    total = (total + by_scale.T @ by_scale + by_bias.T @ by_bias) / 4000
    # Both are averages: 2 % is four standard errors of the smaller one.
    assert (dense_lags(total) - moments.ntk).abs().max() < 0.04 * moments.ntk[0]
