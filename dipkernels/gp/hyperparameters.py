"""Fitting length-scale, output scale, noise and mean to a measurement, by its evidence."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Positive
from dipkernels.base.progress import Progress
from dipkernels.errors import InvalidInputError, NotSymmetricError
from dipkernels.gp.evidence import (
    METHODS,
    Evidence,
    MeasuredCovariance,
    chosen_method,
    dense_matrix,
)
from dipkernels.gp.lags import LagKernel
from dipkernels.gp.observation import Observation
from dipkernels.gp.process import GaussianProcess
from dipkernels.gp.torus import TorusCovariance, covariance_on
from dipkernels.linalg import Lanczos, Quadrature, krylov_probes
from dipkernels.tasks import Task

_RATIOS = (1e-6, 1e2)  # of noise variance to output scale, between which it's sought
_GRID = 7  # length-scales that are tried before the best is refined
_EXPECTED = 25  # length-scales in all, for the bar


@dataclass(frozen=True, eq=False)
class FittedHyperparameters:
    """What maximises the evidence; see `fit_hyperparameters`."""

    process: GaussianProcess
    noise_sigma: float
    log_evidence: float
    evidence: Evidence
    tried: tuple[tuple[float, float], ...]


@checked
def fit_hyperparameters(
    task: Task,
    kernel: LagKernel,
    *,
    mean: float | None = None,
    noise_sigma: Positive | None = None,
    periodic: bool = False,
    bounds: tuple[float, float] | None = None,
    method: str = "auto",
    probes: int = 16,
    steps: int = 64,
    seed: int = 0,
    progress: bool = False,
) -> FittedHyperparameters:
    """Maximise the evidence of a measurement over a kernel's scales, the noise and the mean.

    Parameters
    ----------
    task : Task
        What was measured.
    kernel : LagKernel
        Its correlation is kept; its scales aren't looked at.
    mean, noise_sigma : float, optional
        Of the process, and of the noise, positive; by default fitted, whatever the task says.
    periodic : bool
        As of `GaussianProcess`.
    bounds : (float, float), optional
        Of the length-scale, in pixels; by default 0.3 to a quarter of the shortest side.
    method, probes, steps, seed
        As of `GPPosterior.log_evidence`. With probes the maximum is that of an estimate; as all
        length-scales share them, most of the error is common.
    progress : bool
        Show a bar, which counts length-scales.

    Returns
    -------
    FittedHyperparameters
        ``process`` with the fitted kernel and mean; ``noise_sigma``, fitted or given;
        ``log_evidence`` as it was maximised; ``evidence`` at the optimum, computed anew, with the
        gradient that is left; ``tried``, every length-scale that was looked at, with its evidence.

    Raises
    ------
    InvalidInputError
        If the bounds aren't positive and ascending, or the method isn't possible.
    NotSymmetricError
        If the kernel isn't positive semi-definite.

    Notes
    -----
    The covariance is ``s (C + g)``, with ``C`` of the length-scale alone and g the ratio of noise
    to output scale: from the eigenvalues of ``C``, or their quadrature, the evidence follows for
    every s, g and mean. For a given g the best s and mean are in closed form; g and the
    length-scale are sought by Brent's method. Price: one decomposition for each of about 20
    length-scales.
    """
    low, high = _bounds(bounds, task)
    if mean is not None and not math.isfinite(mean):
        raise InvalidInputError(f"the mean must be finite, got {mean}")
    require_choice("method", method, METHODS)
    task = task.to(dtype=torch.float64)
    variance = None if noise_sigma is None else noise_sigma**2
    tried: dict[float, _Optimum] = {}
    with Progress(_EXPECTED, f"scales of {kernel.name}", enabled=progress) as bar:

        def loss(log_lengthscale: float) -> float:
            lengthscale = math.exp(log_lengthscale)
            if lengthscale not in tried:
                unit = replace(kernel, lengthscale=lengthscale, outputscale=1.0)
                device = task.measurement.device
                covariance = covariance_on(unit, task.shape[1:], periodic=periodic, device=device)
                seen = Observation(task, covariance, 1.0, "auto", 1e-8, 1)
                profile = _Profile(seen, method, probes, steps, seed)
                tried[lengthscale] = profile.best(mean, variance)
                bar.advance()
            return -tried[lengthscale].value

        grid = np.linspace(math.log(low), math.log(high), _GRID)
        centre = int(np.argmin([loss(each) for each in grid]))
        around = (grid[max(centre - 1, 0)], grid[min(centre + 1, _GRID - 1)])
        minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
    lengthscale = max(tried, key=lambda each: tried[each].value)
    best = tried[lengthscale]
    scaled = replace(kernel, lengthscale=lengthscale, outputscale=best.outputscale)
    process = GaussianProcess(scaled, best.mean, periodic)
    sigma = best.noise_variance**0.5
    evidence = process.posterior(task, sigma).log_evidence(
        method, probes=probes, steps=steps, seed=seed
    )
    pairs = tuple((each, found.value) for each, found in sorted(tried.items()))
    return FittedHyperparameters(process, sigma, best.value, evidence, pairs)


@dataclass(frozen=True)
class _Optimum:
    value: float
    outputscale: float
    noise_variance: float
    mean: float


class _Profile:
    """The evidence for one length-scale, as a function of all else.

    ``rules`` give ``y^T f(C) y``, ``1^T f(C) 1`` and ``y^T f(C) 1``, ``determinant`` the trace of
    ``f(C)``.
    """

    def __init__(self, seen: Observation, method: str, probes: int, steps: int, seed: int) -> None:
        self.n = seen.count
        y, one = seen.task.measurement * seen.counted, seen.constant
        method = chosen_method(method, seen)
        if method == "fourier":
            k = seen.covariance
            _require_definite(k)
            values = k.eigenvalues.clamp(min=0).cpu().numpy().ravel()
            self.determinant = Quadrature(values, np.full(values.shape, float(len(y))))

            def power(x: Tensor) -> np.ndarray:
                return torch.stack([k.powers(c) for c in x]).sum(dim=0).cpu().numpy().ravel()

            self.rules = [Quadrature(values, power(x)) for x in (y, one, y + one)]
        else:
            self._decompose(seen, method == "dense", y, one, (probes, steps, seed))

    def best(self, mean: float | None, variance: float | None) -> _Optimum:
        def optimum(log_ratio: float) -> _Optimum:
            return self._given(math.exp(log_ratio), mean, variance)

        found = minimize_scalar(
            lambda t: -optimum(t).value,
            bounds=tuple(map(math.log, _RATIOS)),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return optimum(float(found.x))

    def _given(self, g: float, mean: float | None, variance: float | None) -> _Optimum:
        yy, oo, both = (float(rule(lambda v: 1 / (v + g))) for rule in self.rules)
        cross = (both - yy - oo) / 2
        m = cross / oo if mean is None else mean
        fit = max(yy - 2 * m * cross + m**2 * oo, 1e-300)
        s = fit / self.n if variance is None else variance / g
        logdet = float(self.determinant(lambda v: np.log(v + g)))
        value = -0.5 * (fit / s + logdet + self.n * math.log(2 * math.pi * s))
        return _Optimum(value, s, s * g, m)

    def _decompose(
        self, seen: Observation, dense: bool, y: Tensor, one: Tensor, options: tuple[int, int, int]
    ) -> None:
        operator = MeasuredCovariance(seen)
        starts = operator.restrict(torch.stack([x.flatten() for x in (y, one, y + one)]))
        if dense:
            values, vectors = torch.linalg.eigh(dense_matrix(operator, operator.__matmul__))
            nodes = values.clamp(min=0).cpu().numpy()
            self.determinant = Quadrature(nodes, np.ones(self.n))
            squares = (vectors.T @ starts).square().cpu().numpy()
            self.rules = [Quadrature(nodes, column) for column in squares.T]
            return
        probes, steps, seed = options
        spaces = krylov_probes(operator, probes, steps, seed=seed)
        rules = [space.gauss() for space in spaces]
        nodes = np.concatenate([rule.nodes for rule in rules])
        self.determinant = Quadrature(nodes, np.concatenate([r.weights for r in rules]) / probes)
        run = Lanczos(operator, starts, keep_products=False).extend(2 * steps)
        self.rules = [space.gauss() for space in run.spaces()]


# A logarithm of a negative eigenvalue is NaN, which every comparison passes over.
def _require_definite(covariance: TorusCovariance) -> None:
    if not covariance.definite:
        raise NotSymmetricError(
            "this kernel is no covariance on the image's torus: an eigenvalue is "
            f"-{covariance.negativity:.1e} of the largest; take another kernel"
        )


def _bounds(bounds: tuple[float, float] | None, task: Task) -> tuple[float, float]:
    if bounds is None:
        return 0.3, max(min(task.shape[1:]) / 4, 0.6)
    if not 0 < bounds[0] < bounds[1] < math.inf:
        raise InvalidInputError(f"bounds must be two positive, ascending numbers, got {bounds!r}")
    return bounds
