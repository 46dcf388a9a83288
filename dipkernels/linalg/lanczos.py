"""Lanczos with full reorthogonalisation, for several start vectors at once, extendable."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.linalg.accuracy import Symmetry, symmetry_of
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.linalg.quadrature import EMPTY, Quadrature, gauss, gauss_radau

UNSEEN = Symmetry(0.0, 0.0, 0)
_BREAKDOWN = 1e-13  # size of a residual, relative to the operator's, that is rounding in float64


@checked(nan=True)
@dataclass(frozen=True, eq=False)
class KrylovSpace:
    """What Lanczos knows about ``A`` from one start vector ``v``.

    Attributes
    ----------
    alpha, beta : ndarray, shape (m,)
        The tridiagonal ``T``; the last ``beta`` couples to the vector that comes next, and is 0
        if the space is invariant (all quadratures are then exact).
    norm : float
        ``|v|``.
    basis : Tensor, float64, shape (m, n)
        Orthonormal rows ``Q``; the first is ``v / |v|``.
    products : Tensor, float64, shape (m, n) or (0, n)
        ``A Q``, row by row, before any projection; empty if they weren't kept.
    symmetry : Symmetry
        How far the operator was from symmetric and positive, as far as the steps could see.
    """

    alpha: np.ndarray
    beta: np.ndarray
    norm: float
    basis: Float[Tensor, "m n"]
    products: Float[Tensor, "kept n"]
    symmetry: Symmetry = UNSEEN

    def gauss(self) -> Quadrature:
        """Gauss rule of ``v``, exact for polynomials of degree below 2m.

        Returns
        -------
        Quadrature
            With m nodes: a lower bound where even derivatives are positive, as of ``exp(-t x)``.
        """
        if not len(self.alpha):
            return EMPTY
        return gauss(self.alpha, self.beta, self.norm)

    def gauss_radau(self) -> Quadrature:
        """Gauss-Radau rule of ``v`` with a node at 0, exact for degrees up to 2m.

        Returns
        -------
        Quadrature
            With m + 1 nodes: an upper bound where odd derivatives are negative, as of
            ``exp(-t x)``.
        """
        if not len(self.alpha) or self.beta[-1] == 0.0:
            return self.gauss()
        return gauss_radau(self.alpha, self.beta, self.norm)

    def ritz(self, steps: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Eigendecompose the tridiagonal.

        Parameters
        ----------
        steps : int, optional
            Of the first steps only; by default of all m.

        Returns
        -------
        values, vectors : ndarray, shapes (m,) and (m, m)
            Ritz values, ascending, negative rounding set to 0; coefficients in the basis, one a
            column.

        Raises
        ------
        InvalidInputError
            If there aren't as many steps.
        """
        m = len(self.alpha) if steps is None else steps
        if not 1 <= m <= len(self.alpha):
            raise InvalidInputError(f"steps must be from 1 to {len(self.alpha)}, got {steps}")
        tridiagonal = np.diag(self.alpha[:m]) + np.diag(self.beta[: max(m - 1, 0)], 1)
        values, vectors = np.linalg.eigh(tridiagonal, UPLO="U")
        return np.maximum(values, 0.0), vectors


@checked
class Lanczos:
    """Lanczos recurrences of several start vectors, sharing block products with the operator.

    All small-side arithmetic is in float64 and every new vector is orthogonalised twice against
    all before it, so that the quadrature bounds hold as in exact arithmetic. With a float32
    operator the tridiagonal is that of a matrix about 1e-6 ``|A|`` away.

    Parameters
    ----------
    operator : SymmetricOperator
        ``A``, positive semi-definite.
    starts : Tensor, shape (n, k)
        Start vectors, one a column; none may be 0.
    keep_products : bool
        Whether to keep ``A Q``, half of the memory: `ritz_pairs` needs it, quadrature doesn't.

    Raises
    ------
    InvalidInputError
        If the starts don't fit the operator, or one is 0 or not finite.

    Notes
    -----
    Memory: ``2 k m n`` numbers of 8 bytes for m steps, or half of that without the products, taken
    when `extend` is called. Cost of step j: k products and ``8 k j n`` operations.
    """

    @checked
    def __init__(
        self,
        operator: SymmetricOperator,
        starts: Float[Tensor, "n k"],
        *,
        keep_products: bool = True,
    ) -> None:
        n = operator.shape[0]
        if starts.dim() != 2 or starts.shape[0] != n:
            raise InvalidInputError(f"starts must have shape ({n}, k), got {tuple(starts.shape)}")
        self._operator = operator
        rows = starts.to(operator.device, torch.float64).T
        norms = rows.norm(dim=1)
        if not (norms.isfinite().all() and (norms > 0).all()):
            raise InvalidInputError(
                "a start vector of Lanczos is zero or not finite: nothing to expand"
            )
        self._runs = [_Run(row, keep_products=keep_products) for row in rows]

    def extend(self, steps: int, *, progress: Progress | None = None) -> "Lanczos":
        """Run more steps.

        Parameters
        ----------
        steps : int
            How many; a run whose space has become invariant stops by itself.
        progress : Progress, optional
            Advanced by one a step.

        Returns
        -------
        Lanczos
            Itself.

        Raises
        ------
        DivergenceError
            If a product isn't finite.
        """
        self._reserve(steps)
        for _ in range(steps):
            active = [(run, run.next) for run in self._runs if run.next is not None]
            if active:
                block = torch.stack([vector for _, vector in active], dim=1)
                images = (self._operator @ block.to(self._operator.dtype)).double().T
                if not images.norm().isfinite():
                    raise DivergenceError(
                        "a product with the operator is NaN or infinite, or its norm"
                    )
                for (run, vector), image in zip(active, images, strict=True):
                    run.advance(vector, image)
            if progress is not None:
                progress.advance()
        return self

    # The memory that more steps will need, for which `extend` else asks at every call.
    def _reserve(self, steps: int) -> None:
        for run in self._runs:
            run.reserve(steps)

    def spaces(self) -> list[KrylovSpace]:
        """Hand out what is known so far.

        Returns
        -------
        list of KrylovSpace
            One per start vector, in their order.
        """
        return [run.space() for run in self._runs]

    @property
    def matvecs(self) -> int:
        """Products with the operator so far."""
        return sum(len(run.alpha) for run in self._runs)

    # All that `_load` needs to continue bit by bit; bases are not copied.
    def _state(self) -> dict[str, Any]:
        return {"runs": [run.state() for run in self._runs]}

    def _load(self, state: dict[str, Any]) -> None:
        for run, content in zip(self._runs, state["runs"], strict=True):
            run.load(content)


