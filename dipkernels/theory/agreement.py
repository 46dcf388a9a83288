"""How well a score ranks priors: rank correlations within images, with their interval."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError

LEVEL = (2.5, 97.5)


@checked
def rank_agreement(
    predicted: np.ndarray, measured: np.ndarray, *, resamples: int = 2000, seed: int = 0
) -> xr.Dataset:
    """Compare a score's ranking of priors with the measured one, image by image.

    Parameters
    ----------
    predicted : ndarray, shape (images, priors)
        Scores; one that is the same for all images is repeated.
    measured : ndarray, shape (images, priors)
        Measured peaks in dB.
    resamples : int
        Of the bootstrap.
    seed : int
        Of the bootstrap.

    Returns
    -------
    xarray.Dataset
        ``spearman`` and ``kendall`` (tau-b) over ``image``. Attributes: their means over images
        ``spearman_mean``, ``kendall_mean``, with ``_lower`` and ``_upper``, a 95 % interval by
        the bootstrap over images and priors at once; ``rms``, of predicted minus measured, and
        ``rms_centred``, of the same less its mean over the priors of each image, in the unit of
        both; ``offset``, the mean of predicted minus measured.

    Raises
    ------
    InvalidInputError
        If the shapes differ, a number isn't finite, or there are fewer than 3 priors, or no image
        or resample.

    Notes
    -----
    A prior that is drawn twice ties with itself. A resample whose priors are all one is left out.
    A score that is the same for all priors has a correlation of 0, in every resample too.
    """
    if predicted.shape != measured.shape or predicted.ndim != 2 or predicted.shape[1] < 3:
        raise InvalidInputError(
            "expected scores and measurements of one shape (images, priors), of at least 3 priors, "
            f"got {predicted.shape} and {measured.shape}"
        )
    if not len(predicted) or resamples < 1:
        raise InvalidInputError(
            f"at least 1 image and 1 resample are needed, got {len(predicted)} and {resamples}"
        )
    if not (np.isfinite(predicted).all() and np.isfinite(measured).all()):
        raise InvalidInputError("scores and measurements must be finite")
    pairs = list(zip(predicted, measured, strict=True))
    found = {
        "spearman": [_correlation(scipy.stats.spearmanr, p, m) for p, m in pairs],
        "kendall": [_correlation(scipy.stats.kendalltau, p, m) for p, m in pairs],
    }
    difference = predicted - measured
    centred = difference - difference.mean(axis=1, keepdims=True)
    attrs = {
        "rms": float(np.sqrt(np.square(difference).mean())),
        "rms_centred": float(np.sqrt(np.square(centred).mean())),
        "offset": float(difference.mean()),
    }
    resampled = _bootstrap(predicted, measured, resamples, seed)
    for name, values in found.items():
        lower, upper = np.nanpercentile(resampled[name], LEVEL)
        attrs |= {
            f"{name}_mean": float(np.mean(values)),
            f"{name}_lower": float(lower),
            f"{name}_upper": float(upper),
        }
    return xr.Dataset({k: ("image", v) for k, v in found.items()}).assign_attrs(attrs)


# A score that is the same for all priors ranks nothing: 0, and 0 in every resample.
def _correlation(correlation: Callable[..., Any], p: np.ndarray, m: np.ndarray) -> float:
    return float(correlation(p, m).statistic) if np.ptp(p) and np.ptp(m) else 0.0


def _bootstrap(
    predicted: np.ndarray, measured: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(derive("bootstrap", seed))
    images, priors = predicted.shape
    # how often each is drawn, shape (resamples, ...)
    weights = rng.multinomial(priors, np.full(priors, 1 / priors), size=resamples).astype(float)
    chosen = rng.multinomial(images, np.full(images, 1 / images), size=resamples) / images
    signs = [np.sign(x[:, :, None] - x[:, None, :]) for x in (predicted, measured)]
    means: dict[str, np.ndarray] = {}
    for name, correlation in (("spearman", _spearman), ("kendall", _kendall)):
        each = np.stack(
            [
                correlation(p, m, weights) if p.any() and m.any() else np.zeros(resamples)
                for p, m in zip(*signs, strict=True)
            ],
            axis=1,
        )
        means[name] = (chosen * each).sum(axis=1)
    return means


# Both from the signs of the differences of all pairs, (priors, priors), and weights for each prior,
# (resamples, priors); shape (resamples,).
def _kendall(p: np.ndarray, m: np.ndarray, weights: np.ndarray) -> np.ndarray:
    both, of_p, of_m = (
        np.einsum("bi,ij,bj->b", weights, x, weights, optimize=True) for x in (p * m, p * p, m * m)
    )
    return _ratio(both, of_p, of_m)


def _spearman(p: np.ndarray, m: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # mid-ranks about their mean: half the weight below less that above
    a, b = weights @ p.T, weights @ m.T
    return _ratio(*((weights * x).sum(axis=1) for x in (a * b, a * a, b * b)))


def _ratio(both: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    scale = np.sqrt(one * other)
    return np.where(scale > 0, both / np.where(scale > 0, scale, 1.0), np.nan)
