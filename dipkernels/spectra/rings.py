"""Rings of spatial frequencies, in one and two dimensions."""

import math
from collections.abc import Sequence

import numpy as np

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError

# Where the last of the default rings ends, and where those before it must: beyond the corner.
_LAST = {1: 0.53, 2: 0.75}
_REACHED = {1: 0.505, 2: 0.72}


@checked
def radial_frequency(size: Sequence[int]) -> np.ndarray:
    """Radius of every discrete frequency of a grid.

    Parameters
    ----------
    size : (length,) or (height, width)
        Of the grid.

    Returns
    -------
    ndarray, shape ``size``
        Cycles per pixel, in FFT order: up to 1/2 along an axis, up to ``sqrt(1/2)`` in the corner.
    """
    return np.asarray(np.hypot.reduce([np.abs(axis) for axis in frequency_axes(size)]))


def frequency_axes(size: Sequence[int]) -> list[np.ndarray]:
    """Frequency along each axis, for every discrete frequency of a grid."""
    return list(np.meshgrid(*(np.fft.fftfreq(n) for n in size), indexing="ij"))


@checked
def ring_edges(size: Sequence[int], count: int = 14) -> np.ndarray:
    """Default rings: one cycle wide at low frequencies, wider above, the corners included.

    Parameters
    ----------
    size : (length,) or (height, width)
        Of the image.
    count : int
        Of rings, about.

    Returns
    -------
    ndarray
        Ascending radii in cycles per pixel; the last lies beyond the corner.

    Raises
    ------
    InvalidInputError
        If the size isn't that of a signal or an image, or no ring is asked for.
    """
    if len(size) not in _LAST or min(size) < 1 or count < 1:
        raise InvalidInputError(
            f"rings need a size (length,) or (height, width) and a count of at least 1, got "
            f"{tuple(size)} and {count}"
        )
    # In cycles per image: one-cycle rings, and a cubic term that brings the last to the corner.
    last, reached = _LAST[len(size)], _REACHED[len(size)]
    longest, steps = max(size), np.arange(count)
    growth = max(0.0, last * longest - 0.5 - count) / count**3
    edges = (0.5 + steps + growth * steps**3) / longest
    return np.append(edges[edges < reached], last)


def checked_edges(edges: Sequence[float] | np.ndarray | None, size: Sequence[int]) -> np.ndarray:
    """Take the edges that are given, or the default ones."""
    try:
        radii = ring_edges(size) if edges is None else np.asarray(edges, dtype=float)
    except (TypeError, ValueError):
        radii = np.empty(())
    if radii.ndim != 1:
        raise InvalidInputError(f"the edges of rings must be a list of numbers, got {edges!r}")
    if not (np.diff(radii) > 0).all():
        raise InvalidInputError(f"the edges of rings must ascend, got {radii.tolist()}")
    return radii


def ring_masks(size: Sequence[int], edges: np.ndarray) -> list[np.ndarray]:
    """Sort the frequencies of a grid into rings."""
    radius = radial_frequency(size)
    constant = radius == 0
    which = np.digitize(radius, edges)
    rings = [(which == i) & ~constant for i in range(len(edges) + 1)]
    return [constant, *(ring for ring in rings if ring.any())]


def corner(size: Sequence[int]) -> float:
    """Highest radius of any grid of as many dimensions."""
    return math.sqrt(len(size)) / 2
