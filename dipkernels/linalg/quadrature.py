"""Gauss and Gauss-Radau quadrature from a Lanczos tridiagonal (Golub & Meurant 2010)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.linalg

from dipkernels.base.checks import checked

Array = np.ndarray


@checked(nan=True)
@dataclass(frozen=True)
class Quadrature:
    """A rule ``v^T f(A) v = sum_j weights_j f(nodes_j)``.

    Attributes
    ----------
    nodes, weights : ndarray, shape (m,)
        Where f is evaluated; non-negative, summing to ``|v|^2``.
    """

    nodes: Array
    weights: Array

    def __call__(self, function: Callable[[Array], Array]) -> Array:
        """Evaluate the quadratic forms of functions, from nodes ``(m,)`` to ``(..., m)``."""
        return np.asarray(function(self.nodes) @ self.weights)


EMPTY = Quadrature(np.empty(0), np.empty(0))


def gauss(alpha: Array, beta: Array, norm: float) -> Quadrature:
    """Gauss rule of a Lanczos run; the last beta is the coupling to the vector after it."""
    # Nodes that rounding made negative are set to 0: operators here are positive semi-definite.
    nodes, vectors = scipy.linalg.eigh_tridiagonal(alpha, beta[:-1])
    return Quadrature(np.maximum(nodes, 0.0), norm**2 * vectors[0] ** 2)


def gauss_radau(alpha: Array, beta: Array, norm: float) -> Quadrature:
    """Gauss-Radau rule of a Lanczos run, with one node fixed at 0, at or below the spectrum."""
    m = len(alpha)
    smallest = scipy.linalg.eigh_tridiagonal(alpha, beta[:-1], eigvals_only=True)[0]
    # Rounding can push the smallest Ritz value to or below 0; the fixed node must stay below it.
    scale = np.abs(alpha).max() + np.abs(beta).max()
    fixed = min(0.0, smallest - 1e-14 * scale)
    bands = np.zeros((3, m))
    bands[1] = alpha - fixed
    bands[0, 1:] = bands[2, :-1] = beta[:-1]
    right = np.zeros(m)
    right[-1] = beta[-1] ** 2
    last = fixed + scipy.linalg.solve_banded((1, 1), bands, right)[-1]
    nodes, vectors = scipy.linalg.eigh_tridiagonal(np.append(alpha, last), beta)
    return Quadrature(np.maximum(nodes, 0.0), norm**2 * vectors[0] ** 2)
