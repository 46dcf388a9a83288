"""Gaussian expectations of smooth functions, where no closed form is known.

The trapezoid rule in standard-normal coordinates: its error falls exponentially with the number of
nodes for functions that are analytic near the real axis, where Gauss-Hermite quadrature needs very
many nodes once the variance is large.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dipkernels.errors import InvalidInputError

Function = Callable[[Tensor], Tensor]

REACH = 9.5  # standard deviations, beyond which the density is below 1e-20
STEP = 0.1
EXPONENT = 32.0  # tanh's error is exp(-pi^2 / (h sqrt(q))): h is such that this is the exponent
NODES = 64  # of the first interpolation in the angle; doubled until it suffices
MOST_NODES = 1024
TOLERANCE = 1e-13
MOST_PAIRS = 4096  # pairs of different variances
DIRECT = 48  # up to so many covariances are integrated each by itself


def dual_by_quadrature(function: Function, q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
    """Compute ``E f(x) f(y)`` for ``x ~ N(0, q1)``, ``y ~ N(0, q2)``, ``E x y = k``."""
    q1, q2, k = torch.broadcast_tensors(q1, q2, k)
    pairs = _rounded(torch.stack([q1.flatten(), q2.flatten()]))
    different, which = torch.unique(pairs, dim=1, return_inverse=True)
    if different.shape[1] > MOST_PAIRS:
        raise InvalidInputError(
            f"this activation has no closed form, and {different.shape[1]} pairs of variances are "
            f"too many to integrate for (at most {MOST_PAIRS}): average over phases, by a smaller "
            "period, or use an activation with a closed form"
        )
    values = torch.empty_like(which, dtype=torch.float64)
    flat = k.flatten()
    for pair, (a, b) in enumerate(different.T.tolist()):
        members = which == pair
        norm = math.sqrt(a * b)
        cosines = (flat[members] / norm).clamp(-1, 1) if norm else torch.zeros_like(flat[members])
        values[members] = _of_correlation(function, a, b, cosines)
    return values.reshape(k.shape)


def mean_by_quadrature(function: Function, q: Tensor) -> Tensor:
    """Compute ``E f(x)`` for ``x ~ N(0, q)``."""
    nodes, weights = _nodes(float(q.max()), q)
    return (function(q.sqrt()[..., None] * nodes) * weights).sum(dim=-1)


# To 13 digits, so that variances that are equal but for rounding are integrated for once.
def _rounded(values: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 2**43).round() / 2**43, exponent)


def _nodes(variance: float, like: Tensor) -> tuple[Tensor, Tensor]:
    step = min(STEP, math.pi**2 / (EXPONENT * math.sqrt(variance))) if variance else STEP
    count = math.ceil(REACH / step)
    nodes = step * torch.arange(-count, count + 1, dtype=torch.float64, device=like.device)
    return nodes, step * torch.exp(-nodes.square() / 2) / math.sqrt(2 * math.pi)


def _of_correlation(function: Function, q1: float, q2: float, cosines: Tensor) -> Tensor:
    if len(cosines) <= DIRECT:
        return _integrals(function, q1, q2, cosines)
    nodes = NODES
    while True:
        steps = torch.arange(nodes, dtype=torch.float64, device=cosines.device)
        angles = math.pi * (steps + 0.5) / nodes
        found = _integrals(function, q1, q2, angles.cos())
        # The discrete cosine transform: f(angle) = sum of c_m cos(m angle).
        coefficients = 2 / nodes * torch.cos(steps[:, None] * angles) @ found
        coefficients[0] /= 2
        tail = coefficients[-nodes // 8 :].abs().max()
        if tail <= TOLERANCE * coefficients.abs().max() or nodes >= MOST_NODES:
            return _clenshaw(coefficients, cosines)
        nodes *= 2


def _integrals(function: Function, q1: float, q2: float, cosines: Tensor) -> Tensor:
    nodes, weights = _nodes(max(q1, q2), cosines)
    first = math.sqrt(q1) * nodes
    left = weights * function(first)
    values = []
    for cosine in cosines:
        sine = (1 - cosine.square()).clamp(min=0).sqrt()
        second = math.sqrt(q2) * (cosine * nodes[:, None] + sine * nodes)
        values.append(left @ (function(second) @ weights))
    return torch.stack(values)


# Sums of c_m T_m(x), Chebyshev's polynomials, without forming them.
def _clenshaw(coefficients: Tensor, x: Tensor) -> Tensor:
    after, later = torch.zeros_like(x), torch.zeros_like(x)
    for c in reversed(coefficients[1:].tolist()):
        after, later = 2 * x * after - later + c, after
    return x * after - later + coefficients[0]
