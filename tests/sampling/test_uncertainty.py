"""Calibration of draws whose distribution is known; brute force for what is sorted."""

import itertools
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr

from dipkernels import Task, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.sampling import uncertainty
from dipkernels.sampling.summaries import describe_measurement

VALUES, DRAWS = 6000, 300
RNG = np.random.default_rng(2)
MEAN = RNG.standard_normal(VALUES)
DEVIATION = np.exp(0.5 * RNG.standard_normal(VALUES))


def draws(factor: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(3).standard_normal((DRAWS, VALUES))
    return MEAN + factor * DEVIATION * noise


def truth(noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(4)
    return MEAN + np.hypot(DEVIATION, noise) * rng.standard_normal(VALUES)


@pytest.mark.parametrize("noise", [0.0, 0.7])
def test_draws_from_the_right_distribution_are_calibrated(noise: float) -> None:
    found = uncertainty.calibrate(draws(), truth(noise), noise_sigma=noise)
    p = found.level.values
    # binomial error of independent values, plus the step of ranks among the draws
    error = 4.5 * np.sqrt(p * (1 - p) / VALUES) + 1 / DRAWS
    assert (np.abs(found.coverage - p) < error).all()
    total = np.hypot(DEVIATION, noise)
    nll = np.log(total).mean() + 0.5 * np.log(2 * np.pi) + 0.5
    # S draws raise the expectation by about 1/S; the mean of chi-squared/2 errs by sqrt(1/(2n))
    assert float(found.nll) == pytest.approx(nll, abs=4.5 * np.sqrt(0.5 / VALUES) + 2 / DRAWS)
    assert float(found.sharpness) == pytest.approx(total.mean(), rel=0.005)
    width = 2 * scipy.stats.norm.ppf(0.95) * total.mean()
    # order statistics of 300 draws, placed by probability, are wider by 0.7 % at the 5 % tails
    assert float(found.interval_width) == pytest.approx(width, rel=0.012)
    assert float(found.z_rms) == pytest.approx(1, abs=0.05)


def test_draws_that_are_too_narrow_are_told() -> None:
    found = uncertainty.calibrate(draws(0.5), truth())
    expected = 2 * scipy.stats.norm.cdf(0.5 * scipy.stats.norm.ppf((1 + found.level) / 2)) - 1
    assert np.abs(found.coverage - expected).max() < 4.5 * 0.5 / np.sqrt(VALUES) + 2 / DRAWS
    assert float(found.z_rms) == pytest.approx(2, abs=0.1)
    assert float(found.calibration_error) > 0.2


def test_bins_are_those_of_brute_force() -> None:
    x, y = draws()[:, :57], truth()[:57]
    found = uncertainty.calibrate(x, y, noise_sigma=0.3)
    table = sorted((np.hypot(x[:, i].std(ddof=1), 0.3), y[i] - x[:, i].mean()) for i in range(57))
    # 57 values in ten bins: seven of six, then three of five.
    ends = np.cumsum([0, *[6] * 7, *[5] * 3])
    for b, (first, last) in enumerate(itertools.pairwise(ends)):
        rms = np.sqrt(np.mean(np.square(table[first:last]), axis=0))
        assert float(found.binned_deviation[b]) == pytest.approx(rms[0], rel=1e-12)
        assert float(found.binned_error[b]) == pytest.approx(rms[1], rel=1e-12)
    # Right deviations predict the errors' size, in every bin of many: 600 values know it to 3 %.
    many = uncertainty.calibrate(draws(), truth())
    np.testing.assert_allclose(many.binned_error, many.binned_deviation, rtol=0.13)


def test_sparsification_is_that_of_brute_force() -> None:
    few = slice(0, 300)
    x, y = draws()[:, few], truth()[few]
    found = uncertainty.calibrate(x, y)
    error, deviation = np.abs(y - x.mean(axis=0)), x.std(axis=0, ddof=1)
    rmse = lambda e: np.sqrt(np.mean(np.square(e)))  # noqa: E731
    area = 0.0
    previous = None
    for i, fraction in enumerate(found.removed.values):
        kept = 300 - int(fraction * 300)
        by_deviation = rmse(error[np.argsort(deviation)[:kept]]) / rmse(error)
        by_error = rmse(np.sort(error)[:kept]) / rmse(error)
        assert float(found.sparsification[i]) == pytest.approx(by_deviation, rel=1e-12)
        assert float(found.oracle[i]) == pytest.approx(by_error, rel=1e-12)
        gap = by_deviation - by_error
        if previous is not None:
            area += 0.05 * (gap + previous) / 2
        previous = gap
    assert float(found.ause) == pytest.approx(area, rel=1e-9)
    # deviations that say nothing of errors do worse
    shuffled = uncertainty.calibrate(MEAN[few] + (x - MEAN[few])[:, ::-1], y)
    assert float(found.ause) < 0.8 * float(shuffled.ause)


def test_quantiles_with_noise_are_those_of_the_mixture() -> None:
    x = draws()[:7, :3]
    result = xr.Dataset({"draws": (("chain", "draw", "channel", "x"), x.reshape(1, 7, 1, 3))})
    found = uncertainty.maps(result, levels=[0.8], noise_sigma=0.4)
    for i in range(3):
        for name, p in (("lower", 0.1), ("upper", 0.9)):
            at = float(found[name][0, 0, i])
            assert scipy.stats.norm.cdf(at, x[:, i], 0.4).mean() == pytest.approx(p, abs=1e-8)
    np.testing.assert_allclose(found["std"][0], np.hypot(x.std(axis=0, ddof=1), 0.4))


def test_maps_pool_whole_chains() -> None:
    x = draws()[:12, :30].reshape(3, 4, 2, 3, 5)
    x[1] = np.nan
    result = xr.Dataset({"draws": (("chain", "draw", "channel", "y", "x"), x)})
    found = uncertainty.maps(result)
    pooled = x[[0, 2]].reshape(8, 2, 3, 5)
    np.testing.assert_allclose(found["mean"], pooled.mean(axis=0))
    np.testing.assert_allclose(found["std"], pooled.std(axis=0, ddof=1))
    np.testing.assert_allclose(found.lower[0], np.quantile(pooled, 0.25, axis=0, method="weibull"))
    assert found.attrs["draws"] == 8


def test_a_task_is_judged_by_truth_and_by_held_out_pixels() -> None:
    shape, sigma = (1, 40, 50), 0.1
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(shape, generator=generator, dtype=torch.float64)
    task = tasks.denoise(clean, noise_sigma=sigma).hold_out(0.5, seed=1)
    spread = 0.05
    centre = clean.numpy() + spread * RNG.standard_normal(shape)
    values = centre + spread * RNG.standard_normal((2, 100, *shape))
    result = xr.Dataset({"draws": (("chain", "draw", "channel", "y", "x"), values)})
    found = uncertainty.calibration(result, task)
    assert found["truth"].attrs["values"] == 2000
    assert found["held_out"].attrs["values"] == 1000
    for part in found.values():
        assert np.abs(part.coverage - part.level).max() < 4.5 * 0.5 / np.sqrt(1000) + 0.01
    held = float(found["held_out"].sharpness)
    assert held == pytest.approx(np.hypot(spread, sigma), rel=0.02)
    wide = uncertainty.calibration(result, task.in_range(255.0))
    xr.testing.assert_allclose(wide["held_out"], found["held_out"])
    with pytest.raises(InvalidInputError, match="nothing is known"):
        blind = tasks.denoise(None, measurement=clean, noise_sigma=0.1)
        uncertainty.calibration(result, blind)
    with pytest.raises(InvalidInputError, match="levels must be"):
        uncertainty.maps(result, levels=[1.0])
    with pytest.raises(InvalidInputError, match="at least 2 of both"):
        uncertainty.calibrate(np.zeros((3, 4)), np.zeros(5))


def recorded(task: Task, **options: Any) -> xr.Dataset:
    """Draws around the clean image, that say which measurement they are of."""
    spread = 0.1 * RNG.standard_normal((1, 30, *task.shape))
    return xr.Dataset(
        {"draws": (("chain", "draw", "channel", "y", "x"), task.clean.numpy() + spread)},
        attrs=describe_measurement(task) | options,
    )


def test_draws_are_judged_by_no_other_task() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand((1, 9, 12), generator=generator, dtype=torch.float64)
    task = tasks.denoise(clean, noise_sigma=0.1)
    held = task.hold_out(0.3)
    for sampled, judging in (
        (task, tasks.denoise(clean, noise_sigma=0.1, seed=1)),  # other noise
        (task, held),  # its pixels were trained on
        (held, task.hold_out(0.3, seed=1)),
        (held, task),
    ):
        with pytest.raises(InvalidInputError, match="another measurement"):
            uncertainty.calibration(recorded(sampled), judging)
    # types and ranges don't matter
    for same in (held.to(dtype=torch.float32), held.in_range(255.0)):
        assert set(uncertainty.calibration(recorded(held), same)) == {"truth", "held_out"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    x, y = draws()[:5, :20].copy(), truth()[:20].copy()
    y[3] = bad
    with pytest.raises(InvalidInputError, match="finite draws and truths"):
        uncertainty.calibrate(x, y)
    y[3], x[2, 7] = 0.0, bad
    with pytest.raises(InvalidInputError, match="finite draws and truths"):
        uncertainty.calibrate(x, y)


def test_certain_values_count_by_whether_they_are_right() -> None:
    x, y = draws()[:9, :6].copy(), truth()[:6].copy()
    others = uncertainty.calibrate(x[:, 1:], y[1:])
    x[:, 0] = 0.1  # whose mean over 9 draws isn't 0.1 in floating point
    y[0] = 0.1
    right = uncertainty.calibrate(x, y)
    assert float(right.nll) == pytest.approx(float(others.nll), rel=1e-12)
    assert float(right.z_rms) == pytest.approx(float(others.z_rms), rel=1e-12)
    y[0] = 0.2
    wrong = uncertainty.calibrate(x, y)
    assert float(wrong.nll) == np.inf and float(wrong.z_rms) == np.inf
    # with the noise of a measurement nothing is certain
    noisy = uncertainty.calibrate(x, y, noise_sigma=0.3)
    assert np.isfinite(noisy.nll) and np.isfinite(noisy.z_rms)
    nothing = uncertainty.calibrate(np.ones((3, 4)), np.ones(4))
    assert np.isnan(nothing.nll) and np.isnan(nothing.z_rms)


@pytest.mark.parametrize("count", [2, 5, 18, 19, 20, 60])
def test_coverage_is_only_told_where_a_value_could_lie_outside(count: int) -> None:
    x = np.arange(count, dtype=float)[:, None].repeat(2, axis=1)
    outside = np.array([-10.0, count + 10.0])  # beyond all draws, on either side
    found = uncertainty.calibrate(x, outside)
    # outside wherever that can be told
    assert set(found.coverage.values[np.isfinite(found.coverage)]) == {0.0}
    told = found.level.values < count / (count + 1) - 1e-9
    np.testing.assert_array_equal(np.isfinite(found.coverage), told)
    assert float(found.calibration_error) == pytest.approx(found.level.values[told].mean())
    noisy = uncertainty.calibrate(x, outside, noise_sigma=0.1)
    assert np.isfinite(noisy.coverage).all()
