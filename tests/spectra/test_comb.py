"""Patch-grid combs: made ones, images without any, dense kernels, and real networks."""

import itertools
import math

import numpy as np
import pytest
import torch

from dipkernels import NTK
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.linalg import DenseOperator
from dipkernels.spectra import anisotropy, comb_response, comb_strength, sparsity
from helpers.priors import draw, make
from helpers.spectra import power_law


def weights_by_loops(
    size: tuple[int, ...], period: int, reach: int
) -> list[tuple[tuple[int, ...], float, list[tuple[int, ...]]]]:
    """Harmonics, their weights and neighbours, by the definition."""
    found = []
    for k in np.ndindex(*size):
        steps = [i * period for i in k]
        if not any(k) or any(s % n for s, n in zip(steps, size, strict=True)):
            continue
        square = sum((min(i, n - i) / n) ** 2 for i, n in zip(k, size, strict=True))
        around = []
        for offset in itertools.product(range(-reach, reach + 1), repeat=len(size)):
            if not any(offset):
                continue
            on_axis = len(size) > 1 and any(i == 0 and o for i, o in zip(k, offset, strict=True))
            if not on_axis:
                around.append(tuple((i + o) % n for i, o, n in zip(k, offset, size, strict=True)))
        found.append((k, square, around))
    return found


def ratio_by_loops(power: np.ndarray, period: int, reach: int) -> float:
    on = beside = 0.0
    for harmonic, weight, around in weights_by_loops(power.shape, period, reach):
        on += weight * power[harmonic]
        beside += weight * sum(power[n] for n in around) / len(around)
    return on / beside


@pytest.mark.parametrize(
    ("size", "period", "reach"), [((45,), 5, 2), ((24, 31), 4, 2), ((30, 21), 3, 1)], ids=str
)
def test_strength_by_its_definition(size: tuple[int, ...], period: int, reach: int) -> None:
    images = draw(2, 2, *size, seed=1)
    got = comb_strength(images, period, reach=reach)
    cut = tuple(slice(n // period * period) for n in size)
    for i in range(2):
        whole = images[i].numpy()[(slice(None), *cut)]
        axes = tuple(range(1, whole.ndim))
        centred = whole - whole.mean(axis=axes, keepdims=True)
        power = (np.abs(np.fft.fftn(centred, axes=axes)) ** 2).mean(axis=0)
        expected = ratio_by_loops(power, period, reach)
        assert got.strength.values[i] == pytest.approx(expected, rel=1e-10)
    assert got.harmonics == period ** len(size) - 1


@pytest.mark.parametrize(
    ("size", "period", "exponent"),
    [((96,), 8, 0.0), ((48, 64), 8, 0.0), ((48, 64), 8, 2.0)],
    ids=str,
)
def test_images_without_a_comb_have_strength_one_and_uniform_p_values(
    size: tuple[int, ...], period: int, exponent: float
) -> None:
    count = 120
    found = comb_strength(power_law(size, exponent, count, 2), period)
    spread = float(found.strength.std())
    # the bias against a slope is some percent; the mean of 120 errs by 9 % of the spread
    assert float(found.strength.mean() / found.null_mean.mean()) == pytest.approx(
        1, abs=0.05 + 4 * spread / math.sqrt(count)
    )
    assert spread == pytest.approx(float(found.null_standard_deviation.mean()), rel=0.25)
    for level in (0.05, 0.3):
        share = float((found.p_value <= level).mean())
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / count) + 0.02)


