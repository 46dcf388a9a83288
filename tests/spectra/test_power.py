"""Power spectra against NumPy's FFT, closed forms, and fields of known exponents."""

import functools
import math

import numpy as np
import pytest
import torch

from dipkernels import images as image_files
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import covariance
from dipkernels.spectra import (
    bin_edges,
    frequency_response,
    half_power_frequency,
    natural_spectrum,
    periodogram,
    prior_spectrum,
    radial_power,
    roll_off,
)
from helpers.priors import draw, draw_size, make
from helpers.spectra import power_law

SIZES = [draw_size(seed, dims) for dims in (1, 2) for seed in range(3)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("window", ["none", "hann"])
def test_a_periodogram_is_numpys_of_each_channel(size: tuple[int, ...], window: str) -> None:
    images = draw(2, 3, *size, seed=1) + 5
    lines = [
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) if window == "hann" else np.ones(n)
        for n in size
    ]
    weights = functools.reduce(np.multiply.outer, lines)
    got = periodogram(images, window=window)
    for i, c in np.ndindex(2, 3):
        plain = images[i, c].numpy()
        centred = plain - np.average(plain, weights=weights)
        expected = np.abs(np.fft.fftn(weights * centred)) ** 2 / (weights**2).sum()
        # some hundred terms of order 1
        np.testing.assert_allclose(got[i, c], expected, atol=1e-11)
        assert got[i, c].flatten()[0] < 1e-20


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("centre", [True, False])
def test_rings_add_up_to_the_mean_square(size: tuple[int, ...], centre: bool) -> None:
    images = draw(4, 2, *size, seed=2) + 0.7
    spectrum = radial_power(images, centre=centre)
    axes = tuple(range(2, images.dim()))
    expected = images.var(axes, correction=0) if centre else images.square().mean(axes)
    total = (spectrum.modes * spectrum.image_power).sum("frequency") / math.prod(size)
    np.testing.assert_allclose(total, expected.mean(dim=1), rtol=1e-13)
    np.testing.assert_allclose(spectrum.power, spectrum.image_power.mean("image"), rtol=1e-13)
    error = spectrum.image_power.std("image", ddof=1) / 2
    np.testing.assert_allclose(spectrum.standard_error, error, rtol=1e-12)


@pytest.mark.parametrize(("size", "wave"), [((15,), (2,)), ((12, 21), (3, 2)), ((9, 16), (0, 4))])
def test_a_cosine_has_its_power_in_its_ring(size: tuple[int, ...], wave: tuple[int, ...]) -> None:
    grids = np.meshgrid(*(np.arange(n) / n for n in size), indexing="ij")
    phase = 2 * np.pi * sum(k * grid for k, grid in zip(wave, grids, strict=True))
    image = torch.from_numpy(3 + 0.8 * np.cos(phase + 0.3))[None, None]
    spectrum = radial_power(image)
    radius = math.hypot(*(k / n for k, n in zip(wave, size, strict=True)))
    ring = np.digitize(radius, bin_edges(size))
    rings = np.digitize(spectrum.frequency.values[1:], bin_edges(size))
    total = (spectrum.power * spectrum.modes).values / math.prod(size)
    # amplitude^2 / 2, the mean square of a cosine
    np.testing.assert_allclose(total[1:], np.where(rings == ring, 0.32, 0), atol=1e-13)
    assert math.isnan(spectrum.standard_error[1])


@pytest.mark.parametrize("window", ["none", "hann"])
@pytest.mark.parametrize("size", [(255,), (33, 24)], ids=str)
def test_white_noise_is_flat_within_its_errors(size: tuple[int, ...], window: str) -> None:
    count, channels, sigma = 60, 2, 0.3
    noise = sigma * draw(count, channels, *size, seed=3)
    spectrum = radial_power(noise, window=window, centre=False)
    # 15 rings, each a mean of 120 times some squares of normal numbers
    scores = (spectrum.power - sigma**2) / spectrum.standard_error
    assert (abs(scores) < 4.5).all()
    assert 0.5 < float((scores**2).mean()) < 2.2
    # chi-square: k and -k are one, so that m modes of c channels have 2 / (c m) of the mean squared
    expected = sigma**2 * np.sqrt(2 / (channels * spectrum.modes * count))
    if window == "none":
        ratio = (spectrum.standard_error / expected)[1:]
        # an estimated deviation of 60 images errs by 9 %, of few modes by more
        assert (abs(ratio - 1) < 0.45).all()


@pytest.mark.parametrize("size", [(513,), (48, 65)], ids=str)
@pytest.mark.parametrize("exponent", [0.0, 1.3, 3.0])
def test_the_exponent_of_a_power_law_is_found_within_its_error(
    size: tuple[int, ...], exponent: float
) -> None:
    # rings thin enough that the mean over one is the value at its mean radius
    edges = np.geomspace(0.06, 0.5, 19 if len(size) == 2 else 16)
    scores = []
    for seed in range(30):
        fields = power_law(size, exponent, 16, seed)
        found = roll_off(radial_power(fields, edges=edges), low=0.06)
        scores.append((found.exponent - exponent) / found.standard_error)
        assert found.misfit < 0.15
        assert found.low > 0.06
        assert found.high <= 0.5
    # Student's t with 15 degrees of freedom spreads by 1.07
    assert abs(np.mean(scores)) < 4 / math.sqrt(30)
    assert 0.7 < np.std(scores) < 1.5


