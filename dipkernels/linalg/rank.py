"""Effective rank: how many eigenvalues carry a kernel."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from dipkernels.base.statistics import jackknife
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.density import require_spaces
from dipkernels.linalg.lanczos import KrylovSpace


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
        ``*_standard_error``. Attribute ``products``.

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
    require_spaces(probes)
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
    results = {}
    for name, function in quantities.items():
        value, error = jackknife(powers, function, debiased=True)
        results[name], results[f"{name}_standard_error"] = float(value), float(error)
    return xr.Dataset(results, attrs={"products": sum(len(space.alpha) for space in probes)})


def _x_log_x(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)
