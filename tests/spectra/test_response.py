"""Frequency responses and spectral densities, against dense Fourier and eigenvalue computations."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.integrate import trapezoid
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.linalg import DenseOperator, KrylovSpace, Lanczos, spectral_density
from dipkernels.spectra import bin_edges, frequency_response, half_power_frequency

SHAPES = [(1, 5, 8), (2, 7, 4), (3, 4, 6)]


def random_kernel(n: int, seed: int) -> Tensor:
    factor = torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factor @ factor.T / n


def radii(size: tuple[int, int]) -> np.ndarray:
    """Radius of every frequency, by its definition."""
    height, width = size
    signed = [[min(k, n - k) / n for k in range(n)] for n in size]
    return np.array(
        [[math.hypot(signed[0][i], signed[1][j]) for j in range(width)] for i in range(height)]
    )


def mode_responses(kernel: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """``e_k^H A e_k`` of every complex Fourier mode of every channel."""
    _, height, width = shape
    y, x = np.mgrid[:height, :width]
    out = np.empty(shape)
    for c, i, j in np.ndindex(shape):
        mode = np.zeros(shape, dtype=complex)
        mode[c] = np.exp(2j * np.pi * (i * y / height + j * x / width)) / np.sqrt(height * width)
        flat = mode.ravel()
        out[c, i, j] = (flat.conj() @ kernel @ flat).real
    return out


def ring_means(
    kernel: np.ndarray, shape: tuple[int, int, int], edges: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency, mean response and number of modes of every ring that has any."""
    each, radius = mode_responses(kernel, shape).mean(axis=0), radii(shape[1:])
    bounds = [0, 1e-12, *edges, 1]
    rings = [(radius >= low) & (radius < high) for low, high in pairwise(bounds)]
    rings = [ring for ring in rings if ring.any()]
    columns = [(radius[ring].mean(), each[ring].mean(), ring.sum()) for ring in rings]
    frequency, mean, modes = np.array(columns).T
    return frequency, mean, modes


@pytest.mark.parametrize("shape", SHAPES)
def test_responses_are_those_of_the_fourier_modes(shape: tuple[int, int, int]) -> None:
    n = math.prod(shape)
    kernel = random_kernel(n, sum(shape))
    # as many probes as there are modes: every ring is summed exactly
    response = frequency_response(DenseOperator(kernel), shape, probes=n)
    frequency, mean, modes = ring_means(kernel.numpy(), shape, bin_edges(shape[1:]))
    # sums of some hundred terms
    np.testing.assert_allclose(response.frequency, frequency, atol=1e-14)
    np.testing.assert_allclose(response.response, mean, rtol=1e-12)
    np.testing.assert_array_equal(response.modes, modes)
    assert (response.standard_error == 0).all()
    assert response.matvecs == n / 2


@pytest.mark.parametrize("shape", SHAPES)
def test_edges_can_be_chosen(shape: tuple[int, int, int]) -> None:
    n, edges = math.prod(shape), np.array([0.2001, 0.31])
    kernel = random_kernel(n, 7)
    response = frequency_response(DenseOperator(kernel), shape, edges=edges.tolist(), probes=n)
    frequency, mean, modes = ring_means(kernel.numpy(), shape, edges)
    np.testing.assert_allclose(response.frequency, frequency, atol=1e-14)
    np.testing.assert_allclose(response.response, mean, rtol=1e-12)
    assert response.modes.sum() == shape[1] * shape[2]
    np.testing.assert_array_equal(response.modes, modes)


def test_estimated_rings_err_as_they_say() -> None:
    shape, probes, seeds = (2, 9, 8), 20, 150
    kernel = random_kernel(math.prod(shape), 3)
    operator, edges = DenseOperator(kernel), np.array([0.16, 0.3, 0.42, 0.6])
    runs = [
        frequency_response(operator, shape, edges=edges, probes=probes, seed=seed)
        for seed in range(seeds)
    ]
    responses = np.array([run.response for run in runs])
    errors = np.array([run.standard_error for run in runs])
    _, mean, modes = ring_means(kernel.numpy(), shape, edges)
    exact = 2 * modes <= probes
    assert exact.tolist() == [True, True, False, False, False, True]
    np.testing.assert_allclose(responses[:, exact] - mean[exact], 0, atol=1e-13)
    assert (errors[:, exact] == 0).all()
    scores = (responses - mean)[:, ~exact] / errors[:, ~exact]
    # 450 scores of Student's t with 19 degrees of freedom, which spreads by 1.06
    assert (abs(scores.mean(axis=0)) < 4 / np.sqrt(seeds)).all()
    assert 0.9 < scores.std() < 1.22