@pytest.mark.parametrize("size", [(80,), (40, 48)], ids=str)
def test_a_comb_that_is_put_in_is_found_with_its_share(size: tuple[int, ...]) -> None:
    period, share = 8, 0.3
    noise = draw(20, 1, *size, seed=3)
    tile = draw(20, 1, *(period,) * len(size), seed=4)
    axes = tuple(range(2, noise.dim()))
    tile = tile - tile.mean(dim=axes, keepdim=True)
    tile = tile / tile.square().mean(dim=axes, keepdim=True).sqrt()
    pattern = tile.repeat(1, 1, *(n // period for n in size))
    images = math.sqrt(1 - share) * noise + math.sqrt(share) * pattern
    found = comb_strength(images, period)
    # in 1D there are 7 harmonics, which a tile may miss by chance
    assert float(found.p_value.median()) < 0.005
    assert float(found.excess_share.mean()) == pytest.approx(share, abs=0.03)
    other = comb_strength(images, 5)  # a grid that it doesn't know of
    assert float(other.strength.mean()) < 1.3
    assert float(found.strength.median()) > 3 * float(other.strength.mean())


@pytest.mark.parametrize(("shape", "period"), [((2, 24), 4), ((1, 12, 15), 3)], ids=str)
def test_a_kernel_by_its_modes(shape: tuple[int, ...], period: int) -> None:
    n, size = math.prod(shape), shape[1:]
    factor = draw(n, n, seed=5)
    kernel = factor @ factor.T / n
    exact = comb_response(DenseOperator(kernel), period, shape, reach=1, probes=n)
    table = kernel.numpy().reshape(shape[0], math.prod(size), shape[0], math.prod(size))
    power = np.empty(size)
    places = np.array(list(np.ndindex(*size)))
    for k in np.ndindex(*size):
        mode = np.exp(2j * np.pi * places @ (np.array(k) / np.array(size)))
        forms = np.einsum("i,cicj,j->c", mode.conj(), table, mode) / len(mode)
        power[k] = forms.real.mean()
    expected = ratio_by_loops(power, period, 1)
    assert float(exact.strength) == pytest.approx(expected, rel=1e-11)
    assert float(exact.strength_standard_error) == 0
    scores = []
    for seed in range(60):
        found = comb_response(DenseOperator(kernel), period, shape, reach=1, probes=5, seed=seed)
        scores.append(float((found.strength - expected) / found.strength_standard_error))
    # Student's t with 4 degrees of freedom spreads by 1.4; the ratio's second order is left out
    assert abs(np.mean(scores)) < 4 * 1.4 / math.sqrt(60)
    assert 0.7 < np.std(scores) < 2.2


def test_modes_are_those_of_whole_patches() -> None:
    kernel = draw(23, 23, seed=6)
    kernel = kernel @ kernel.T
    cut = comb_response(DenseOperator(kernel), 4, (1, 23), reach=1, probes=40)
    inner = comb_response(
        DenseOperator(kernel[:20, :20].contiguous()), 4, (1, 20), reach=1, probes=40
    )
    assert float(cut.strength) == pytest.approx(float(inner.strength), rel=1e-12)


def test_stationary_kernels_are_exact_and_smooth_ones_have_no_comb() -> None:
    lag = torch.tensor([min(i, 48 - i) for i in range(48)], dtype=torch.float64)
    smooth = torch.exp(-((lag / 0.8) ** 2))
    kernel = StationaryKernel.from_lags(smooth + 1)
    found = comb_response(kernel, 4, which="covariance", reach=1)
    assert float(found.strength) == pytest.approx(1, abs=0.02)
    assert float(found.strength_standard_error) == 0
    tiles = (lag.long() % 4 == 0).double()
    combed = StationaryKernel.from_lags(smooth + 0.1 * tiles)
    expected = ratio_by_loops(torch.fft.fft(smooth + 0.1 * tiles).real.numpy(), 4, 1)
    assert float(comb_response(combed, 4, which="covariance", reach=1).strength) == pytest.approx(
        expected, rel=1e-12
    )
    assert expected > 2


def test_samples_of_a_vision_transformer_have_a_comb_and_those_of_skip_have_none() -> None:
    size, period = (24, 20), 4
    vit = make("vit", size, channels=1, patch_size=period, output="none")
    skip = make("skip", size, channels=1, output="none")
    combed, plain = (comb_strength(prior.sample(6), period) for prior in (vit, skip))
    assert (combed.p_value < 0.001).all()
    assert (combed.strength > 20).all()
    assert (combed.excess_share > 0.3).all()
    assert (plain.p_value > 0.001).all()
    assert (abs(plain.excess_share) < 0.06).all()


def test_the_kernel_of_a_vision_transformer_has_a_comb_that_layers_add_up_to() -> None:
    size, period = (16, 17), 4
    vit = make("vit", size, channels=1, patch_size=period, depth=1, output="none")
    ntk = NTK(vit, vit.init(0))
    whole, layers = (comb_response(k, period, probes=4) for k in (ntk, ntk.by_layer()))
    assert float(whole.strength) > 20
    assert layers.strength.dims == ("layer",)
    np.testing.assert_allclose(layers.harmonics.sum(), whole.harmonics, rtol=1e-10)


@pytest.mark.long
def test_the_kernel_of_skip_has_no_comb() -> None:
    skip = make("skip", (24, 20), channels=1, output="none")
    smooth = comb_response(NTK(skip, skip.init(0)), 4)
    # steep spectra bias the ratio by some percent
    assert abs(float(smooth.strength) - 1) < 0.15 + 4 * float(smooth.strength_standard_error)


def test_combs_validate_what_they_get() -> None:
    with pytest.raises(InvalidInputError, match="period of at least 2 pixels and 4 whole patches"):
        comb_strength(draw(1, 1, 12, 40), 4)
    with pytest.raises(InvalidInputError, match="reach must be 1 to 2"):
        comb_strength(draw(1, 1, 24), 4, reach=3)
    with pytest.raises(InvalidInputError, match="no comb"):
        comb_strength(torch.zeros(1, 1, 24), 4)
    kernel = StationaryKernel.white((22,))
    with pytest.raises(InvalidInputError, match="whole patches of 4 pixels only"):
        comb_response(kernel, 4, which="covariance")


def test_an_image_that_is_not_finite_has_no_comb() -> None:
    # it used to have one with p = 1 / 2001
    broken = draw(1, 1, 24, 24)
    broken[0, 0, 0, 0] = math.nan
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        comb_strength(broken, 4)
    with pytest.raises(InvalidInputError, match="NaN or infinite"):
        sparsity(broken)


def test_a_kernel_that_is_zero_beside_the_constant_has_neither_comb_nor_orientation() -> None:
    constant = StationaryKernel.from_lags(torch.ones(16, 16, dtype=torch.float64))
    assert comb_response(constant, 4, which="covariance").strength.isnull()
    assert anisotropy(constant, which="covariance").axes_over_diagonals.isnull().all()


@pytest.mark.parametrize("size", [(21,), (18, 25), (17, 16)], ids=str)
def test_constant_images_are_refused_whatever_their_mean_rounds_to(size: tuple[int, ...]) -> None:
    for value in np.random.default_rng(0).random(12):
        flat = torch.full((1, 2, *size), float(value), dtype=torch.float64)
        with pytest.raises(InvalidInputError, match="has no comb"):
            comb_strength(flat, 4)
        for basis in ("fourier", "wavelet"):
            with pytest.raises(InvalidInputError, match="a constant image"):
                sparsity(flat, basis, wavelet="haar" if basis == "wavelet" else None)