def test_the_classical_error_and_the_misfit_are_those_of_the_regression() -> None:
    spectrum = radial_power(power_law((31, 40), 2.0, 1, 5))
    found = roll_off(spectrum, low=0.03, high=0.4)
    f, p = spectrum.frequency.values, spectrum.power.values
    use = (f >= 0.03) & (f <= 0.4)
    design = np.stack([np.ones(use.sum()), np.log10(f[use])], axis=1)
    coefficients, squares, *_ = np.linalg.lstsq(design, np.log10(p[use]), rcond=None)
    cov = np.linalg.inv(design.T @ design) * squares[0] / (use.sum() - 2)
    assert found.exponent == pytest.approx(-coefficients[1], rel=1e-10)
    assert found.line_error == pytest.approx(math.sqrt(cov[1, 1]), rel=1e-9)
    assert found.misfit == pytest.approx(math.sqrt(squares[0] / use.sum()), rel=1e-9)
    assert math.isnan(found.standard_error)  # a single image doesn't tell


def test_the_spectrum_of_a_prior_is_that_of_its_samples_and_its_second_moment() -> None:
    prior = make("conv", (13, 18), channels=2, output="none")
    spectrum = prior_spectrum(prior, 12, seed=3, centre=False)
    expected = radial_power(prior.sample(12, seed=3), centre=False)
    np.testing.assert_allclose(spectrum.image_power, expected.image_power, rtol=1e-9)
    assert spectrum.attrs["prior"] == prior.name
    second = covariance(prior, 12, seed=3, boundary="circular", tests=False)
    response = frequency_response(second)
    # the FFT of the mean over circular lags is the mean power
    np.testing.assert_allclose(response.response, spectrum.power, rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(response.frequency, spectrum.frequency, rtol=1e-14)
    assert response.standard_error.isnull().all()


@pytest.mark.parametrize("size", [(17,), (9, 12)], ids=str)
def test_a_window_of_lags_has_the_forms_of_its_modes(size: tuple[int, ...]) -> None:
    prior = make("conv", size, channels=2, output="none")
    found = covariance(prior, 8, boundary="linear", max_lag=4, tests=False)
    response = frequency_response(found, edges=[0.1, 0.31])
    side, dims = 5, len(size)
    lags = np.array(list(np.ndindex(*(side,) * dims)))
    table = found.kernel.values
    dense = np.array([[table[tuple(b - a + 4)] for b in lags] for a in lags])
    grid = np.array([np.fft.fftfreq(side)[list(k)] for k in lags])
    modes = np.exp(2j * np.pi * lags @ grid.T) / side ** (dims / 2)
    forms = np.einsum("ik,ij,jk->k", modes.conj(), dense, modes).real
    radius = np.linalg.norm(grid, axis=1)
    which = np.digitize(radius, [1e-9, 0.1, 0.31])
    expected = [forms[which == ring].mean() for ring in np.unique(which)]
    np.testing.assert_allclose(response.response, expected, rtol=1e-10)


def test_photographs_fall_as_published() -> None:
    spectrum = natural_spectrum((64, 80))
    assert spectrum.image.values.tolist()[0] == "astronaut"
    image = image_files.load("astronaut", size=(64, 80)).double()
    image = image / image.flatten(1).std(dim=1, correction=0).mean()
    one = radial_power(image[None], window="hann")
    np.testing.assert_allclose(spectrum.image_power[0], one.power, rtol=1e-12)
    found = roll_off(spectrum)
    # 1.6 to 3.0 for scenes (Tolhurst et al. 1992); made smaller they have lost some
    assert 1.6 < found.exponent < 3.5
    assert half_power_frequency(spectrum) < 0.1


def test_spectra_validate_what_they_get() -> None:
    with pytest.raises(InvalidInputError, match=r"got shape \(5, 6\): image\[None\]"):
        periodogram(torch.ones(5, 6))
    with pytest.raises(InvalidInputError, match="window must be one of none, hann, got 'box'"):
        radial_power(torch.ones(1, 1, 9), window="box")
    with pytest.raises(InvalidInputError, match="must ascend"):
        radial_power(torch.ones(1, 1, 9), edges=[0.3, 0.2])
    with pytest.raises(InvalidInputError, match="no image is named"):
        natural_spectrum(16, names=[])
    flat = radial_power(draw(1, 1, 40))
    with pytest.raises(InvalidInputError, match=r"at least 3 bins between 0.0 and 0.01 .* got 0"):
        roll_off(flat, high=0.01)
    with pytest.raises(InvalidInputError, match="all positive"):
        roll_off(flat.assign(power=0 * flat.power))
    with pytest.raises(InvalidInputError, match="over frequency alone"):
        roll_off(flat[["image_power"]])


def test_a_spectrum_without_a_positive_lowest_ring_has_no_half_power() -> None:
    flat = radial_power(draw(1, 1, 40))
    for value in (0.0, -1.0, math.nan):
        power = flat.power.copy()
        power[1] = value
        assert math.isnan(half_power_frequency(flat.assign(power=power)))
    with pytest.raises(InvalidInputError, match="a power law needs"):
        roll_off(flat.assign(power=flat.power / 0.0))
    for edges in (np.array(0.1), np.array(["a"]), np.ones((2, 2))):
        with pytest.raises(InvalidInputError, match=r"edges .*must be"):
            radial_power(draw(1, 1, 40), edges=edges)