def circulant(transfer: np.ndarray) -> np.ndarray:
    """Matrix of the filter with this transfer function, on flattened images of one channel."""
    size = transfer.shape
    columns = [
        np.fft.ifft2(np.fft.fft2(unit.reshape(size)) * transfer).real.ravel()
        for unit in np.eye(transfer.size)
    ]
    return np.array(columns).T


@pytest.mark.parametrize("size", [(9, 12), (16, 10)])
def test_a_filter_has_its_transfer_function(size: tuple[int, int]) -> None:
    radius = radii(size)
    transfer = np.exp(-((radius / 0.2) ** 2))
    mixing = np.array([[1.0, 0.3], [0.3, 0.5]])
    edges = bin_edges(size)
    rings = np.digitize(radius, edges) + (radius > 0)
    expected = np.array([transfer[rings == i].mean() for i in np.unique(rings)])
    one = frequency_response(
        DenseOperator(torch.from_numpy(circulant(transfer))), (1, *size), probes=2
    )
    # the modes are its eigenvectors: two probes are as good as all
    np.testing.assert_allclose(one.response, expected, atol=1e-14)
    np.testing.assert_allclose(one.standard_error, 0, atol=1e-14)
    two = frequency_response(
        DenseOperator(torch.from_numpy(np.kron(mixing, circulant(transfer)))),
        (2, *size),
        probes=400,
    )
    # the channels mix: five standard errors, of which there are 30
    assert (abs(two.response - 0.75 * expected) <= 5 * two.standard_error + 1e-13).all()
    assert (two.standard_error[two.modes > 200] < 0.02 * expected.max()).all()
    # exp(-(f / .2)^2) relative to the lowest ring, to the width of a ring
    first = float(one.frequency[1])
    half = 0.2 * math.sqrt(math.log(2) + (first / 0.2) ** 2)
    assert one.half_power_frequency == pytest.approx(half, abs=0.015)


def synthetic(frequency: list[float], response: list[float]) -> xr.Dataset:
    return xr.Dataset({"response": ("frequency", response)}, {"frequency": frequency})


@pytest.mark.parametrize(
    ("frequency", "response", "expected"),
    [
        # the first ring after the constant is the reference; linear between the rings
        ([0, 0.1, 0.2, 0.3], [9.0, 4.0, 3.0, 1.0], 0.25),
        ([0.1, 0.2, 0.3], [4.0, 3.0, 1.0], 0.25),
        # the first crossing counts
        ([0, 0.1, 0.2, 0.3, 0.4], [0.0, 1.0, 0.25, 0.75, 0.0], 0.1 + 0.1 * 2 / 3),
        # one half is not below one half
        ([0, 0.1, 0.2], [8.0, 2.0, 1.0], math.inf),
        ([0, 0.1, 0.2], [0.1, 1.0, 3.0], math.inf),
        ([0], [1.0], math.inf),
    ],
)
def test_half_power_frequency(
    frequency: list[float], response: list[float], expected: float
) -> None:
    assert half_power_frequency(synthetic(frequency, response)) == pytest.approx(expected)


