"""Conjugate gradients, preconditioned, for several right-hand sides at once."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.errors import AccuracyWarning, InvalidInputError, NotSymmetricError

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients found.

    Attributes
    ----------
    x : Tensor, shape (k, n)
        One solution a row.
    iterations : int
        Products, each with as many rows as were not yet solved.
    residual : Tensor, shape (k,)
        ``|b - A x| / |b|``, computed anew from the solution; 0 for a right-hand side of zeros.
    converged : bool
        Whether all are within the tolerance asked for, up to rounding.
    """

    x: Float[Tensor, "k n"]
    iterations: int
    residual: Float[Tensor, " k"]
    converged: bool

    def __repr__(self) -> str:
        worst = float(self.residual.max())
        state = "converged" if self.converged else "NOT converged"
        return f"Solution({state} in {self.iterations} iterations, residual {worst:.1e})"


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
        A row is solved when the norm of its residual is at most this fraction of the row's.
    max_iterations : int
        After so many it stops; `AccuracyWarning` is given if a row isn't solved by then.

    Returns
    -------
    Solution
        With what is left of the residual.

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
    Source: Hestenes & Stiefel 1952.
    """
    if not 0 < tolerance < 1 or max_iterations < 1:
        raise InvalidInputError(
            f"expected a tolerance in (0, 1) and at least 1 iteration, got {tolerance}, "
            f"{max_iterations}"
        )
    precondition = preconditioner or torch.clone
    x = torch.zeros_like(right)
    scale = right.norm(dim=1)
    active = scale > 0
    residual, direction, old = right[active], right[active], scale[active]
    iterations = 0
    while bool(active.any()) and iterations < max_iterations:
        z = precondition(residual)
        rho = _positive((residual * z).sum(dim=1), "the preconditioner")
        direction = z + (rho / old)[:, None] * direction if iterations else z
        image = product(direction)
        step = (rho / _positive((direction * image).sum(dim=1), "the matrix"))[:, None]
        x[active] += step * direction
        residual = residual - step * image
        iterations += 1
        left = residual.norm(dim=1) > tolerance * scale[active]
        active[active.clone()] = left
        residual, direction, old = residual[left], direction[left], rho[left]
    relative = _relative_residual(product, right, x, scale)
    # The recurrence's residual drifts from the true one by rounding.
    converged = not bool(active.any()) and float(relative.max()) <= 10 * tolerance
    solution = Solution(x, iterations, relative, converged)
    if not converged:
        warnings.warn(
            f"{solution}, tolerance {tolerance:g}: allow more iterations, ask for less, or use "
            "another preconditioner",
            AccuracyWarning,
            stacklevel=2,
        )
    return solution


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
