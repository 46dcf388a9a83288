"""Scores: closed forms, dense formulas and Lanczos against each other; ranks against SciPy."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch
from torch import Tensor, nn

from dipkernels import ImagePrior, networks, tasks
from dipkernels.base.seeds import derive, generator
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK, covariance
from dipkernels.tasks import Task
from dipkernels.theory import (
    KernelSpectrum,
    covariance_spectrum,
    expand,
    kernel_spectrum,
    predicted_peak,
    rank_agreement,
    score,
    stationary_wiener,
)
from dipkernels.theory.agreement import _bootstrap

SIZE, N, SIGMA = (5, 7), 35, 0.2


class Linear(nn.Module):
    """The image ``factor @ weights``, whose kernel is ``factor factor^T`` everywhere."""

    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(factor.shape[1], dtype=torch.float64))
        self.register_buffer("factor", factor)

    def forward(self, code: Tensor) -> Tensor:
        return code * (self.factor @ self.weights).reshape(1, 1, *SIZE)


def prior_of(factor: np.ndarray) -> ImagePrior:
    tensor = torch.from_numpy(factor)
    return ImagePrior(
        lambda: Linear(tensor), torch.ones(1, dtype=torch.float64), name="linear", check=False
    )


def random_basis(seed: int, n: int = N) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((n, n)))[0]


def clean_image(seed: int = 0) -> Tensor:
    rows, columns = (torch.linspace(0, 1, side, dtype=torch.float64) for side in SIZE)
    stream = generator("test image", seed)
    phase = torch.rand(2, generator=stream, dtype=torch.float64)
    waves = torch.cos(3 * rows + phase[0])[:, None] * torch.sin(4 * columns + phase[1])
    return (0.5 + 0.4 * waves)[None]


def make_task(seed: int = 0, sigma: float = SIGMA) -> Task:
    return tasks.denoise(clean_image(seed), noise_sigma=sigma, seed=seed)


def conv_prior(width: int = 6) -> ImagePrior:
    prior = networks.create("conv", image_size=SIZE, channels=1, width=width)
    return prior.to(dtype=torch.float64)


# Closed forms


@pytest.mark.parametrize("rank", [1, 9, N])
def test_a_projection_has_the_peak_of_one_exponential(rank: int) -> None:
    # On a kernel a P with a projection P the error is e^2 |P r|^2 + |(1 - P) r|^2
    # + sigma^2 rank (1 - e)^2, e = exp(-a t), least at e = s / (p + s), s = sigma^2 rank.
    basis = random_basis(rank)[:, :rank]
    task = make_task(rank)
    residual = task.clean.numpy().ravel()  # the network starts at 0
    within = float(np.square(basis.T @ residual).sum())
    outside = float(np.square(residual).sum()) - within
    noise = SIGMA**2 * rank
    best = noise / (within + noise)
    mse = (outside + within * noise / (within + noise)) / N
    found = score(prior_of(1.7 * basis), task)
    # bounded minimisation stops at 1e-5 in log time; the value is flat there, to its square
    assert float(found.psnr[0, 0]) == pytest.approx(-10 * math.log10(mse), abs=1e-8)
    assert float(found.time[0, 0]) == pytest.approx(-math.log(best) / 1.7**2, rel=1e-4)
    assert float(found.degrees_of_freedom[0, 0]) == pytest.approx(rank * (1 - best), rel=1e-4)
    assert bool(found.resolved.all())
    assert float(found.psnr_lower[0, 0]) <= float(found.psnr[0, 0]) <= float(found.psnr_upper[0, 0])


def kernel_matrix(seed: int, decades: float = 6) -> np.ndarray:
    basis = random_basis(seed)
    return (basis * np.geomspace(1, 10**-decades, N)) @ basis.T


def test_given_noise_the_curve_is_that_of_one_fit_and_its_mean_the_expected_one() -> None:
    matrix, task = kernel_matrix(3), make_task()
    spectrum = KernelSpectrum.of_matrix(matrix)
    residual = task.clean.numpy().ravel() - 0.1
    noise = (task.measurement - task.clean).numpy().ravel()
    peak = predicted_peak(spectrum.expand(residual, 0.0, noise=noise))

    def error(t: float, noise: np.ndarray) -> float:
        decay = scipy.linalg.expm(-t * matrix)
        return float(np.square(decay @ residual - noise + decay @ noise).mean())

    # expm rounds at 1e-13
    assert peak.psnr == pytest.approx(-10 * math.log10(error(peak.time, noise)), abs=1e-9)
    for factor in (0.5, 0.9, 1.1, 2.0):
        assert error(factor * peak.time, noise) > error(peak.time, noise)
    expected = predicted_peak(spectrum.expand(residual, SIGMA))
    draws = SIGMA * np.random.default_rng(4).standard_normal((4000, N))
    decay = scipy.linalg.expm(-expected.time * matrix)
    errors = np.square(residual @ decay - draws + draws @ decay).mean(axis=1)
    margin = 4 * errors.std() / np.sqrt(len(errors))
    mse = 10 ** (-expected.psnr / 10)
    assert abs(errors.mean() - mse) < margin < 0.1 * mse


def test_the_band_covers_what_a_perturbed_kernel_predicts() -> None:
    matrix, residual = kernel_matrix(5), make_task(2).clean.numpy().ravel()
    rng = np.random.default_rng(6)
    exact = KernelSpectrum.of_matrix(matrix)
    for size in (1e-7, 1e-6, 1e-5):
        moved = rng.standard_normal((N, N))
        moved = moved @ moved.T  # stays positive
        moved *= size / np.linalg.norm(moved, 2)
        other = predicted_peak(KernelSpectrum.of_matrix(matrix + moved).expand(residual, SIGMA))
        band = predicted_peak(dataclasses.replace(exact, rounding=size).expand(residual, SIGMA))
        assert band.lower <= other.psnr <= band.upper
        assert band.upper - band.lower < 20  # says something
        assert abs(other.psnr - band.psnr) > 1e-9


# Networks


@pytest.mark.slow
def test_the_dense_kernel_is_that_of_products_with_and_without_a_metric() -> None:
    prior = conv_prior()
    parameters = prior.init(1)
    metric = {k: torch.rand(v.shape, generator=generator("t", 2)) for k, v in parameters.items()}
    for ntk in (NTK(prior, parameters), NTK(prior, parameters, metric=metric)):
        found = kernel_spectrum(ntk)
        matrix = (found.vectors * found.values) @ found.vectors.T
        dense = ntk.to_dense().numpy()
        # both round at some eps times the largest eigenvalue
        np.testing.assert_allclose(matrix, dense, atol=1e-13 * found.values[-1])
        assert found.rounding == pytest.approx(2 * N * np.finfo(float).eps * found.values[-1])
    assert np.abs(dense - NTK(prior, parameters).to_dense().numpy()).max() > 0.01


@pytest.mark.slow
def test_lanczos_agrees_with_the_dense_score_within_its_band() -> None:
    prior, task = conv_prior(), make_task(1, 0.1)
    dense = score(prior, task, seed=3)
    assert dense.method == "dense"
    assert dense.matvecs.values.tolist() == [N]
    truth = float(dense.psnr[0, 0])
    widths = []
    for steps in (4, 8, N):
        found = score(prior, task, seed=3, method="lanczos", steps=steps, probes=2)
        lower, upper = float(found.psnr_lower[0, 0]), float(found.psnr_upper[0, 0])
        # the grid of times misses the peak by at most 1e-3 dB
        assert lower - 1e-3 <= truth <= upper + 1e-3
        assert lower <= float(found.psnr[0, 0]) <= upper
        widths.append(upper - lower)
    assert widths[0] > 2 * widths[-1]
    assert bool(found.resolved.all())
    assert abs(float(found.psnr[0, 0]) - truth) < max(widths[-1], 1e-3)
    assert float(found.degrees_of_freedom[0, 0]) == pytest.approx(
        float(dense.degrees_of_freedom[0, 0]), rel=0.15
    )


@pytest.mark.slow
def test_estimate_with_exact_probes_and_all_steps_is_the_dense_peak() -> None:
    prior, task = conv_prior(), make_task(1, 0.1)
    ntk = NTK(prior, prior.init(0))
    peak = predicted_peak(expand(ntk, task, steps=N, probes=400, tolerance=0))
    dense = score(prior, task)
    # 400 probes: the variance's error is at most sqrt(2 / (400 tr A)) relatively, below 4 %
    assert peak.psnr == pytest.approx(float(dense.psnr[0, 0]), abs=0.1)


def test_missing_pixels_are_scored_by_lanczos() -> None:
    prior, mask = conv_prior(), torch.arange(N).reshape(SIZE) % 3 != 0
    task = tasks.inpaint(clean_image(), mask, noise_sigma=0.0)
    found = score(prior, task, steps=20)
    assert found.method == "lanczos"
    assert found.steps == 20
    assert np.isfinite(found.psnr).all()
    assert np.isnan(found.degrees_of_freedom).all()
    with pytest.raises(InvalidInputError, match="missing pixels"):
        score(prior, task, method="dense")


def test_a_smooth_kernel_scores_above_a_white_one_for_a_smooth_image() -> None:
    y, x = (axis.ravel() for axis in np.mgrid[: SIZE[0], : SIZE[1]])
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    smooth = np.linalg.cholesky(np.exp(-np.square(distance) / 8) + 1e-10 * np.eye(N))
    scores = [score(prior_of(f), make_task()).score for f in (smooth, np.eye(N))]
    assert scores[0] > scores[1] + 3
    # white: one exponential, see above, with P = 1
    power = float(make_task().clean.square().sum())
    assert scores[1] == pytest.approx(
        -10 * math.log10(power * SIGMA**2 / (power + N * SIGMA**2)), abs=1e-6
    )


@pytest.mark.slow
def test_several_images_and_seeds_have_each_their_score() -> None:
    prior = conv_prior()
    both = [make_task(0), make_task(1)]
    found = score(prior, both, seed=(0, 4))
    assert dict(found.sizes) == {"image": 2, "seed": 2}
    for i, seed in ((0, 4), (1, 0)):
        alone = score(prior, both[i], seed=seed)
        assert float(found.psnr.sel(seed=seed)[i]) == pytest.approx(float(alone.psnr[0, 0]))
    of_seed = found.psnr.mean("image")
    assert found.score == pytest.approx(float(of_seed.mean()))
    assert found.score_spread == pytest.approx(abs(float(of_seed[0] - of_seed[1])) / math.sqrt(2))
    assert math.isnan(alone.score_spread)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "exact"}, "method must be one of auto, dense, lanczos, got 'exact'"),
        ({"steps": 10}, "no effect on the dense method"),
        ({"method": "dense", "probes": 4}, "no effect on the dense method"),
        ({"method": "lanczos", "steps": 1}, "at least 2 steps"),
        ({"method": "lanczos", "probes": 0}, "at least 1 probe"),
        ({"seed": ()}, "at least one task and one seed"),
    ],
)
def test_options_without_effect_or_sense_are_errors(options: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        score(conv_prior(), make_task(), **options)


def test_tasks_that_have_no_score_are_errors() -> None:
    prior = conv_prior()
    nobody_knows = tasks.denoise(measurement=make_task().measurement, noise_sigma=0.1)
    with pytest.raises(InvalidInputError, match="tasks of other images"):
        score(prior, nobody_knows)
    with pytest.raises(InvalidInputError, match="the task has shape"):
        score(prior, tasks.denoise(torch.rand(1, 4, 4)))
    with pytest.raises(InvalidInputError, match="this white is 255"):
        score(prior, make_task().in_range(255.0))


def test_spectra_and_peaks_refuse_what_they_cannot_use() -> None:
    spectrum = KernelSpectrum.of_matrix(np.eye(4))
    with pytest.raises(InvalidInputError, match="square"):
        KernelSpectrum.of_matrix(np.ones((3, 4)))
    with pytest.raises(InvalidInputError, match="NaN"):
        KernelSpectrum.of_matrix(np.full((3, 3), np.nan))
    with pytest.raises(InvalidInputError, match="nothing is learned"):
        KernelSpectrum.of_matrix(np.zeros((3, 3)))
    with pytest.raises(InvalidInputError, match="residual must have shape"):
        predicted_peak(spectrum.expand(np.ones(3), 0.1))
    with pytest.raises(InvalidInputError, match="noise must have shape"):
        predicted_peak(spectrum.expand(np.ones(4), 0.0, noise=np.ones(3)))
    with pytest.raises(InvalidInputError, match="pass 0"):
        predicted_peak(spectrum.expand(np.ones(4), 0.1, noise=np.ones(4)))


# The covariance's Wiener filter


def test_the_wiener_filter_of_an_images_own_law_is_the_dense_posterior_mean() -> None:
    rng = np.random.default_rng(7)
    power = np.abs(np.fft.fftn(rng.standard_normal(SIZE))) ** 2
    power[0, 0] = 0.0
    columns = [np.fft.ifftn(power * np.fft.fftn(unit.reshape(SIZE))).real for unit in np.eye(N)]
    matrix = np.array([column.ravel() for column in columns])
    task = make_task()
    found = stationary_wiener(power, task.clean, SIGMA)
    scaled = matrix * (found.time * SIGMA**2 / power.ravel()[1:].mean())
    filtering = scaled @ np.linalg.inv(scaled + SIGMA**2 * np.eye(N)) + 1 / N  # and the mean
    clean = task.clean.numpy().ravel()
    mse = np.square(clean - filtering @ clean).mean() + SIGMA**2 * np.square(filtering).sum() / N
    assert found.psnr == pytest.approx(-10 * math.log10(mse), abs=1e-9)
    assert found.degrees_of_freedom == pytest.approx(np.trace(filtering), abs=1e-9)


def test_the_spectrum_of_a_covariance_is_the_mean_periodogram() -> None:
    prior = networks.create("conv", image_size=SIZE, channels=1, width=6, output="none")
    found = covariance(prior, 8, centre="image", boundary="circular", tests=False)
    images = prior.sample(8).double().numpy()[:, 0]
    images -= images.mean(axis=(1, 2), keepdims=True)
    expected = np.square(np.abs(np.fft.fftn(images, axes=(1, 2), norm="ortho"))).mean(axis=0)
    np.testing.assert_allclose(covariance_spectrum(found), expected, atol=1e-6 * expected.max())
    with pytest.raises(InvalidInputError, match="circular"):
        covariance_spectrum(covariance(prior, 8, tests=False))
    with pytest.raises(InvalidInputError, match="all lags"):
        covariance_spectrum(covariance(prior, 8, boundary="circular", max_lag=1, tests=False))
    with pytest.raises(InvalidInputError, match="average"):
        covariance_spectrum(covariance(prior, 8, boundary="circular", channels="each", tests=False))


@pytest.mark.parametrize(
    ("spectrum", "sigma", "message"),
    [
        (np.ones((3, 3)), 0.1, "must have shape"),
        (-np.ones(SIZE), 0.1, "negative"),
        (np.ones(SIZE), 0.0, "positive level"),
        (np.eye(1, N).reshape(SIZE), 0.1, "filters nothing"),
    ],
)
def test_wiener_validates(spectrum: np.ndarray, sigma: float, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        stationary_wiener(spectrum, clean_image(), sigma)


# Ranks


def test_correlations_are_scipys_and_errors_the_definition() -> None:
    rng = np.random.default_rng(8)
    measured = rng.standard_normal((4, 11))
    predicted = np.round(measured + rng.standard_normal((4, 11)), 1)  # with ties
    found = rank_agreement(predicted, measured, resamples=50)
    for i in range(4):
        tau = scipy.stats.kendalltau(predicted[i], measured[i]).statistic
        assert float(found.kendall[i]) == pytest.approx(tau)
    assert found.attrs["rms"] == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)))
    assert found.attrs["offset"] == pytest.approx((predicted - measured).mean())
    shifted = rank_agreement(predicted + np.arange(4)[:, None], measured, resamples=50)
    assert shifted.attrs["rms_centred"] == pytest.approx(found.attrs["rms_centred"])
    assert shifted.attrs["spearman_lower"] == pytest.approx(found.attrs["spearman_lower"])


def test_resampled_correlations_are_scipys_on_repeated_priors() -> None:
    rng = np.random.default_rng(9)
    measured, predicted = rng.standard_normal((2, 1, 7))
    found = _bootstrap(predicted, measured, 20, 3)
    again = np.random.default_rng(derive("bootstrap", 3))
    counts = again.multinomial(7, np.full(7, 1 / 7), size=20)
    for i, count in enumerate(counts):
        p, m = (np.repeat(x[0], count) for x in (predicted, measured))
        assert found["spearman"][i] == pytest.approx(scipy.stats.spearmanr(p, m).statistic)
        assert found["kendall"][i] == pytest.approx(scipy.stats.kendalltau(p, m).statistic)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    # pairs of correlation 0.8: Spearman's is 6 / pi asin(0.4)
    rng, truth, hits = np.random.default_rng(10), 6 / math.pi * math.asin(0.4), 0
    for seed in range(120):
        latent = rng.standard_normal((1, 40))
        other = 0.8 * latent + 0.6 * rng.standard_normal((1, 40))
        found = rank_agreement(latent, other, resamples=300, seed=seed).attrs
        hits += found["spearman_lower"] <= truth <= found["spearman_upper"]
    # percentile intervals of 40 pairs cover a little less than 95 %; three standard errors are 6 %
    assert 0.85 <= hits / 120 <= 0.99


def test_agreement_validates_and_a_constant_score_ranks_nothing() -> None:
    truth = np.arange(10.0).reshape(2, 5)
    assert rank_agreement(truth, truth).attrs["spearman_lower"] == pytest.approx(1.0)
    nothing = rank_agreement(np.ones((2, 5)), truth)
    assert (nothing.spearman == 0).all() and (nothing.kendall == 0).all()
    for name in ("spearman_lower", "spearman_upper", "kendall_lower", "kendall_upper"):
        assert nothing.attrs[name] == 0.0
    half = rank_agreement(np.stack([np.ones(5), truth[1]]), truth)  # on one image of two
    assert half.attrs["spearman_mean"] == pytest.approx(0.5)
    assert (half.attrs["spearman_lower"], half.attrs["spearman_upper"]) == pytest.approx((0, 1))
    with pytest.raises(InvalidInputError, match="one shape"):
        rank_agreement(truth, truth[:, :4])
    with pytest.raises(InvalidInputError, match="finite"):
        rank_agreement(truth * np.nan, truth)


def test_numbers_that_are_none_give_no_score() -> None:
    spectrum, ones = KernelSpectrum.of_matrix(np.diag(np.arange(1.0, 6.0))), np.ones(5)
    for sigma in (math.nan, -0.1, math.inf):
        with pytest.raises(InvalidInputError, match=r"noise_sigma must be (a )?finite"):
            predicted_peak(spectrum.expand(ones, sigma))
    with pytest.raises(InvalidInputError, match="residual holds NaN"):
        predicted_peak(spectrum.expand(np.nan * ones, 0.1))
    with pytest.raises(InvalidInputError, match="must be a NumPy array"):
        predicted_peak(spectrum.expand(torch.ones(5), 0.1))
    with pytest.raises(InvalidInputError, match="real matrix"):
        KernelSpectrum.of_matrix(np.eye(3) * 1j)
    with pytest.raises(InvalidInputError, match="at least 1 image"):
        rank_agreement(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(InvalidInputError, match="must be finite"):
        stationary_wiener(np.ones((4, 4)), torch.full((1, 4, 4), math.nan), 0.1)


def test_an_exact_spectrum_has_a_peak() -> None:
    known = KernelSpectrum.of_matrix(np.diag(np.arange(1.0, 6.0)))
    exact = KernelSpectrum(known.values, known.vectors, 0.0)
    found, expected = (predicted_peak(each.expand(np.ones(5), 0.1)) for each in (exact, known))
    assert found.psnr == pytest.approx(expected.psnr, abs=1e-9)  # of the refinement's tolerance


@pytest.mark.parametrize("seed", [1.5, "01", -1])
def test_seeds_of_a_score_are_whole_numbers(seed: object) -> None:
    prior = networks.create("deep-decoder", image_size=8, channels=1, width=8)
    task = tasks.denoise(torch.rand(1, 8, 8, generator=generator("seeds", 0)))
    with pytest.raises(InvalidInputError, match="seed must be a whole number"):
        score(prior, task, seed=seed)