def test_half_power_of_an_exponential() -> None:
    frequency = np.linspace(0.01, 0.7, 2000)
    dataset = synthetic(frequency.tolist(), np.exp(-frequency / 0.1).tolist())
    # interpolation over steps of 3.5e-4 errs by their square over 8 times the curvature
    assert half_power_frequency(dataset) == pytest.approx(0.01 + 0.1 * math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 2), (2, 3), (5, 4), (16, 16), (33, 64), (3, 40), (51, 2), (25, 31)]
)
def test_default_rings_cover_every_frequency_once(size: tuple[int, int]) -> None:
    edges = bin_edges(size)
    assert (np.diff(edges) > 0).all()
    # the lowest edge parts the constant from the first cycle, the highest lies beyond the corner
    assert 0 < edges[0] < 1 / max(size)
    assert edges[-1] > math.sqrt(0.5)
    response = frequency_response(
        DenseOperator(torch.eye(math.prod(size), dtype=torch.float64)), (1, *size), probes=2
    )
    assert response.modes.sum() == math.prod(size)
    assert response.modes[0] == 1
    assert (response.modes > 0).all()
    # sorted into rings by radius, each within its edges
    ascending, start = np.sort(radii(size).ravel()), 0
    for frequency, modes in zip(response.frequency.values, response.modes.values, strict=True):
        ring = ascending[start : start + modes]
        assert frequency == pytest.approx(ring.mean(), abs=1e-12)
        assert start == 0 or len(np.unique(np.digitize(ring + 1e-13, edges))) == 1
        start += modes
    # the identity responds to everything alike
    np.testing.assert_allclose(response.response, 1, rtol=1e-13)


