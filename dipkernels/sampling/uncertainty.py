"""Uncertainty maps of an image, and whether their spread can be trusted."""

from collections.abc import Sequence

import numpy as np
import scipy.integrate
import scipy.special
import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import NotNegative
from dipkernels.errors import InvalidInputError
from dipkernels.sampling.summaries import (
    check_levels,
    noise_of,
    require_draws,
    require_draws_of,
    what_is_measured,
)
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES

LEVELS = (0.5, 0.8, 0.9, 0.95)
CURVE = tuple(np.linspace(0.05, 0.95, 19).round(2))
FRACTIONS = tuple(np.linspace(0, 0.95, 20).round(2))
SHARPNESS_LEVEL = 0.9
BINS = 10


@checked
def maps(
    result: xr.Dataset, *, levels: Sequence[float] = LEVELS, noise_sigma: NotNegative = 0.0
) -> xr.Dataset:
    """Mean, standard deviation and central credible intervals of every pixel.

    Parameters
    ----------
    result : xarray.Dataset
        With ``draws``, as `dipkernels.sampling.sample` returns; chains are pooled, those that
        diverged left out. Where chains disagree, the spread holds their disagreement.
    levels : sequence of float
        Probabilities of the intervals, in (0, 1).
    noise_sigma : float
        Of a new measurement, in units in which white is 1. At 0 the maps are those of the image
        itself; otherwise of what would be measured again: its variance is added, and the intervals
        are those of the draws plus Gaussian noise.

    Returns
    -------
    xarray.Dataset
        ``mean``, ``std`` over ``(channel, ...)``; ``lower``, ``upper`` over
        ``(level, channel, ...)``. In units in which white is 1.

    Raises
    ------
    InvalidInputError
        If a level is out of range, or there are fewer than 2 draws.

    Notes
    -----
    An interval of S draws can't be wider than their range: for level p take well over
    ``2 / (1 - p)`` effective draws.
    """
    check_levels(levels)
    draws = require_draws(result)
    values = draws.values.reshape(-1, *draws.shape[2:]).astype(float)
    if len(values) < 2:
        raise InvalidInputError("an uncertainty map needs at least 2 draws, got 1")
    tails = np.array([[(1 - p) / 2, (1 + p) / 2] for p in levels])
    ends = _quantiles(values, tails.ravel(), noise_sigma).reshape(-1, 2, *values.shape[1:])
    dims = draws.dims[2:]
    return xr.Dataset(
        {
            "mean": (dims, values.mean(axis=0)),
            "std": (dims, np.sqrt(values.var(axis=0, ddof=1) + noise_sigma**2)),
            "lower": (("level", *dims), ends[:, 0]),
            "upper": (("level", *dims), ends[:, 1]),
        },
        {"level": list(levels)},
        {"draws": len(values), "noise_sigma": noise_sigma},
    )


