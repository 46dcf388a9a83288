"""Rows of a kernel around several pixels: effective filter, shift variance, function of the lag."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from dipkernels.base.seeds import generator
from dipkernels.base.statistics import jackknife_error
from dipkernels.errors import InvalidInputError

LONGEST_SHIFT = 8  # pixels: the longest period that a card looks for
LEAST_SIDE = 8


@dataclass(frozen=True)
class Neighbourhood:
    """Which pixels' rows are compared, and over which lags."""

    centre: tuple[int, ...]  # of the effective filter
    reach: tuple[int, ...]  # of lags, both ways: a quarter of each side
    diagonal: list[tuple[int, ...]]  # one step from each other, about the centre
    scattered: list[tuple[int, ...]]  # random, at least reach away from all borders


def neighbourhood(size: tuple[int, ...], positions: int, seed: int = 0) -> Neighbourhood:
    """Choose pixels of a grid; in 1D the diagonal is the axis itself."""
    if min(size) < LEAST_SIDE:
        raise InvalidInputError(
            f"rows of a kernel are compared on at least {LEAST_SIDE} pixels along each axis, got "
            f"{size}"
        )
    reach = tuple(n // 4 for n in size)
    room = [n - 2 * r for n, r in zip(size, reach, strict=True)]
    shifts = min(LONGEST_SHIFT, *(n - 1 for n in room))
    starts = [
        min(max(n // 2 - shifts // 2, r), n - 1 - r - shifts)
        for n, r in zip(size, reach, strict=True)
    ]
    inner = math.prod(room)
    order = torch.randperm(inner, generator=generator("positions", seed))[:positions]
    places = np.unravel_index(order.numpy(), room)
    return Neighbourhood(
        tuple(n // 2 for n in size),
        reach,
        [tuple(start + d for start in starts) for d in range(shifts + 1)],
        [
            tuple(int(p) + r for p, r in zip(place, reach, strict=True))
            for place in zip(*places, strict=True)
        ],
    )


def windows(
    rows: Float[np.ndarray, "pixels *spatial"],
    pixels: list[tuple[int, ...]],
    reach: tuple[int, ...],
) -> Float[np.ndarray, "pixels *lags"]:
    """Cut rows to the same lags, counted from each row's own pixel."""
    return np.stack(
        [
            row[tuple(slice(p - r, p + r + 1) for p, r in zip(pixel, reach, strict=True))]
            for row, pixel in zip(rows, pixels, strict=True)
        ]
    )


def shift_variance(rows: Float[np.ndarray, "pixels *lags"]) -> tuple[float, float]:
    """Measure how much a kernel's row changes when its pixel moves.

    With ``r_p`` the row at pixel p over the lags of a window, less its own mean over them:
    ``sum_p |r_p - mean_q r_q|^2 / (P - 1)`` over ``sum_p |r_p|^2 / P``: 0 for a stationary kernel,
    about 1 where rows have nothing in common but their mean. Both are unbiased over a random
    choice of pixels; the error, by the jackknife over them, is NaN for 2.
    """  # noqa: DOC201, DOC501
    if len(rows) < 2:
        raise InvalidInputError(f"a variance is of at least 2 rows, got {len(rows)}")
    centred = _centred(rows)
    value = _relative_variance(centred)
    if len(rows) < 3:
        return value, math.nan
    left_out = np.array(
        [_relative_variance(np.delete(centred, i, axis=0)) for i in range(len(centred))]
    )
    return value, float(jackknife_error(left_out))


def shift_correlation(rows: Float[np.ndarray, "pixels *lags"]) -> Float[np.ndarray, " shifts"]:
    """Correlate rows of pixels that lie one step from each other."""
    centred = _centred(rows)
    length = np.linalg.norm(centred, axis=1)
    unit = centred / np.where(length > 0, length, 1)[:, None]
    together = unit @ unit.T
    return np.array([np.diagonal(together, shift).mean() for shift in range(len(rows))])


def lag_profile(kernel: Float[np.ndarray, " *lags"]) -> Float[np.ndarray, " radii"]:
    """Average a function of the lag over rings one pixel wide, less its mean, relative to lag 0."""
    axes = [np.abs(np.arange(n) - n // 2) for n in kernel.shape]
    radius = np.rint(np.hypot.reduce(np.meshgrid(*axes, indexing="ij"), axis=0)).astype(int)
    values = kernel - kernel.mean()
    last = min(kernel.shape) // 2
    profile = np.array([values[radius == r].mean() for r in range(last + 1)])
    return np.asarray(profile / profile[0]) if profile[0] > 0 else np.full(last + 1, math.nan)


def torus_window(
    lags: Float[np.ndarray, " *size"], reach: tuple[int, ...]
) -> Float[np.ndarray, " *lags"]:
    """Cut a stationary kernel on a torus to a window of lags."""
    around = itertools.starmap(
        lambda r, n: np.arange(-r, r + 1) % n, zip(reach, lags.shape, strict=True)
    )
    return np.asarray(lags[np.ix_(*around)])


def _centred(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(len(rows), -1)
    return np.asarray(flat - flat.mean(axis=1, keepdims=True))


def _relative_variance(centred: np.ndarray) -> float:
    spread = ((centred - centred.mean(axis=0)) ** 2).sum() / (len(centred) - 1)
    energy = (centred**2).sum() / len(centred)
    return float(spread / energy) if energy > 0 else math.nan
