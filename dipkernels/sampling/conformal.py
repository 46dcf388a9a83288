"""Conformal intervals: as wide as pixels that were held out, or risks of images, ask for."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.special
import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.sampling.summaries import (
    check_levels,
    noise_of,
    require_draws_of,
    what_is_measured,
)
from dipkernels.sampling.uncertainty import LEVELS
from dipkernels.tasks import Task

__all__ = ["intervals", "quantile", "radius"]


@checked
def intervals(result: xr.Dataset, task: Task, *, levels: Sequence[float] = LEVELS) -> xr.Dataset:
    """Intervals that held-out pixels have calibrated, by split-conformal prediction.

    With the mean m of the draws and their deviation d (the noise included) at every entry, those
    that were held out, y, score ``|y - m| / d``. The interval of a level is ``m - q d`` to
    ``m + q d``, with the conformal quantile q of the scores.

    Parameters
    ----------
    result : xarray.Dataset
        With ``draws``, at least 2, of a task that holds out pixels; chains are pooled.
    task : Task
        That was sampled.
    levels : sequence of float
        Probabilities, in (0, 1).

    Returns
    -------
    xarray.Dataset
        Of what would be measured: ``mean`` and ``std``, which is d, and over ``level`` before:
        ``lower`` and ``upper``; ``factor`` over ``level``, which is q: infinite, and so are the
        intervals, where there are too few pixels, ``n < level / (1 - level)``. For comparison
        ``gaussian``, the factor of a Gaussian that is right. In units in which white is 1.

    Raises
    ------
    InvalidInputError
        If the task holds out nothing, isn't that of the result, a level is out of range, or there
        are fewer than 2 draws.

    Notes
    -----
    Whatever the draws are worth: the interval of a further pixel that is exchangeable with the
    held-out ones, measured anew with its noise, holds it with at least the level's probability, on
    average over its channels, and with n pixels of one channel and no ties with at most
    ``1 / (n + 1)`` more. At pixels that were fitted intervals are rather too wide; of a hole, whose
    pixels lie together, and of the image without its noise nothing is promised.

    References
    ----------
    Lei, G'Sell, Rinaldo, Tibshirani, Wasserman: Distribution-free predictive inference for
    regression. JASA 2018. For channels of one pixel, which go together: Dunn, Wasserman, Ramdas:
    Distribution-free prediction sets for two-layer hierarchical models. JASA 2022.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import tasks
    >>> task = tasks.denoise(torch.zeros(1, 20, 20), noise_sigma=0.1).hold_out(0.5)
    >>> narrow = 0.01 * np.random.default_rng(0).standard_normal((1, 50, 1, 20, 20))
    >>> result = xr.Dataset({"draws": (("chain", "draw", "channel", "y", "x"), narrow)})
    >>> found = intervals(result, task, levels=[0.9])
    >>> 1.4 < found.factor.item() < 2.0
    True
    """
    check_levels(levels)
    draws = require_draws_of(result, task)
    pooled = draws.values.reshape(-1, *draws.shape[2:])
    if len(pooled) < 2:
        raise InvalidInputError("intervals need at least 2 draws, got 1")
    if task.held_out is None:
        raise InvalidInputError(
            "this task holds out no pixels to calibrate intervals by: sample task.hold_out(0.1)"
        )
    predicted, measured = what_is_measured(pooled, task)
    mean = predicted.mean(axis=0)
    white, sigma = task.data_range, noise_of(result, task)
    noise = task.law.deviation(torch.from_numpy(mean * white), sigma * white) / white
    std = np.sqrt(predicted.var(axis=0, ddof=1) + noise.numpy() ** 2)
    held = task.held_out.cpu().numpy()
    pixels = int((held.any(axis=0) if held.ndim > 1 else held).sum())
    error = np.abs(measured - mean)[held]
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(error == 0, 0.0, error / std[held])
    factors = np.array([quantile(scores, level, groups=pixels) for level in levels])
    wide = factors.reshape(-1, *[1] * mean.ndim)
    with np.errstate(invalid="ignore"):  # infinitely often nothing
        widths = np.where(np.isinf(wide), np.inf, wide * std)
    dims = draws.dims[2:]
    if measured.shape != task.shape:
        dims = tuple(f"measured_{axis}" for axis in range(measured.ndim))
    return xr.Dataset(
        {
            "mean": (dims, mean),
            "std": (dims, std),
            "lower": (("level", *dims), mean - widths),
            "upper": (("level", *dims), mean + widths),
            "factor": ("level", factors),
            "gaussian": ("level", scipy.special.ndtri((1 + np.asarray(levels)) / 2)),
        },
        {"level": list(levels)},
        {"pixels": pixels, "noise_sigma": sigma},
    )


@checked
def quantile(scores: Sequence[float] | np.ndarray, level: float, *, groups: int = 0) -> float:
    """Conformal quantile: a further score is at most this with at least the level's probability.

    Parameters
    ----------
    scores : sequence of float
        N of them, exchangeable with the further one; infinite ones are allowed.
    level : float
        In (0, 1).
    groups : int
        If the scores come in groups that are exchangeable as a whole (the channels of a pixel), of
        equal size: how many; the probability is then the mean over the further group. By default
        each score is a group.

    Returns
    -------
    float
        The k-th smallest, ``k = ceil(level (n + 1) N / n)`` of n groups; infinite for k above N.

    Raises
    ------
    InvalidInputError
        If there are no scores, one is NaN, or the level or the number of groups is out of range.

    Examples
    --------
    >>> quantile([3.0, 1.0, 2.0, 4.0], 0.5), quantile([3.0, 1.0, 2.0, 4.0], 0.9)
    (3.0, inf)
    """
    check_levels([level])
    scores = np.sort(np.asarray(scores, dtype=float).ravel())
    if not len(scores) or np.isnan(scores).any():
        raise InvalidInputError(
            f"a conformal quantile needs scores that are numbers, got {len(scores)} of them with "
            f"{int(np.isnan(scores).sum())} NaN"
        )
    if not 0 <= groups <= len(scores):
        raise InvalidInputError(f"{len(scores)} scores can't be {groups} groups")
    groups = groups or len(scores)
    # 0.9 * 10 is 9 whatever its last digit
    rank = math.ceil(round(level * (groups + 1) * len(scores) / groups, 9))
    return float(scores[rank - 1]) if rank <= len(scores) else math.inf


@checked
def radius(risks: Sequence[float] | np.ndarray, level: float) -> float:
    """Radius of a ball around a restored image that holds the clean one, by risks of others.

    Of images that were restored in the same way, each risk is an estimate, made without the truth,
    of the mean squared error of A x to A of the clean image: SURE, the ``value`` of
    `dipkernels.stopping.twins.Sure` where a fit was stopped by it. They take the place of the
    scores that conformal prediction would take from truths.

    Parameters
    ----------
    risks : sequence of float
        Of images that are exchangeable with the one to be judged, whose own risk isn't among them.
    level : float
        Probability, in (0, 1).

    Returns
    -------
    float
        The set ``{x: |A x - A x_restored|^2 / m <= radius}``, m entries, holds the clean image with
        about this probability. Infinite for fewer than ``level / (1 - level)`` images; not below 0.

    Raises
    ------
    InvalidInputError
        If there are no risks, one isn't a number, or the level is out of range.

    Notes
    -----
    As exact as the risks are: SURE errs by about ``sigma^2 sqrt(2 / m)``, and more by its signs. A
    minimum over iterations is lower than the risk by as much. It says nothing of single pixels.

    References
    ----------
    Everink, Tamo Amougou, Pereyra: Self-supervised conformal prediction for uncertainty
    quantification in imaging problems. arXiv 2502.05127, 2025.

    Examples
    --------
    >>> radius([0.002, 0.004, 0.003], 0.7)
    0.004
    """
    return max(0.0, quantile(risks, level))