@pytest.mark.parametrize("side", [64, 256, 512])
def test_default_rings_are_a_cycle_wide_at_first(side: int) -> None:
    cycles = bin_edges((side // 2, side)) * side
    assert cycles[0] == 0.5
    assert cycles[1] == pytest.approx(1.5, abs=0.15)
    assert (np.diff(cycles)[:-1] > 0.99).all()
    assert (np.diff(np.diff(cycles)[:-1]) > 0).all()
    assert len(cycles) == 15


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": (2, 4, 5)}, r"shape \(2, 4, 5\) doesn't fit a kernel of size 20"),
        ({"probes": 1}, "at least 2 probes are needed for an error bar, got 1"),
        ({"edges": [0.3, 0.1]}, r"must ascend, got \[0.3, 0.1\]"),
    ],
)
def test_frequency_response_validates_its_settings(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        frequency_response(DenseOperator(random_kernel(20, 0)), **{"shape": (1, 4, 5), **settings})


# Spectral density


def with_spectrum(eigenvalues: np.ndarray, seed: int) -> DenseOperator:
    n = len(eigenvalues)
    vectors, _ = torch.linalg.qr(
        torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    )
    return DenseOperator((vectors * torch.from_numpy(eigenvalues)) @ vectors.T)


def probes_of(operator: DenseOperator, probes: int, steps: int, seed: int) -> list[KrylovSpace]:
    return Lanczos(operator, operator.rademacher(probes, seed)).extend(steps).spaces()


def smoothed(eigenvalues: np.ndarray, grid: np.ndarray, bandwidth: float) -> np.ndarray:
    distance = (np.log10(grid)[:, None] - np.log10(eigenvalues)) / bandwidth
    return np.exp(-0.5 * distance**2).sum(axis=1) / (bandwidth * math.sqrt(2 * math.pi))


EIGENVALUES = np.concatenate([3 * 10 ** -np.linspace(0, 1, 17), 10 ** -np.linspace(2, 3, 12)])


@pytest.mark.slow
def test_density_is_the_smoothed_spectrum_within_its_errors() -> None:
    operator = with_spectrum(EIGENVALUES, 0)
    n, probes, seeds, bandwidth = len(EIGENVALUES), 16, 30, 0.2
    runs = [
        spectral_density(
            probes_of(operator, probes, n, seed), bandwidth=bandwidth, decades=5.0, points=120
        )
        for seed in range(seeds)
    ]
    truth = smoothed(EIGENVALUES, runs[0].eigenvalue.values, bandwidth)
    peaks = truth > 0.5 * truth.max()
    scores = np.array([((run.density - truth) / run.standard_error)[peaks] for run in runs])
    # Student's t with 15 degrees of freedom spreads by 1.07; neighbours on the grid hang together
    assert abs(scores.mean()) < 4 / np.sqrt(seeds)
    assert 0.8 < scores.std() < 1.35
    mean = np.mean([run.density for run in runs], axis=0)
    # 30 times 16 probes: to some percent of the highest density everywhere
    np.testing.assert_allclose(mean, truth, atol=0.05 * truth.max())
    for run in runs[:3]:
        area = trapezoid(run.density, np.log10(run.eigenvalue))
        # all of the 29 eigenvalues, but for the tails of the Gaussians beyond three bandwidths
        assert area + run.below_grid == pytest.approx(n, rel=1e-3)
        assert run.largest == pytest.approx(3, rel=1e-12)
        assert run.matvecs == probes * n


def test_density_counts_exactly_with_orthogonal_probes() -> None:
    # n orthogonal vectors of length sqrt(n) make E |v|^2 f = tr f without noise
    operator, n = with_spectrum(EIGENVALUES, 1), len(EIGENVALUES)
    rotation, _ = torch.linalg.qr(random_kernel(n, 2))
    spaces = Lanczos(operator, n**0.5 * rotation).extend(n).spaces()
    density = spectral_density(spaces, bandwidth=0.1, decades=6.0, points=300)
    truth = smoothed(EIGENVALUES, density.eigenvalue.values, 0.1)
    # Lanczos has run to the end: rounding of small nodes, through the log
    np.testing.assert_allclose(density.density, truth, atol=1e-6)
    assert density.trace == pytest.approx(EIGENVALUES.sum(), rel=1e-12)


def test_trace_of_the_density_errs_as_it_says() -> None:
    operator, seeds = with_spectrum(EIGENVALUES, 3), 60
    runs = [spectral_density(probes_of(operator, 16, 1, seed)) for seed in range(seeds)]
    # one step does: a Gauss rule of one node integrates x exactly
    scores = [(run.trace - EIGENVALUES.sum()) / run.trace_standard_error for run in runs]
    assert abs(np.mean(scores)) < 4 / np.sqrt(seeds)
    assert 0.8 < np.std(scores) < 1.35
    estimate = operator.trace(16, seed=5)
    assert runs[5].trace == pytest.approx(estimate.value, rel=1e-12)
    assert runs[5].trace_standard_error == pytest.approx(estimate.standard_error, rel=1e-10)


def test_eigenvalues_below_the_grid_are_counted() -> None:
    eigenvalues = np.concatenate([np.linspace(0.5, 1, 12), np.full(8, 1e-4), np.zeros(11)])
    rotation, _ = torch.linalg.qr(random_kernel(31, 4))
    spaces = Lanczos(with_spectrum(eigenvalues, 4), 31**0.5 * rotation).extend(31).spaces()
    wide = spectral_density(spaces, decades=6.0, bandwidth=0.1)
    assert wide.below_grid == pytest.approx(11, rel=1e-9)
    narrow = spectral_density(spaces, decades=2.0, bandwidth=0.1)
    assert narrow.below_grid == pytest.approx(19, rel=1e-9)


def test_rules_of_different_length_fill_up_with_weight_zero() -> None:
    operator = with_spectrum(EIGENVALUES, 5)
    _, vectors = torch.linalg.eigh(operator.matrix)
    starts = torch.stack([vectors[:, -2] + vectors[:, -9], operator.rademacher(1, 0)[:, 0]], dim=1)
    spaces = Lanczos(operator, starts).extend(6).spaces()
    density = spectral_density(spaces)
    assert density.nodes.shape == density.weights.shape == (2, 6)
    np.testing.assert_allclose(density.weights.sum("node"), [2, len(EIGENVALUES)], rtol=1e-12)
    assert density.matvecs == 8


def test_one_probe_has_no_error_bar() -> None:
    density = spectral_density(probes_of(with_spectrum(EIGENVALUES, 6), 1, 9, 0))
    assert density.standard_error.isnull().all()
    assert np.isnan(density.trace_standard_error)
    assert (density.density > 0).any()


def test_no_probes_and_no_operator_are_errors() -> None:
    with pytest.raises(InvalidInputError, match="at least 1 probe, got none"):
        spectral_density([])
    nothing = DenseOperator(torch.zeros(9, 9, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="operator is zero"):
        spectral_density(probes_of(nothing, 2, 3, 0))
