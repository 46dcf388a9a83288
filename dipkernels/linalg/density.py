"""What random probes tell of a spectrum, with error bars: its density, its effective rank."""

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Positive, at_least
from dipkernels.base.statistics import jackknife, standard_error, with_errors
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.lanczos import KrylovSpace


@checked
def spectral_density(
    probes: Sequence[KrylovSpace],
    *,
    bandwidth: Positive = 0.15,
    points: Annotated[int, at_least(2)] = 200,
    decades: Positive = 9.0,
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
        Over ``eigenvalue`` (geometric grid): ``density``, the number of eigenvalues per decade, and
        its ``standard_error`` over the probes (NaN for one probe). Over ``(probe, node)``: the
        quadrature ``nodes`` and ``weights`` themselves (weight 0 fills ragged rows). Attributes:
        ``trace``, ``trace_standard_error``, ``largest``, ``below_grid``, ``matvecs``.

    Raises
    ------
    InvalidInputError
        If there are no probes, or the operator is zero.

    Notes
    -----
    Costs nothing beyond the runs. A float32 operator's eigenvalues below 1e-7 of the largest are
    rounding. Source: Lin, Saad & Yang 2016; Papyan 2020 for networks.
    """
    if not probes:
        raise InvalidInputError("a spectral density needs at least 1 probe, got none")
    rules = [space.gauss() for space in probes]
    longest = max(len(rule.nodes) for rule in rules)
    nodes, weights = np.zeros((2, len(rules), longest))
    for row, rule in enumerate(rules):
        m = len(rule.nodes)
        nodes[row, :m], weights[row, :m] = rule.nodes, rule.weights
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
            "matvecs": sum(len(space.alpha) for space in probes),
        },
    )


@checked
def effective_rank(probes: Sequence[KrylovSpace]) -> xr.Dataset:
    """Estimate two effective ranks, from Lanczos runs of random probes.

    ``participation = (tr A)^2 / tr A^2`` counts eigenvalues by their squares, and
    ``entropy = exp(-sum_i p_i log p_i)``, ``p_i = lambda_i / tr A``, by their information. Both lie
    between 1 and n, and are r for r equal eigenvalues; the second is never less than the first.

    Parameters
    ----------
    probes : sequence of KrylovSpace
        At least 2, from `dipkernels.linalg.krylov_probes` or from Rademacher probes.

    Returns
    -------
    xarray.Dataset
        Scalars ``participation``, ``entropy``, ``trace`` and ``frobenius_norm``, each with
        ``*_standard_error``. Attribute ``matvecs``.

    Raises
    ------
    InvalidInputError
        If there are fewer than 2 probes, or the operator is zero.

    Notes
    -----
    Costs nothing beyond the runs. Traces of A (from 1 step) and of A^2 (from 2) are unbiased; that
    of ``A log A`` is by Gauss quadrature, whose error falls geometrically with the steps. A ratio
    of means is biased by the square of its error; the jackknife removes that and gives the standard
    errors. Source: Roy & Vetterli 2007 for the entropy; Hutchinson 1990 for the traces.
    """
    if len(probes) < 2:
        raise InvalidInputError(f"at least 2 probes are needed for an error bar, got {len(probes)}")
    rules = [space.gauss() for space in probes]
    powers = np.array([rule(lambda x: np.stack([x, x**2, _x_log_x(x)])) for rule in rules])
    if not powers[:, 0].mean() > 0:
        raise InvalidInputError("the operator is zero: it has no effective rank")
    quantities: dict[str, Callable[[np.ndarray], float]] = {
        "participation": lambda m: m[0] ** 2 / m[1],
        "entropy": lambda m: float(np.exp(np.log(m[0]) - m[2] / m[0])),
        "trace": lambda m: m[0],
        "frobenius_norm": lambda m: m[1] ** 0.5,
    }
    found = {name: jackknife(powers, each, debiased=True) for name, each in quantities.items()}
    spent = sum(len(space.alpha) for space in probes)
    return xr.Dataset(with_errors(found), attrs={"matvecs": spent})


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)
