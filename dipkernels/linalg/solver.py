"""Conjugate gradients, preconditioned, for several right-hand sides at once."""

import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count, Share
from dipkernels.errors import AccuracyWarning, InvalidInputError, NotSymmetricError
from dipkernels.linalg.linear import LinearOperator
from dipkernels.linalg.operator import SymmetricOperator

Product = Callable[[Tensor], Tensor] | LinearOperator
_Rows = Callable[[Tensor], Tensor]

DELAY = 5  # iterations by which the estimate of the error lags behind
_SLOWEST = 0.999  # rate of convergence that is reckoned with, in steps of DELAY
_ROUNDING = 1e-15  # of a right-hand side: residuals below it can't be trusted


@checked(nan=True)
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
        before the end; up to 2 times too low on ill-conditioned systems.
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
        found = f"{state} in {self.iterations} iterations, error {worst:.1e}, residual {left:.1e}"
        return f"Solution({found})"


@checked
def conjugate_gradients(
    product: Product,
    right: Float[Tensor, "k n"],
    *,
    preconditioner: Product | None = None,
    tolerance: Share = 1e-8,
    max_iterations: Count = 1000,
) -> Solution:
    """Solve ``A x = b`` for a symmetric positive definite ``A`` that is known by its products.

    Parameters
    ----------
    product : SymmetricOperator or callable
        ``A``; or a function of ``(j, n)`` that gives ``A`` times each row, for any j.
    right : Tensor, shape (k, n)
        Right-hand sides, one a row.
    preconditioner : SymmetricOperator or callable, optional
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
        If an operator isn't symmetric.
    NotSymmetricError
        If ``A`` or the preconditioner turn out not to be positive definite.

    Notes
    -----
    Rows go on independently and leave the block when they're solved. Time: a product and a
    preconditioner's product an iteration; memory: four vectors a row. Iterations: at most about
    ``sqrt(c) log(2 / tolerance) / 2``, with c the condition number of the preconditioned matrix.
    Sources: Hestenes & Stiefel 1952; for the error, Strakos & Tichy 2002.

    Examples
    --------
    >>> from dipkernels.linalg import DiagonalOperator
    >>> found = conjugate_gradients(DiagonalOperator(torch.tensor([1.0, 2.0])), torch.ones(1, 2))
    >>> found.x, found.converged
    (tensor([[1.0000, 0.5000]]), True)
    """
    product = _by_rows(product)
    precondition = torch.clone if preconditioner is None else _by_rows(preconditioner)
    x = torch.zeros_like(right)
    error = right.new_zeros(len(right))
    scale = right.norm(dim=1)
    state = _State(right, scale)
    iterations = 0
    while len(state.rows) and iterations < max_iterations:
        state.step(product, precondition)
        iterations += 1
        estimate, unsolved = state.judge(tolerance)
        if not bool(unsolved.all()) or iterations == max_iterations:
            x[state.rows], error[state.rows] = state.x, estimate
            state.keep(unsolved)
    residual = _relative_residual(product, right, x, scale)
    solution = Solution(x, iterations, error, residual, not len(state.rows))
    if not solution.converged:
        warnings.warn(
            f"{solution}, tolerance {tolerance:g}: allow more iterations, ask for less, or use "
            "another preconditioner",
            AccuracyWarning,
            stacklevel=2,
        )
    return solution


class _State:
    """The rows that aren't solved yet."""

    def __init__(self, right: Tensor, scale: Tensor) -> None:
        self.rows = (scale > 0).nonzero()[:, 0]
        self.residual = right[self.rows]
        self.x = torch.zeros_like(self.residual)
        self.rho = self.scale = scale[self.rows]
        self.energy = torch.zeros_like(self.scale)
        # What each of the last steps took off the squared error, the newest first.
        self.taken = deque([self.energy] * (2 * DELAY), maxlen=2 * DELAY)
        self.direction: Tensor | None = None

    def step(self, product: _Rows, precondition: _Rows) -> None:
        z = precondition(self.residual)
        rho = _positive((self.residual * z).sum(dim=1), "the preconditioner")
        if self.direction is not None:
            z = torch.addcmul(z, (rho / self.rho)[:, None], self.direction)
        self.direction, self.rho = z, rho
        image = product(z)
        length = rho / _positive((z * image).sum(dim=1), "the matrix")
        self.x = torch.addcmul(self.x, length[:, None], z)
        self.residual = torch.addcmul(self.residual, length[:, None], image, value=-1)
        self.taken.appendleft(length * rho)
        self.energy = self.energy + self.taken[0]

    # The squared error of DELAY steps ago is the sum of a geometric series with two known terms.
    def judge(self, tolerance: float) -> tuple[Tensor, Tensor]:
        last, before = torch.stack(list(self.taken)).unflatten(0, (2, DELAY)).sum(dim=1)
        rate = (last / before.clamp(min=1e-300)).clamp(max=_SLOWEST)
        estimate = (last / (1 - rate) / self.energy).sqrt().clamp(max=1)
        left = self.residual.norm(dim=1) / self.scale
        rounding = left <= _ROUNDING
        estimate = torch.where(rounding, torch.minimum(estimate, left), estimate)
        return estimate, (estimate > tolerance) & ~rounding

    def keep(self, which: Tensor) -> None:
        for name in ("rows", "x", "residual", "direction", "rho", "scale", "energy"):
            setattr(self, name, getattr(self, name)[which])
        self.taken = deque([each[which] for each in self.taken], maxlen=2 * DELAY)


def _by_rows(product: Product) -> _Rows:
    if not isinstance(product, LinearOperator):
        return product
    if not isinstance(product, SymmetricOperator):
        raise InvalidInputError(f"conjugate gradients take symmetric operators, got {product!r}")
    operator = product
    return lambda rows: (operator @ rows.T).T


def _relative_residual(product: _Rows, right: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    absolute = (right - product(x)).norm(dim=1)
    return torch.where(scale > 0, absolute / scale.clamp(min=1e-300), absolute)


def _positive(forms: Tensor, what: str) -> Tensor:
    if not bool((forms > 0).all()):
        raise NotSymmetricError(
            f"conjugate gradients: {what} is not positive definite, or a number isn't finite "
            f"(a quadratic form is {float(forms.min()):.2e})"
        )
    return forms
