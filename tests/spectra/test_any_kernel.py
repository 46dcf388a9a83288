"""One response for every kind of kernel: in 1D, of stationary kernels, by orientation."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels import NTK
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import covariance
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.linalg import DenseOperator
from dipkernels.spectra import anisotropy, frequency_response, roll_off
from helpers.priors import draw, make


def positive(n: int, seed: int) -> Tensor:
    factor = draw(n, n, seed=seed)
    return factor @ factor.T / n


def forms_of_modes(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """``e^H A e`` of every complex Fourier mode, averaged over the channels."""
    size = shape[1:]
    places = np.array(list(np.ndindex(*size)))
    table = kernel.reshape(shape[0], len(places), shape[0], len(places))
    out = np.empty(size)
    for k in np.ndindex(*size):
        mode = np.exp(2j * np.pi * places @ (np.array(k) / np.array(size)))
        out[k] = (np.einsum("i,cicj,j->c", mode.conj(), table, mode).real / len(places)).mean()
    return out


@pytest.mark.parametrize("shape", [(1, 13), (2, 16)], ids=str)
def test_signals_have_a_response(shape: tuple[int, ...]) -> None:
    n = math.prod(shape)
    kernel = positive(n, 1)
    response = frequency_response(DenseOperator(kernel), shape, edges=[0.11, 0.3], probes=n)
    forms = forms_of_modes(kernel.numpy(), shape)
    radius = np.abs(np.fft.fftfreq(shape[1]))
    which = np.digitize(radius, [1e-9, 0.11, 0.3])
    for i, ring in enumerate(np.unique(which)):
        assert float(response.response[i]) == pytest.approx(forms[which == ring].mean(), rel=1e-12)
        assert float(response.frequency[i]) == pytest.approx(radius[which == ring].mean())
    default = frequency_response(DenseOperator(kernel), shape)
    assert int(default.modes.sum()) == shape[1]


@pytest.mark.parametrize("which", ["covariance", "ntk"])
@pytest.mark.parametrize("size", [(15,), (8, 11)], ids=str)
def test_stationary_kernels_are_exact(size: tuple[int, ...], which: str) -> None:
    dims = len(size)
    table = draw(*(1,) * dims, *size, seed=2)
    table = table + table.flip(tuple(range(dims, 2 * dims))).roll(
        (1,) * dims, tuple(range(dims, 2 * dims))
    )
    kernel = StationaryKernel(table, 2 * table + 1, torch.zeros((1,) * dims, dtype=torch.float64))
    exact = frequency_response(kernel, which=which)
    dense = DenseOperator(kernel.to_dense(which))
    probed = frequency_response(dense, (1, *size), probes=math.prod(size))
    np.testing.assert_allclose(exact.response, probed.response, rtol=1e-10, atol=1e-12)
    assert (exact.standard_error == 0).all()
    assert exact.matvecs == 0
    assert exact.sizes == probed.sizes
    assert set(exact.attrs) == set(probed.attrs)


def test_layers_have_summaries_and_need_no_shape() -> None:
    prior = make("conv", (9, 8), channels=1, width=4)
    ntk = NTK(prior, prior.init(0))
    whole, layers = frequency_response(ntk), frequency_response(ntk.by_layer())
    np.testing.assert_allclose(layers.response.sum("layer"), whole.response, rtol=1e-10)
    expected = roll_off(layers.isel(layer=1))
    assert float(layers.roll_off[1]) == pytest.approx(expected.exponent)
    assert whole.roll_off == roll_off(whole).exponent
    assert whole.roll_off_standard_error == roll_off(whole).standard_error


def oriented(size: tuple[int, int], along_x: float) -> np.ndarray:
    """Transfer function that is weaker for waves along x, and falls as ``f ** -1``."""
    fy, fx = np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij")
    radius = np.hypot(fy, fx)
    angle = np.degrees(np.arctan2(abs(fy), abs(fx)))
    return np.where(angle < 22.5, along_x, 1.0) / np.maximum(radius, 0.01)


@pytest.mark.parametrize("size", [(64, 48), (51, 57)], ids=str)
def test_orientation_is_found(size: tuple[int, int]) -> None:
    for along_x in (1.0, 0.5):
        transfer = oriented(size, along_x)
        lags = torch.from_numpy(np.fft.ifft2(transfer).real)
        found = anisotropy(StationaryKernel.from_lags(lags), which="covariance")
        # few frequencies, of different mean radii, in the lowest octave; many in the others
        for ratio, expected in (
            (found.horizontal_over_vertical, along_x),
            (found.axes_over_diagonals, (1 + along_x) / 2),
        ):
            np.testing.assert_allclose(ratio[0], expected, rtol=0.08)
            np.testing.assert_allclose(ratio[1:], expected, rtol=0.02)
        assert (found.axes_over_diagonals_standard_error == 0).all()


def test_orientation_by_its_definition_and_its_errors() -> None:
    shape, edges = (1, 13, 16), [0.1, 0.3, 0.5]
    kernel = positive(math.prod(shape), 3)
    forms = forms_of_modes(kernel.numpy(), shape)
    fy, fx = np.meshgrid(*(abs(np.fft.fftfreq(n)) for n in shape[1:]), indexing="ij")
    radius, angle = np.hypot(fy, fx), np.degrees(np.arctan2(fy, fx))
    ring = (radius >= 0.1) & (radius < 0.3)
    h = forms[ring & (angle < 22.5)].mean()
    v = forms[ring & (angle >= 67.5)].mean()
    d = forms[ring & (angle >= 22.5) & (angle < 67.5)].mean()
    exact = anisotropy(DenseOperator(kernel), shape, edges=edges, probes=200)
    assert float(exact.axes_over_diagonals[0]) == pytest.approx((h + v) / (2 * d), rel=1e-12)
    assert float(exact.horizontal_over_vertical[0]) == pytest.approx(h / v, rel=1e-12)
    assert int(exact.modes[0].sum()) == ring.sum()
    scores = []
    for seed in range(80):
        found = anisotropy(DenseOperator(kernel), shape, edges=edges, probes=8, seed=seed)
        for name in ("axes_over_diagonals", "horizontal_over_vertical"):
            scores.append((found[name] - exact[name]) / found[f"{name}_standard_error"])
    # Student's t with some 8 degrees of freedom spreads by 1.15
    assert (abs(np.mean(scores, axis=0)) < 5 * 1.15 / math.sqrt(160)).all()
    assert 0.75 < np.std(scores) < 1.5


def test_responses_say_what_they_need() -> None:
    kernel, dense = StationaryKernel.white((8, 9)), DenseOperator(positive(12, 4))
    with pytest.raises(InvalidInputError, match="say which, 'covariance' or 'ntk'; got None"):
        frequency_response(kernel)
    with pytest.raises(InvalidInputError, match="shape and probes have no effect"):
        frequency_response(kernel, which="ntk", probes=4)
    with pytest.raises(InvalidInputError, match="which='ntk' is for stationary kernels"):
        frequency_response(dense, (1, 12), which="ntk")
    with pytest.raises(InvalidInputError, match="doesn't know the shape"):
        frequency_response(dense)
    with pytest.raises(InvalidInputError, match="orientation is of 2D images"):
        anisotropy(dense, (1, 12))
    with pytest.raises(InvalidInputError, match="frequencies of all orientations in each bin"):
        anisotropy(kernel, which="covariance", edges=[0.11, 0.12])
    prior = make("conv", (12,), channels=1)
    found = covariance(prior, 8, tests=False)
    with pytest.raises(InvalidInputError, match="leave it out"):
        frequency_response(found, which="covariance")
    with pytest.raises(InvalidInputError, match="with kernel"):
        frequency_response(found[["mean"]])
