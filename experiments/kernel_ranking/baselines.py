"""What a score adds to one bit: whether a network contains a fixed low-pass filter."""

import math
from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

# Bilinear or Gaussian upsampling, or binomial filters (Chakrabarty & Maji 2019, Liu et al. 2023).
LOW_PASS = frozenset(
    ("skip", "wide-skip", "self-attention", "fixed-conv", "deep-decoder", "deep-decoder-over",
     "conv-decoder", "lipschitz-decoder")
)  # fmt: skip
# Variants of one architecture, which a bootstrap draws together.
CLUSTERS = (
    ("skip", "wide-skip", "self-attention"), ("unet",), ("resnet",), ("conv",), ("fixed-conv",),
    ("deep-decoder", "deep-decoder-over"), ("conv-decoder", "lipschitz-decoder"),
    ("transposed-decoder",), ("vit", "conv3-vit", "conv1-vit", "vit-conv1", "vit-conv3"),
    ("swin",), ("mixer",),
)  # fmt: skip
RESAMPLES = 2000  # of images and priors
COLUMNS = ("what", "priors", "spearman", "lower", "upper")
Draw = tuple[np.ndarray, np.ndarray]  # places of images and of priors


def baselines(
    names: tuple[str, ...], scores: np.ndarray, measured: np.ndarray
) -> Iterator[dict[str, object]]:
    """Compare a score with the bit, over all priors and within both groups of it.

    Scores and measured peaks are ``(images, priors)``. Intervals of 95 % by a bootstrap over images
    and priors, or over images and clusters of priors.
    """
    bit = np.tile([float(name in LOW_PASS) for name in names], (len(measured), 1))
    whole = np.arange(len(names))
    free, tied = list(draws(names, len(measured), None)), list(draws(names, len(measured), names))

    def row(what: str, of: np.ndarray, sampled: list[Draw], minus: np.ndarray | None = None,
            among: np.ndarray = whole) -> dict[str, object]:  # fmt: skip
        def found(images: np.ndarray, priors: np.ndarray) -> float:
            kept = priors[np.isin(priors, among)]
            value = agreement(of, measured, images, kept)
            return value if minus is None else value - agreement(minus, measured, images, kept)

        several = np.array([found(*draw) for draw in sampled])
        several = several[np.isfinite(several)]  # a draw may be of one network alone
        low, high = np.quantile(several, [0.025, 0.975]) if len(several) else (math.nan, math.nan)
        value = found(np.arange(len(measured)), among)
        return dict(zip(COLUMNS, (what, len(among), *(f"{v:.3f}" for v in (value, low, high))),
                        strict=True))  # fmt: skip

    yield row("score", scores, free)
    yield row("score, clusters of variants", scores, tied)
    yield row("low-pass or not", bit, free)
    yield row("score less low-pass or not", scores, free, bit)
    for what, members in (("with", bit[0] == 1), ("without", bit[0] == 0)):
        yield row(f"score, networks {what} a low-pass", scores, free, None, np.flatnonzero(members))


def agreement(
    scores: np.ndarray, measured: np.ndarray, images: np.ndarray, priors: np.ndarray
) -> float:
    """Average Spearman's rank correlation over images; NaN where all are alike."""
    if len(priors) < 3:
        return float("nan")
    places = np.ix_(images, priors)
    ranks, truth = (rankdata(values[places], axis=1) for values in (scores, measured))
    ranks, truth = (r - r.mean(axis=1, keepdims=True) for r in (ranks, truth))
    scale = np.sqrt((ranks**2).sum(axis=1) * (truth**2).sum(axis=1))
    if not scale.any():
        return float("nan")
    return float(((ranks * truth).sum(axis=1)[scale > 0] / scale[scale > 0]).mean())


def draws(names: tuple[str, ...], images: int, clustered: tuple[str, ...] | None) -> Iterator[Draw]:
    """Draw images, and priors one by one or in clusters, with replacement."""
    random = np.random.default_rng(0)
    groups = [np.array([i]) for i in range(len(names))]
    if clustered is not None:
        found = [[names.index(n) for n in cluster if n in names] for cluster in CLUSTERS]
        groups = [np.array(group) for group in found if group]
    for _ in range(RESAMPLES):
        chosen = random.integers(len(groups), size=len(groups))
        yield random.integers(images, size=images), np.concatenate([groups[i] for i in chosen])
