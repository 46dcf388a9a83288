"""Spectral density by stochastic Lanczos quadrature, with error bars."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.statistics import standard_error
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.lanczos import KrylovSpace


@checked
def spectral_density(
    probes: Sequence[KrylovSpace],
    *,
    bandwidth: float = 0.15,
    points: int = 200,
    decades: float = 9.0,
) -> xr.Dataset:
    """Estimate how many eigenvalues lie near each value, from Lanczos runs of random probes.

    Parameters
    ----------
    probes : sequence of KrylovSpace
        From Rademacher probes of one operator of size n, so that ``E |v|^2 f = tr f(A)``.
    bandwidth : float
        Standard deviation of the Gaussian in log10 of the eigenvalue that each quadrature node
        is smeared with.
    points : int
        Of the grid.
    decades : float
        Range of the grid below the largest eigenvalue. Eigenvalues below it are counted in the
        attribute ``below_grid``.

    Returns
    -------
    xarray.Dataset
        Over ``eigenvalue`` (geometric grid): ``density``, the number of eigenvalues per decade,
        and its ``standard_error`` over the probes (NaN for one probe). Over ``(probe, node)``:
        the quadrature ``nodes`` and ``weights`` themselves (weight 0 fills ragged rows).
        Attributes: ``trace``, ``trace_standard_error``, ``largest``, ``below_grid``,
        ``products``.

    Raises
    ------
    InvalidInputError
        If there are no probes, a number is out of range, or the operator is zero.

    Notes
    -----
    Costs nothing beyond the runs. A float32 operator's eigenvalues below 1e-7 of the largest are
    rounding. Source: Lin, Saad & Yang 2016; Papyan 2020 for networks.
    """
    require_spaces(probes)
    if not (0 < bandwidth < np.inf and 0 < decades < np.inf and points > 1):
        raise InvalidInputError(
            "bandwidth and decades must be positive and points at least 2, got "
            f"{bandwidth}, {decades} and {points}"
        )
    if not probes:
        raise InvalidInputError("a spectral density needs at least 1 probe, got none")
    rules = [space.gauss() for space in probes]
    longest = max(len(rule.nodes) for rule in rules)
    nodes, weights = np.zeros((2, len(rules), longest))
    for row, rule in enumerate(rules):
        nodes[row, : len(rule.nodes)] = rule.nodes
        weights[row, : len(rule.nodes)] = rule.weights
    largest = float(nodes.max())
    if not largest > 0:
        raise InvalidInputError("the operator is zero: it has no eigenvalue to show on a log axis")
    top = np.log10(largest)
    grid = np.linspace(top - decades, top + 3 * bandwidth, points)
    logs = np.log10(np.maximum(nodes, largest * 10 ** (-2 * decades)))
    bumps = np.exp(-0.5 * ((grid[:, None, None] - logs) / bandwidth) ** 2)
    samples = (bumps * weights).sum(-1).T / (bandwidth * np.sqrt(2 * np.pi))
    traces = (nodes * weights).sum(axis=1)
    return xr.Dataset(
        {
            "density": ("eigenvalue", samples.mean(axis=0), {"units": "eigenvalues per decade"}),
            "standard_error": ("eigenvalue", standard_error(samples)),
            "nodes": (("probe", "node"), nodes),
            "weights": (("probe", "node"), weights),
        },
        {"eigenvalue": ("eigenvalue", 10**grid)},
        {
            "trace": float(traces.mean()),
            "trace_standard_error": float(standard_error(traces)),
            "largest": largest,
            "below_grid": float((weights * (logs < grid[0])).sum() / len(rules)),
            "products": sum(len(space.alpha) for space in probes),
        },
    )


def require_spaces(spaces: object) -> None:
    """Require Krylov spaces."""
    if not isinstance(spaces, list | tuple) or not all(isinstance(s, KrylovSpace) for s in spaces):
        raise InvalidInputError(
            "expected a list of KrylovSpace, as Lanczos.spaces and krylov_probes return, got a "
            f"{type(spaces).__name__}"
        )