@checked
def calibrate(
    draws: np.ndarray,
    truth: np.ndarray,
    *,
    noise_sigma: NotNegative = 0.0,
    levels: Sequence[float] = CURVE,
) -> xr.Dataset:
    """Hold draws against the values that they predict.

    Parameters
    ----------
    draws : ndarray, shape (draws, values)
        Of each value, at least 2.
    truth : ndarray, shape (values,)
        What was to be predicted.
    noise_sigma : float
        If the truth is a noisy measurement of what was drawn: the deviation of its noise, which is
        added to the predictive distribution exactly. 0 if it isn't.
    levels : sequence of float
        Probabilities of the central intervals of the coverage curve.

    Returns
    -------
    xarray.Dataset
        ``coverage`` over ``level``: the share of values inside of their central interval, NaN at
        levels that few draws can't tell (see Notes). Over ``removed``, relative to the root mean
        square error of all: that of what is left without that share of the values, those of the
        largest predicted deviation first in ``sparsification``, those of the largest error in
        ``oracle``. Over ``bin``, up to 10 of as many values each, sorted by deviation: root mean
        squares ``binned_deviation`` and ``binned_error``. Scalars: ``calibration_error``, the mean
        over levels of ``|coverage - level|``; ``sharpness``, the mean deviation;
        ``interval_width``, the mean width of the 90 % interval; ``rmse``; ``ause``, the area
        between the two curves, 0 where deviations sort values as their errors do; ``nll``, the mean
        negative log-likelihood of a Gaussian with the predicted moments, in nats a value;
        ``z_rms``, the root mean square of error over deviation, 1 if the size is right. In these
        two a value with an error but no deviation makes infinity; one with neither is left out
        (NaN if all are).

    Raises
    ------
    InvalidInputError
        If shapes don't fit, a number isn't finite, there are fewer than 2 draws or values, or an
        option is out of range.

    Notes
    -----
    Without noise, a value is placed among S draws by its rank r, at ``(r + 1/2) / (S + 1)``: exact
    for truths that are exchangeable with the draws, up to steps of 1/(S + 1); intervals of level
    S/(S + 1) and above hold whatever is true. With noise, by the distribution function of the
    mixture of Gaussians around the draws. Coverage over the pixels of one image has no simple
    standard error: neighbours err together.
    Sources: Ilg et al. 2018 for sparsification; Gneiting et al. 2007 for calibration and sharpness.
    """
    draws, truth = np.asarray(draws, dtype=float), np.asarray(truth, dtype=float)
    if draws.ndim != 2 or draws.shape[1:] != truth.shape or min(draws.shape) < 2:
        raise InvalidInputError(
            "calibrate takes draws (draws, values) and a truth (values,), at least 2 of both, got "
            f"{draws.shape} and {truth.shape}"
        )
    if not (np.isfinite(draws).all() and np.isfinite(truth).all()):
        raise InvalidInputError("calibrate takes finite draws and truths, got NaN or infinity")
    check_levels(levels)
    pit = _pit(draws, truth, noise_sigma)
    coverage = np.array([(np.abs(2 * pit - 1) <= level).mean() for level in levels])
    if not noise_sigma:  # half of a rank lies beyond either end: wide intervals hold every value
        trivial = np.asarray(levels) * (len(draws) + 1) >= len(draws) * (1 - 1e-12)
        coverage[trivial] = np.nan
    misses = np.abs(coverage - levels)[np.isfinite(coverage)]
    deviation, error = _gaussian(draws, truth, noise_sigma)
    nll, z_rms = _gaussian_scores(deviation, error)
    half = (1 - SHARPNESS_LEVEL) / 2
    lower, upper = _quantiles(draws, np.array([half, 1 - half]), noise_sigma)
    by_deviation, by_error = (_sparsified(error, key) for key in (deviation, np.abs(error)))
    bins = np.array_split(np.argsort(deviation, kind="stable"), min(BINS, len(error)))
    binned = [[np.sqrt(np.square(values[b]).mean()) for b in bins] for values in (deviation, error)]
    removed = np.array(FRACTIONS)
    scalars = {
        "calibration_error": float(misses.mean()) if len(misses) else np.nan,
        "sharpness": float(deviation.mean()),
        "interval_width": float((upper - lower).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "ause": float(scipy.integrate.trapezoid(by_deviation - by_error, removed)),
        "nll": nll,
        "z_rms": z_rms,
    }
    return xr.Dataset(
        {
            "coverage": ("level", coverage),
            "sparsification": ("removed", by_deviation),
            "oracle": ("removed", by_error),
            "binned_deviation": ("bin", np.array(binned[0])),
            "binned_error": ("bin", np.array(binned[1])),
            **scalars,
        },
        {"level": list(levels), "removed": removed, "bin": np.arange(len(bins))},
        {"values": len(truth), "draws": len(draws), "noise_sigma": noise_sigma},
    )


@checked
def calibration(
    result: xr.Dataset, task: Task, *, levels: Sequence[float] = CURVE
) -> dict[str, xr.Dataset]:
    """Hold the draws of a run against what is known of the image.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.sampling.sample` returns.
    task : Task
        That was sampled.
    levels : sequence of float
        See `calibrate`.

    Returns
    -------
    dict of str to Dataset
        ``"truth"``: against the clean image over the task's score region, without the noise of the
        measurement; ``"held_out"``: against the pixels that were measured but held out, with it.
        Those of the two that the task allows; see `calibrate`. The noise that draws get for the
        second is Gaussian: a task with another misfit than squares has the first alone.

    Raises
    ------
    InvalidInputError
        If it allows neither, or isn't that of the result.
    """
    draws = require_draws_of(result, task)
    pooled = draws.values.reshape(-1, *draws.shape[2:])
    task = task.to(device="cpu", dtype=torch.float64)
    found = {}
    if task.clean is not None:
        region = task.regions[task.score_region].expand(task.shape).numpy()
        clean = (task.clean / task.data_range).numpy()
        found["truth"] = calibrate(pooled[:, region], clean[region], levels=levels)
    if task.held_out is not None and task.law == SQUARES:
        held = task.held_out.numpy()
        predicted, measured = what_is_measured(pooled, task)
        found["held_out"] = calibrate(
            predicted[:, held],
            measured[held],
            noise_sigma=noise_of(result, task),
            levels=levels,
        )
    if not found:
        raise InvalidInputError(
            "nothing is known to hold the draws against: the task has no clean image and holds out "
            "no pixels that were measured with Gaussian noise; sample task.hold_out(0.1)"
        )
    return found


# Of the Gaussian with the moments of the draws: its deviation, and the error of its mean.
def _gaussian(
    draws: np.ndarray, truth: np.ndarray, noise_sigma: float
) -> tuple[np.ndarray, np.ndarray]:
    constant = (draws == draws[:1]).all(axis=0)  # whose mean and variance would only round
    mean = np.where(constant, draws[0], draws.mean(axis=0))
    variance = np.where(constant, 0.0, draws.var(axis=0, ddof=1))
    return np.sqrt(variance + noise_sigma**2), truth - mean


# Mean negative log-likelihood, and root mean square of error over deviation.
def _gaussian_scores(deviation: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    # Values that are certain and right have infinite density: they say nothing of the others.
    telling = (deviation > 0) | (error != 0)
    deviation, error = deviation[telling], error[telling]
    if not len(error):
        return float("nan"), float("nan")
    if not (deviation > 0).all():
        return float("inf"), float("inf")
    squares = np.square(error / deviation)
    nll = np.log(deviation) + 0.5 * np.log(2 * np.pi) + 0.5 * squares
    return float(nll.mean()), float(np.sqrt(squares.mean()))


# Probability integral transform: the predictive distribution function at the truth.
def _pit(draws: np.ndarray, truth: np.ndarray, noise_sigma: float) -> np.ndarray:
    if not noise_sigma:
        ranks = (draws < truth).sum(axis=0) + 0.5 * (draws == truth).sum(axis=0)
        return np.asarray((ranks + 0.5) / (len(draws) + 1))
    total = np.zeros(truth.shape)
    for draw in draws:  # one at a time: no second array of this size
        total += scipy.special.ndtr((truth - draw) / noise_sigma)
    return total / len(draws)


# Of the draws, or of the mixture of Gaussians around them, by bisection.
def _quantiles(draws: np.ndarray, probabilities: np.ndarray, noise_sigma: float) -> np.ndarray:
    if not noise_sigma:
        # So placed that a new value lies below with that probability, as in _pit.
        return np.asarray(np.quantile(draws, probabilities, axis=0, method="weibull"))
    found = []
    for probability in probabilities:
        low = draws.min(axis=0) - 10 * noise_sigma
        high = draws.max(axis=0) + 10 * noise_sigma
        for _ in range(35):
            middle = (low + high) / 2
            below = _pit(draws, middle, noise_sigma) < probability
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        found.append((low + high) / 2)
    return np.stack(found)


# Root mean square of what is left when the largest of the key are removed, relative to that of all.
def _sparsified(error: np.ndarray, key: np.ndarray) -> np.ndarray:
    order = np.argsort(-key, kind="stable")
    squares = np.square(error[order])
    left = [squares[int(f * len(squares)) :].mean() for f in FRACTIONS]
    whole = left[0]
    return np.sqrt(np.array(left) / whole) if whole else np.ones(len(left))
