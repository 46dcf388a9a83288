"""Functions of distance and measured kernels, against SciPy, sums and kernels that are known."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.special
import torch
import xarray as xr
from torch import Tensor

from dipkernels import kernels, networks
from dipkernels.errors import InvalidInputError
from dipkernels.gp import GaussianProcess, LagKernel, from_covariance, matern, rbf
from dipkernels.gp.lags import log_lengthscale_derivative
from dipkernels.kernels.stationary import StationaryKernel
from helpers.gp_cases import phased, smooth

DISTANCES = torch.linspace(0.01, 9, 40, dtype=torch.float64)


@pytest.mark.parametrize("smoothness", [0.5, 1.5, 2.5])
def test_matern_is_that_of_bessel_functions(smoothness: float) -> None:
    x = math.sqrt(2 * smoothness) * DISTANCES.numpy() / 1.7
    bessel = 2 ** (1 - smoothness) / math.gamma(smoothness) * x**smoothness
    expected = 0.3 * bessel * scipy.special.kv(smoothness, x)
    found = matern(1.7, 0.3, smoothness=smoothness)(DISTANCES)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", [rbf(1.3, 0.2), matern(2.1, 0.4), matern(2.0, smoothness=2.5)])
def test_derivative_by_the_length_scale(kernel: LagKernel) -> None:
    step = 1e-6
    up, down = (
        replace(kernel, lengthscale=kernel.lengthscale * math.exp(s))(DISTANCES)
        for s in (step, -step)
    )
    slope = log_lengthscale_derivative(kernel, DISTANCES)
    torch.testing.assert_close(slope, (up - down) / (2 * step), rtol=1e-7, atol=1e-9)


def test_a_torus_sees_all_copies() -> None:
    kernel = matern(2.0, 0.5)
    found = GaussianProcess(kernel, periodic=True).covariance((5, 6)).to_dense()[0].reshape(5, 6)
    copies = torch.arange(-12, 13, dtype=torch.float64)
    for i, j in ((0, 0), (1, 4), (3, 3)):
        distance = ((i + 5 * copies[:, None]) ** 2 + (j + 6 * copies) ** 2).sqrt()
        # beyond 12 turns: exp(-sqrt(3) 60 / 2)
        assert float(found[i, j]) == pytest.approx(float(kernel(distance).sum()), rel=1e-12)


def test_the_torus_is_no_larger_than_the_kernel_reaches() -> None:
    short = GaussianProcess(rbf(1.0)).covariance((40, 30))
    assert 40 < short.torus[0] < 56
    process = GaussianProcess(matern(20.0, smoothness=0.5))
    long = process.covariance((40, 30))
    assert 79 <= long.torus[0] < 90
    assert not long.definite
    enlarged = process.covariance((40, 30), definite=True)
    assert enlarged.definite
    torch.testing.assert_close(enlarged.to_dense(), long.to_dense(), rtol=1e-14, atol=0)


def test_tables_that_are_constant_far_off_are_shortened() -> None:
    kernel = smooth(60, 80)
    table = kernel.covariance + 0.3
    process = GaussianProcess(StationaryKernel.from_lags(table))
    short = process.covariance((25, 33))
    # two filters of 3 taps and their autocorrelation reach 4 pixels
    assert [n < 45 for n in short.torus] == [True, True]
    whole = process.covariance((25, 33), definite=True)
    assert whole.torus == (60, 80)
    torch.testing.assert_close(short.to_dense(), whole.to_dense(), rtol=0, atol=0)


def _measured(kernel: StationaryKernel, reach: int) -> xr.Dataset:
    """What a perfect estimate of the kernel would be."""
    lags = np.arange(-reach, reach + 1)
    dims = ("lag_y", "lag_x")[2 - kernel.dims :]
    index = np.ix_(*[lags % n for n in kernel.size])
    table = kernel.covariance_table.numpy()[(..., *index)]
    phases = ("phase_y", "phase_x")[2 - kernel.dims :]
    return xr.Dataset(
        {
            "kernel": (dims, kernel.covariance.numpy()[index]),
            "phase_kernel": (phases + dims, table),
        },
        coords=dict.fromkeys(dims, lags),
    )


@pytest.mark.parametrize("size", [(16, 20), (24,)])
def test_a_measured_kernel_is_put_on_a_torus(size: tuple[int, ...]) -> None:
    kernel = phased(*size)
    half = min(size) // 2
    wide = _measured(kernel, half)
    for phases, expected in ((True, kernel), (False, kernel.phase_averaged())):
        found = from_covariance(wide, phases=phases)
        assert found.kernel.period == expected.period
        if len(size) == 1:  # the very torus it came from, so that nothing is negative
            assert found.removed < 1e-12
            torch.testing.assert_close(
                found.kernel.covariance_table, expected.covariance_table, atol=1e-13, rtol=0
            )
        assert found.kernel.eigenvalues().min() > -1e-12


def test_noise_is_taken_off_the_spectrum() -> None:
    truth = smooth(20, 20)
    dataset = _measured(truth, 10)
    noise = torch.randn(21, 21, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noise = 0.002 * (noise + noise.flip(0, 1))
    found = from_covariance(dataset.assign(kernel=dataset.kernel + noise.numpy()))
    assert 0.01 < found.removed < 0.5
    assert found.kernel.eigenvalues().min() > -1e-12
    # the nearest definite kernel is at least as near to any definite one as the estimate is
    noisy = found_table(dataset.kernel.values + noise.numpy())
    distance = (found.kernel.covariance - truth.covariance).norm()
    assert distance < (noisy - truth.covariance).norm()


def found_table(values: np.ndarray) -> Tensor:
    take = np.arange(-10, 10) % 20
    wrapped = np.zeros((20, 20))
    wrapped[np.ix_(take, take)] = values[:20, :20]
    even = torch.from_numpy(wrapped)
    return (even + even.flip(0, 1).roll((1, 1), (0, 1))) / 2


def test_a_network_s_own_covariance_serves() -> None:
    prior = networks.create("conv", image_size=24, channels=8, width=8, output="none")
    dataset = kernels.covariance(prior, 32, codes="noise", max_lag=12, tests=False)
    found = from_covariance(dataset)
    assert found.kernel.size == (24, 24)
    assert GaussianProcess(found.kernel).sample((1, 12, 12), 2).shape == (2, 1, 12, 12)
    with pytest.raises(InvalidInputError, match="no phase_kernel"):
        from_covariance(dataset, phases=True)
    with pytest.raises(InvalidInputError, match="lags alone"):
        from_covariance(dataset[["kernel"]].expand_dims("batch"))


def test_kernels_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="lengthscale must be positive"):
        rbf(0.0)
    with pytest.raises(InvalidInputError, match="smoothness must be one of"):
        matern(1.0, smoothness=2.0)
    with pytest.raises(InvalidInputError, match="must be 1"):
        LagKernel("twice", lambda d: 2 * torch.exp(-d), 1.0)
    with pytest.raises(InvalidInputError, match="hasn't fallen off"):
        GaussianProcess(matern(300.0), periodic=True).covariance((8,))