class _Run:
    """The state of one recurrence."""

    def __init__(self, start: Tensor, *, keep_products: bool) -> None:
        self.norm = float(start.norm())
        self.next: Tensor | None = start / self.norm
        self.alpha: list[float] = []
        self.beta: list[float] = []
        self._size = len(start)
        self._scale = 0.0  # largest |A q| so far, which comes near |A| within a few steps
        self._basis = start.new_empty(0, start.shape[0])
        self._products = torch.empty_like(self._basis)
        self._kept = ("_basis", "_products") if keep_products else ("_basis",)
        self._asymmetry = 0.0  # of the projected operator, absolute

    def reserve(self, steps: int) -> None:
        m, capacity = len(self.alpha), self._basis.shape[0]
        wanted = m if self.next is None else min(m + steps, self._size)
        if wanted > capacity:
            # by a half at least, so that many small extensions copy little
            rows = max(wanted, min(capacity * 3 // 2, self._size))
            for name in self._kept:
                old: Tensor = getattr(self, name)
                grown = old.new_empty(rows, old.shape[1])
                grown[:m] = old[:m]
                setattr(self, name, grown)

    def advance(self, vector: Tensor, image: Tensor) -> None:
        m = len(self.alpha)
        self._basis[m] = vector
        if "_products" in self._kept:
            self._products[m] = image
        basis = self._basis[: m + 1]
        residual = image
        numbers = [vector @ image, image.norm()]
        for repeat in range(2):
            coefficients = basis @ residual
            if not repeat and m > 1:  # what a symmetric operator would have made 0
                numbers.append(coefficients[: m - 1].abs().max())
            residual = residual - basis.T @ coefficients
        numbers.append(residual.norm())
        # Fetched together: the host waits once.
        alpha, size, *asymmetry, length = torch.stack(numbers).cpu().tolist()
        self.alpha.append(alpha)
        self._scale = max(self._scale, size)
        self._asymmetry = max(self._asymmetry, *asymmetry, 0.0)
        invariant = length <= _BREAKDOWN * self._scale or m + 1 == self._size
        self.beta.append(0.0 if invariant else length)
        self.next = None if invariant else residual / length

    def space(self) -> KrylovSpace:
        m = len(self.alpha)
        alpha, beta = np.array(self.alpha), np.array(self.beta)
        symmetry = self._symmetry(alpha, beta) if m else UNSEEN
        kept = self._basis[:m], self._products[:m]
        return KrylovSpace(alpha, beta, self.norm, *kept, symmetry)

    def state(self) -> dict[str, Any]:
        m = len(self.alpha)
        return {
            "alpha": self.alpha,
            "beta": self.beta,
            "next": self.next,
            "scale": self._scale,
            "asymmetry": self._asymmetry,
            **{name: getattr(self, name)[:m] for name in self._kept},
        }

    def load(self, state: dict[str, Any]) -> None:
        self.alpha, self.beta = list(state["alpha"]), list(state["beta"])
        self._scale, self._asymmetry = state["scale"], state["asymmetry"]
        device = self._basis.device
        self.next = None if state["next"] is None else state["next"].to(device)
        for name in self._kept:
            setattr(self, name, state[name].to(device))

    def _symmetry(self, alpha: np.ndarray, beta: np.ndarray) -> Symmetry:
        least = scipy.linalg.eigh_tridiagonal(
            alpha, beta[:-1], eigvals_only=True, select="i", select_range=(0, 0)
        )[0]
        return symmetry_of(self._asymmetry, float(least), self._scale, len(alpha))
