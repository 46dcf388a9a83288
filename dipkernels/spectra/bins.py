"""Radial bins of spatial frequencies, in one, two and three dimensions."""

import math
from collections.abc import Sequence

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import SIZES

Edges = Sequence[float] | np.ndarray

# Where the last of the default bins ends, and where those before it must: beyond the corner.
_LAST = {1: 0.53, 2: 0.75, 3: 0.9}
_REACHED = {1: 0.505, 2: 0.72, 3: 0.875}


@checked
def radial_frequency(size: Sequence[int]) -> np.ndarray:
    """Radius of every discrete frequency of a grid.

    Parameters
    ----------
    size : (length,), (height, width) or (depth, height, width)
        Of the grid.

    Returns
    -------
    ndarray, shape ``size``
        Cycles per pixel, in FFT order: up to 1/2 along an axis, up to ``sqrt(dimensions) / 2`` in
        the corner.
    """
    return np.asarray(np.hypot.reduce([np.abs(axis) for axis in frequency_axes(size)]))


def frequency_axes(size: Sequence[int]) -> list[np.ndarray]:
    """Frequency along each axis, for every discrete frequency of a grid."""
    return list(np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij"))


@checked
def bin_edges(size: Sequence[int], count: int = 14) -> np.ndarray:
    """Default bins: one cycle wide at low frequencies, wider above, the corners included.

    Parameters
    ----------
    size : (length,), (height, width) or (depth, height, width)
        Of the image.
    count : int
        Of bins, about.

    Returns
    -------
    ndarray
        Ascending radii in cycles per pixel; the last lies beyond the corner.

    Raises
    ------
    InvalidInputError
        If the size isn't that of a signal, an image or a volume, or no bin is asked for.
    """
    if len(size) not in _LAST or min(size) < 1 or count < 1:
        raise InvalidInputError(
            f"bins need a size {SIZES} and a count of at least 1, got {tuple(size)} and {count}"
        )
    # In cycles per image: one-cycle bins, and a cubic term that brings the last to the corner.
    last, reached = _LAST[len(size)], _REACHED[len(size)]
    longest, steps = max(size), np.arange(count)
    growth = max(0.0, last * longest - 0.5 - count) / count**3
    edges = (0.5 + steps + growth * steps**3) / longest
    return np.append(edges[edges < reached], last)


def checked_edges(edges: Edges | None, size: Sequence[int]) -> np.ndarray:
    """Take the edges that are given, or the default ones."""
    try:
        radii = bin_edges(size) if edges is None else np.asarray(edges, dtype=float)
    except (TypeError, ValueError):
        radii = np.empty(())
    if radii.ndim != 1:
        raise InvalidInputError(f"the edges of bins must be a list of numbers, got {edges!r}")
    if not (np.diff(radii) > 0).all():
        raise InvalidInputError(f"the edges of bins must ascend, got {radii.tolist()}")
    return radii


def bin_masks(size: Sequence[int], edges: Edges | None = None) -> list[np.ndarray]:
    """Sort the frequencies of a grid into bins: the constant, then all that aren't empty."""
    radius, limits = radial_frequency(size), checked_edges(edges, size)
    constant = radius == 0
    which = np.digitize(radius, limits)
    masks = [(which == i) & ~constant for i in range(len(limits) + 1)]
    return [constant, *(mask for mask in masks if mask.any())]


def mean_radii(size: Sequence[int], masks: Sequence[np.ndarray]) -> xr.Variable:
    """Mean radius of each bin, as the coordinate of a dataset."""
    radius = radial_frequency(size)
    means = [radius[mask].mean() for mask in masks]
    return xr.Variable("frequency", means, {"units": "cycles/pixel"})


def mode_counts(masks: Sequence[np.ndarray]) -> xr.Variable:
    """Count the frequencies of each bin."""
    return xr.Variable("frequency", [int(mask.sum()) for mask in masks])


def corner(size: Sequence[int]) -> float:
    """Highest radius of any grid of as many dimensions."""
    return math.sqrt(len(size)) / 2
