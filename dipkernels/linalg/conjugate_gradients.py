"""Conjugate gradients, preconditioned, for several right-hand sides at once."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.errors import AccuracyWarning, InvalidInputError, NotSymmetricError

Product = Callable[[Tensor], Tensor]


DELAY = 5  # iterations by which the estimate of the error lags behind
_SLOWEST = 0.999  # rate of convergence that is reckoned with, in steps of DELAY
_ROUNDING = 1e-15  # of a right-hand side: residuals below it can't be trusted


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients found.

    Attributes
    ----------
    x : Tensor, shape (k, n)
        One solution a row.
    iterations : int
        Products, each with as many rows as were not yet solved.
    error : Tensor, shape (k,)
        Estimate of ``|x - x*|_A / |x*|_A``, with ``|v|_A^2 = v^T A v``, as it was 5 iterations
        before the end: what these have taken off, and what is left if convergence goes on at the
        rate of the last 10: an extrapolation, up to 2 times too low on ill-conditioned systems.
    residual : Tensor, shape (k,)
        ``|b - A x| / |b|``, computed anew from the solution; 0 for a right-hand side of zeros.
    converged : bool
        Whether the error of all is within the tolerance, or their residual is rounding.
    """

    x: Float[Tensor, "k n"]
    iterations: int
    error: Float[Tensor, " k"]
    residual: Float[Tensor, " k"]
    converged: bool

    def __repr__(self) -> str:
        worst, left = float(self.error.max()), float(self.residual.max())
        state = "converged" if self.converged else "NOT converged"
        return (
            f"Solution({state} in {self.iterations} iterations, error {worst:.1e}, residual "
            f"{left:.1e})"
        )


def conjugate_gradients(
    product: Product,
    right: Float[Tensor, "k n"],
    *,
    preconditioner: Product | None = None,
    tolerance: float = 1e-8,
    max_iterations: int = 1000,
) -> Solution:
    """Solve ``A x = b`` for a symmetric positive definite ``A`` that is known by its products.

    Parameters
    ----------
    product : callable
        ``(j, n)`` to ``A`` times each row, for any j.
    right : Tensor, shape (k, n)
        Right-hand sides, one a row.
    preconditioner : callable, optional
        Likewise, an approximate inverse of ``A``, symmetric positive definite.
    tolerance : float
        Of the relative error in the norm of ``A``, which conjugate gradients minimise. Unlike the
        residual it doesn't depend on how the system is scaled or preconditioned.
    max_iterations : int
        After so many it stops; `AccuracyWarning` is given if a row isn't solved by then.

    Returns
    -------
    Solution
        With its error and what is left of the residual.

    Raises
    ------
    InvalidInputError
        If the tolerance isn't between 0 and 1, or no iteration is allowed.
    NotSymmetricError
        If ``A`` or the preconditioner turn out not to be positive definite.

    Notes
    -----
    Rows go on independently and leave the block when they're solved. Time: a product and a
    preconditioner's product an iteration; memory: four vectors a row. Iterations: at most about
    ``sqrt(c) log(2 / tolerance) / 2``, with c the condition number of the preconditioned matrix.
    Sources: Hestenes & Stiefel 1952; for the error, Strakos & Tichy 2002.
    """
    if not 0 < tolerance < 1 or max_iterations < 1:
        raise InvalidInputError(
            f"expected a tolerance in (0, 1) and at least 1 iteration, got {tolerance}, "
            f"{max_iterations}"
        )
    precondition = preconditioner or torch.clone
    x = torch.zeros_like(right)
    error = right.new_zeros(len(right))
    scale = right.norm(dim=1)
    active = scale > 0
    residual, direction, old = right[active], right[active], scale[active]
    # What each step takes off the squared error: all of it, and by the last steps.
    energy, recent = torch.zeros_like(old), old.new_zeros(2 * DELAY, len(old))
    iterations = 0
    while bool(active.any()) and iterations < max_iterations:
        z = precondition(residual)
        rho = _positive((residual * z).sum(dim=1), "the preconditioner")
        direction = z + (rho / old)[:, None] * direction if iterations else z
        image = product(direction)
        step = rho / _positive((direction * image).sum(dim=1), "the matrix")
        x[active] += step[:, None] * direction
        residual = residual - step[:, None] * image
        recent = recent.roll(1, 0)
        recent[0] = step * rho
        energy = energy + recent[0]
        iterations += 1
        relative = (_remaining(recent) / energy).sqrt()
        error[active] = relative.clamp(max=1)
        unsolved = (relative > tolerance) & (residual.norm(dim=1) > _ROUNDING * scale[active])
        active[active.clone()] = unsolved
        residual, direction, old = residual[unsolved], direction[unsolved], rho[unsolved]
        energy, recent = energy[unsolved], recent[:, unsolved]
    solution = Solution(
        x, iterations, error, _relative_residual(product, right, x, scale), not bool(active.any())
    )
    if not solution.converged:
        warnings.warn(
            f"{solution}, tolerance {tolerance:g}: allow more iterations, ask for less, or use "
            "another preconditioner",
            AccuracyWarning,
            stacklevel=2,
        )
    return solution


# The squared error of DELAY steps ago: the sum of a geometric series of which two terms are known.
def _remaining(recent: Tensor) -> Tensor:
    last, before = recent[:DELAY].sum(dim=0), recent[DELAY:].sum(dim=0)
    rate = last / before.clamp(min=1e-300)
    return last / (1 - rate.clamp(max=_SLOWEST))


def _relative_residual(product: Product, right: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    absolute = (right - product(x)).norm(dim=1)
    return torch.where(scale > 0, absolute / scale.clamp(min=1e-300), absolute)


def _positive(forms: Tensor, what: str) -> Tensor:
    if not bool((forms > 0).all()):
        raise NotSymmetricError(
            f"conjugate gradients: {what} is not positive definite, or a number isn't finite "
            f"(a quadratic form is {float(forms.min()):.2e})"
        )
    return forms
