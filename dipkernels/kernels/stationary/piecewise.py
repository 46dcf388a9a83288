"""Duals of continuous piecewise linear functions, by integrals over an angle.

``f(x) = c + a x + sum_j w_j max(x - t_j, 0)``. By Price's theorem the second derivative of
``E f(x) f(y)`` by the covariance is that of the kinks, a sum of densities at ``(t_j, t_i)``; as
functions of the angle whose sine is the correlation these are smooth, and Gauss-Legendre
quadrature integrates them from 0, where x and y are independent.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

NODES = 64
TINY = 1e-150  # in place of a standard deviation of 0


@dataclass(frozen=True)
class PiecewiseLinear:
    """A continuous function with finitely many kinks, and its Gaussian expectations.

    Left of all kinks it is ``constant + slope * x``; a kink is a place and the slope's growth.
    """

    constant: float
    slope: float
    kinks: tuple[tuple[float, float], ...]

    def __call__(self, x: Tensor) -> Tensor:
        """Evaluate it."""
        total = self.constant + self.slope * x
        for at, change in self.kinks:
            total = total + change * (x - at).clamp(min=0)
        return total

    def mean(self, q: Tensor) -> Tensor:
        """``E f(x)``."""
        root = q.sqrt().clamp(min=TINY)
        total = torch.full_like(q, self.constant)
        for at, change in self.kinks:
            z = at / root
            total = total + change * (root * _density(z) - at * torch.special.ndtr(-z))
        return total

    def mean_slope(self, q: Tensor) -> Tensor:
        """``E f'(x)``."""
        root = q.sqrt().clamp(min=TINY)
        total = torch.full_like(q, self.slope)
        for at, change in self.kinks:
            total = total + change * torch.special.ndtr(-at / root)
        return total

    def covariance(self, q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        """``E f(x) f(y)``."""
        q1, q2, k = torch.broadcast_tensors(q1, q2, k)
        independent = self.mean(q1) * self.mean(q2) + k * self.mean_slope(q1) * self.mean_slope(q2)
        return independent + self._from_independence(q1, q2, k, moment=True)

    def derivative(self, q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        """``E f'(x) f'(y)``."""
        q1, q2, k = torch.broadcast_tensors(q1, q2, k)
        independent = self.mean_slope(q1) * self.mean_slope(q2)
        return independent + self._from_independence(q1, q2, k, moment=False)

    def scale(self, q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        """``E x f'(x) y f'(y)``, by Stein's identity twice."""
        q1, q2, k = torch.broadcast_tensors(q1, q2, k)
        total = k * self.derivative(q1, q2, k)
        for at, change in self.kinks:
            root = q1.sqrt().clamp(min=TINY)
            density = _density(at / root) / root
            mean, spread = self._given(q1, q2, k, at)
            # E y f'(y) of what is left of y
            other = mean * self._slope_of(mean, spread)
            for there, growth in self.kinks:
                other = other + growth * spread * _density((there - mean) / spread)
            total = total + q1 * change * density * other
            root = q2.sqrt().clamp(min=TINY)
            density = _density(at / root) / root
            mean, spread = self._given(q2, q1, k, at)
            total = total + k * at * change * density * self._slope_of(mean, spread)
        return total

    # Mean and deviation of the second variable where the first is known.
    def _given(self, q1: Tensor, q2: Tensor, k: Tensor, at: float) -> tuple[Tensor, Tensor]:
        ratio = k / q1.clamp(min=TINY)
        return ratio * at, (q2 - k * ratio).clamp(min=0).sqrt().clamp(min=TINY)

    def _slope_of(self, mean: Tensor, spread: Tensor) -> Tensor:
        total = torch.full_like(mean, self.slope)
        for at, change in self.kinks:
            total = total + change * torch.special.ndtr((mean - at) / spread)
        return total

    # The integral from 0 to k of the kinks' densities d(t), or of (k - t) d(t).
    def _from_independence(self, q1: Tensor, q2: Tensor, k: Tensor, *, moment: bool) -> Tensor:
        scale = (q1 * q2).clamp(min=0).sqrt()
        safe = scale.clamp(min=TINY)
        angle = torch.arcsin((k / safe).clamp(-1, 1))
        one, two = q1.sqrt().clamp(min=TINY), q2.sqrt().clamp(min=TINY)
        total = torch.zeros_like(k)
        for node, weight in zip(*_nodes(), strict=True):
            at = angle * node
            sine, cosine = at.sin(), at.cos().square().clamp(min=TINY)
            part = torch.zeros_like(k)
            for here, growth in self.kinks:
                for there, change in self.kinks:
                    a, b = here / one, there / two
                    # (a - b)^2 + 2 a b (1 - sin) over 2 cos^2, without cancellation
                    exponent = (a - b).square() / (2 * cosine) + a * b / (1 + sine).clamp(min=TINY)
                    part = part + growth * change * torch.exp(-exponent)
            part = part * (scale * (angle.sin() - sine)) if moment else part
            total = total + weight * part
        return total * angle / (2 * math.pi)


def clamped(low: float, high: float) -> PiecewiseLinear:
    """Make the identity between two values, and constant outside."""
    return PiecewiseLinear(low, 0.0, ((low, 1.0), (high, -1.0)))


def _density(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


@functools.cache
def _nodes() -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
