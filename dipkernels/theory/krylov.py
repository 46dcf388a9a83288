"""What a Krylov space of a kernel tells of a fit: errors, with bounds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.images.metrics import decibels
from dipkernels.linalg.golub_kahan import FactoredSpace
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.theory.dynamics import Dynamics, GradientFlow
from dipkernels.theory.expansion import (
    Errors,
    Expansion,
    Noise,
    as_array,
)

# Band: bounds of the quadrature, widened by this many standard errors of the probes.
BAND_ERRORS = 2.0
RESIDUAL = 256  # part of a singular value's relative rounding that squares of images have
TIMES_AT_ONCE = 16
POWERS = 20  # iterations, for a factor of an error bar

_Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # lower, middle, upper, each (time, region)
_Function = Callable[[np.ndarray], np.ndarray]


@checked
@dataclass(frozen=True, eq=False)
class KrylovExpansion(Expansion):
    """What a Krylov space of a kernel tells about a task.

    It is of ``A Theta A^T``, the kernel of what is measured: from the start, and from random signs,
    none without noise, or if it is realised.
    """

    noise: Noise
    residual: Float[Tensor, " n"]  # clean - f_0: what a perfect fit has yet to learn
    measured: Bool[Tensor, " n"]  # which outputs the loss sees as they are
    regions: dict[str, Bool[Tensor, " n"]]
    score_region: str
    noise_sigma: float
    space: FactoredSpace
    counted: int  # numbers of the measurement that count
    length: int  # and all, over which the loss is a mean
    gain: float = 1.0  # largest singular value of the operator
    ceiling: float | None = None  # of the peak, in dB, where its bound from above is extrapolated

    @property
    def entries(self) -> int:
        """Count them, whether they count or not."""
        return self.length

    @property
    def probes(self) -> int:
        """Count the random signs."""
        return int(self.space.coordinates.shape[1]) - 1

    @property
    def largest(self) -> float:  # type: ignore[override]
        """Take that of the space."""
        return self.space.largest

    @property
    def matvecs(self) -> int:  # type: ignore[override]
        """Take those of the space."""
        return self.space.matvecs

    @property
    def outputs(self) -> int:
        """Count them."""
        return len(self.residual)

    def errors(self, dynamics: Dynamics) -> Errors:
        """Take quadratures where they know the whole image, else the action on vectors."""
        return self._errors(dynamics, BAND_ERRORS)

    def peak_bounds(self, deviations: float = 0.0) -> tuple[float, float]:
        """Bound the peak of the flow, in dB: by the products, which more of them narrow, alone."""
        errors = self._errors(GradientFlow(self.times), deviations)
        column = list(self.regions).index(self.score_region)
        low, high = errors.upper[:, column], np.maximum(errors.lower[:, column], 0)
        return float(decibels(low).max()), float(decibels(high).max())

    def _errors(self, dynamics: Dynamics, deviations: float) -> Errors:
        # the residual is rounded, too
        slack = self.space.relative / RESIDUAL
        if self.noise == "realised":
            low, middle, high = _run_errors(self, dynamics)
            return Errors(low * (1 - slack), middle, high * (1 + slack))
        plain = list(self.regions) == ["whole"] and bool(self.measured.all())
        quadrature = plain and dynamics.monotone(self.largest)
        bias = (_bias_by_quadrature if quadrature else _run_errors)(self, dynamics)
        variance = _variance(self, dynamics, deviations, quadrature=quadrature)
        if quadrature:  # which falls with time, and which rises
            bias = _ordered(bias, dynamics.times, falling=True)
            variance = _ordered(variance, dynamics.times, falling=False)
        low, middle, high = (b + v for b, v in zip(bias, variance, strict=True))
        parts = {"bias": bias[1], "variance": variance[1]}
        return Errors(low * (1 - slack), middle, high * (1 + slack), parts)

    def degrees_of_freedom(self, dynamics: Dynamics) -> np.ndarray:
        """Take the trace by the probes."""
        if not self.probes:
            return np.full(len(dynamics.times), np.nan)
        left = _mean([_probe_rules(self, i)[0](dynamics.decay) for i in range(self.probes)])
        if self.space.complete:  # eigenvalues that are 0 and in no space
            left = left + self.counted - self.space.matvecs
        return np.asarray(self.counted - left)


def _bias_by_quadrature(expansion: KrylovExpansion, dynamics: Dynamics) -> _Bounds:
    n, space = expansion.outputs, expansion.space
    rules = space.gauss(0), space.radau(0)
    return _columns(*(x / n for x in _falling(space, rules, lambda x: dynamics.decay(x) ** 2)))


# Bounds of tr (1 - E)^2 / n = 1 - 2 tr E / n + tr E^2 / n, termwise, of one probe.
def _probe_by_quadrature(expansion: KrylovExpansion, dynamics: Dynamics, probe: int) -> _Bounds:
    n, space = expansion.outputs, expansion.space
    rules = _probe_rules(expansion, probe)
    once = _falling(space, rules, dynamics.decay)
    twice = _falling(space, rules, lambda x: dynamics.decay(x) ** 2)
    low = np.maximum(n - 2 * once[2] + twice[0], 0) / n
    high = np.minimum(n - 2 * once[0] + twice[2], n) / n
    return _columns(low, (low + high) / 2, high)


# Of a probe, or, where the whole spectrum is known, of all eigenvalues once each.
def _probe_rules(expansion: KrylovExpansion, probe: int) -> tuple[Quadrature, Quadrature]:
    space = expansion.space
    if space.complete:
        values = space.eigenpairs()[0]
        rule = Quadrature(values, np.ones(len(values)))
        return rule, rule
    return space.gauss(1 + probe), space.radau(1 + probe)


# Bounds of a form of a falling function. Rounding moves the singular values of the Jacobian (Weyl's
# inequality): up, the function falls, and down, it rises.
def _falling(
    space: FactoredSpace, rules: tuple[Quadrature, Quadrature], function: _Function
) -> _Bounds:
    def of(rule: Quadrature, sign: int) -> np.ndarray:
        return np.asarray(function(space.moved(rule.nodes, sign)) @ rule.weights)

    gauss, radau = rules
    return of(gauss, 1), (of(gauss, 0) + of(radau, 0)) / 2, of(radau, -1)


def _columns(*arrays: np.ndarray) -> _Bounds:
    low, middle, high = (array[:, None] for array in arrays)
    return low, middle, high


# Bounds of what falls (or rises) with time hold at later (earlier) times too.
def _ordered(bounds: _Bounds, times: np.ndarray, *, falling: bool) -> _Bounds:
    order = np.argsort(times, kind="stable")
    back = np.argsort(order, kind="stable")
    low, middle, high = (each[order] if falling else each[order][::-1] for each in bounds)
    high = np.minimum.accumulate(high)
    low = np.maximum.accumulate(low[::-1])[::-1]
    middle = np.clip(middle, low, high)
    low, middle, high = (x if falling else x[::-1] for x in (low, middle, high))
    return low[back], middle[back], high[back]


# The mean over probes, widened by standard errors: of a form z^T G z of signs, the variance is at
# most 2 tr G^2 - 2 (tr G)^2 / n, which the probes estimate; over missing pixels, 2 tr G.
def _variance(
    expansion: KrylovExpansion, dynamics: Dynamics, deviations: float, *, quadrature: bool
) -> _Bounds:
    noise, n = expansion.noise_sigma**2, expansion.outputs
    if not noise:
        zero = np.zeros((len(dynamics.times), len(expansion.regions)))
        return zero, zero, zero
    if expansion.space.complete and not quadrature:
        middle = _whole_trace(expansion, dynamics)
        return noise * middle, noise * middle, noise * middle
    of_probe = _probe_by_quadrature if quadrature else _probe_errors
    samples = [of_probe(expansion, dynamics, i) for i in range(expansion.probes)]
    low, middle, high = (_mean(each) for each in zip(*samples, strict=True))
    if expansion.space.complete:
        return noise * low, noise * middle, noise * high
    sizes = np.array([int(mask.sum()) for mask in expansion.regions.values()])
    spread = middle / sizes
    if not bool(expansion.measured.any()):  # another operator than a mask
        spread = spread * _stiffest(expansion, dynamics)
    elif bool(expansion.measured.all()) and list(expansion.regions) == ["whole"]:
        rules = [_probe_rules(expansion, i)[0] for i in range(expansion.probes)]
        fourth = _mean([rule(lambda x: dynamics.learned(x) ** 4) for rule in rules])[:, None]
        spread = np.maximum(fourth - n * middle**2, 0) / n**2
    error = deviations * np.sqrt(2 * spread / expansion.probes)
    return noise * np.maximum(low - error, 0), noise * middle, noise * (high + error)


# Largest eigenvalue of the form of a probe, R^T R with R from unit noise to images, of which a mask
# has 1: by power iteration in the space, from all times at once.
def _stiffest(expansion: KrylovExpansion, dynamics: Dynamics) -> np.ndarray:
    values, coefficients = expansion.space.eigenpairs()
    found = []
    for mask in expansion.regions.values():
        images = expansion.space.images[:, mask]
        gram = coefficients.T @ as_array(images @ images.T) @ coefficients
        scale = dynamics.accumulated(values)
        x, largest = np.ones_like(scale), np.zeros(len(scale))
        for _ in range(POWERS):
            length = np.linalg.norm(x, axis=1, keepdims=True)
            x = scale * ((scale * x / np.where(length > 0, length, 1.0)) @ gram)
            largest = np.linalg.norm(x, axis=1)
        found.append(largest)
    return np.stack(found, axis=1)


def _mean(samples: list[np.ndarray] | tuple[np.ndarray, ...]) -> np.ndarray:
    return np.asarray(np.mean(np.stack(samples), axis=0))


# Mean squares over regions of what all unit vectors become, from every eigenvector.
def _whole_trace(expansion: KrylovExpansion, dynamics: Dynamics) -> np.ndarray:
    values, coefficients = expansion.space.eigenpairs()
    images = torch.from_numpy(coefficients.T.copy()).to(expansion.residual.device)
    squares = (images @ expansion.space.images).square()
    masks = _masks(expansion)
    of_region = as_array(squares @ masks / masks.sum(dim=0))
    return np.asarray(np.square(dynamics.accumulated(values)) @ of_region)


# Of the fit that starts at the expansion's network, to the clean image.
def _run_errors(expansion: KrylovExpansion, dynamics: Dynamics) -> _Bounds:
    return _action_errors(expansion, dynamics, 0, expansion.residual)


# Mean square of what a fit makes of a probe; its mean over probes is that over unit noise.
def _probe_errors(expansion: KrylovExpansion, dynamics: Dynamics, probe: int) -> _Bounds:
    return _action_errors(expansion, dynamics, 1 + probe, torch.zeros_like(expansion.residual))


# Mean square over each region of `target` less what is learned of a start of the space.
def _action_errors(
    expansion: KrylovExpansion, dynamics: Dynamics, start: int, target: Tensor
) -> _Bounds:
    space, learned = expansion.space, dynamics.accumulated
    full, outside = space.action(learned, start)
    changes = [full.copy()]
    before = space.action(learned, start, space.earlier())[0]
    changes[0][:, : before.shape[1]] -= before
    changes += [full - space.action(learned, start, sign=1)[0]]
    masks = _masks(expansion)
    sizes = masks.sum(dim=0)

    # in blocks of times, so that no more than a block of images is in memory
    def roots(coefficients: np.ndarray, target: Tensor) -> np.ndarray:
        found = []
        for first in range(0, len(coefficients), TIMES_AT_ONCE):
            some = torch.from_numpy(coefficients[first : first + TIMES_AT_ONCE]).to(target.device)
            error = target - some @ space.images
            found.append(error.square() @ masks / sizes)
        return as_array(torch.cat(found).sqrt())

    root = roots(full, target)
    gap, rounded = (roots(each, torch.zeros_like(target)) for each in changes)
    # Where they bound nothing, both estimates must be small: what the last steps changed tells
    # little where they converge slowly, and the residual little of what wasn't measured.
    norm, bounded = _outside(outside, dynamics), dynamics.monotone(expansion.largest)
    for i, mask in enumerate(expansion.regions.values()):
        if bounded and not bool((mask & ~expansion.measured).any()):
            gap[:, i] = norm / np.sqrt(float(sizes[i]))
        else:
            directions = min(expansion.counted, expansion.outputs)
            typical = norm / (max(expansion.gain, 1e-300) * np.sqrt(directions))
            gap[:, i] = np.maximum(gap[:, i], typical)
    gap += rounded
    return np.maximum(root - gap, 0) ** 2, root**2, (root + gap) ** 2


def _masks(expansion: KrylovExpansion) -> Tensor:
    return torch.stack([mask.double() for mask in expansion.regions.values()], dim=1)


# Norm of the residual of what the space says, by times. It bounds the error over all measured
# outputs where the dynamics are monotone. With u' = v - A u and its approximation Q^T c(t), the
# residual is a combination d(t) of the rows that come next, and the error of A u is the integral of
# A exp(-(t - s) A) d(s): of every such row, at most the largest |d(s)| until then.
def _outside(outside: np.ndarray, dynamics: Dynamics) -> np.ndarray:
    order = np.argsort(dynamics.times, kind="stable")
    largest = np.maximum.accumulate(np.abs(outside[order]))
    norms = np.empty(len(order))
    norms[order] = largest.sum(axis=1)
    return norms
