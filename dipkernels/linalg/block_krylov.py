"""A block Krylov space of bounded size, restarted on its best part (thick restart)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dipkernels.errors import DivergenceError, OutputError
from dipkernels.linalg.accuracy import Symmetry, symmetry_of_projection
from dipkernels.linalg.operator import ANOTHER, SymmetricOperator

_BREAKDOWN = 1e-13  # size of a residual, relative to the operator's, that is rounding in float64
_COLUMNS = 2**14  # of the basis are rotated at a time


class BlockKrylov:
    """Rows ``V`` and a small matrix ``H`` with ``A V_p^T = V^T H``, grown by blocks of products.

    ``V_p`` are the first p rows, those that have been multiplied; the rows after them are the
    block that comes next. All of V is orthonormal: every new row is orthogonalised three times
    against all before it, in float64. Since H records all that was subtracted, the residual of a
    Ritz pair ``(x, V_p^T y)`` is ``|H y - x y|``, without the products being kept. When V is full,
    it is replaced by its leading Ritz vectors and the block that comes next (Wu & Simon 2000).

    Memory: ``capacity * n`` numbers of 8 bytes and 16 thousand columns of that once more.
    """

    def __init__(
        self, operator: SymmetricOperator, starts: Tensor, capacity: int, keep: int
    ) -> None:
        self._operator = operator
        self.dtype, self.device = operator.dtype, operator.device
        n = operator.shape[0]
        self._keep = keep
        self._rows = torch.empty(capacity, n, dtype=torch.float64, device=operator.device)
        self._small = torch.zeros(capacity, capacity, dtype=torch.float64)
        self._done = 0
        self._filled = 0
        self.matvecs = self.steps = 0
        self._scale = 0.0  # largest |A q| so far
        for start in starts.T.to(operator.device, torch.float64):
            self._append(start / start.norm(), 0.0)

    @property
    def width(self) -> int:
        """Products of the next step; 0 if the space is invariant."""
        return self._filled - self._done

    def step(self) -> None:
        """Multiply the block that comes next, and find the one after it."""
        if self._filled + self.width > len(self._rows):
            self._restart()
        first, width = self._done, self.width
        block = self._rows[first : self._filled].T
        images = (self._operator @ block.to(self._operator.dtype)).double().T
        if not images.norm().isfinite():
            raise DivergenceError("a product with the operator is NaN or infinite, or its norm")
        self._scale = max(self._scale, float(images.norm(dim=1).max()))
        basis = self._rows[: self._filled]
        coefficients = images @ basis.T
        self._small[: self._filled, first : self._filled] = coefficients.T.cpu()
        residuals = images - coefficients @ basis
        self._done = self._filled
        for i, residual in enumerate(residuals):
            self._small[:, first + i] += self._append(residual, _BREAKDOWN * self._scale)
        self.matvecs += width
        self.steps += 1

    def ritz(self, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Leading Ritz pairs, in the coordinates of the space."""
        small = self._small[: self._filled, : self._done]
        square = small[: self._done]
        values, vectors = torch.linalg.eigh((square + square.T) / 2)
        values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
        mapped = small @ vectors
        mapped[: self._done] -= vectors * values
        return values, vectors, mapped.norm(dim=0)

    def combine(self, coefficients: Tensor) -> Tensor:
        """Form vectors from their coefficients."""
        weights = coefficients.T.to(self._rows.device)
        vectors = self._rows.new_empty(weights.shape[0], self._rows.shape[1])
        for columns in self._columns():
            vectors[:, columns] = weights @ self._rows[: self._done, columns]
        return vectors.T

    def symmetry(self) -> Symmetry:
        """Say what all products so far have shown of the operator."""
        square = self._small[: self._done, : self._done]
        return symmetry_of_projection(square, self._scale, self.matvecs)

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        return {
            "rows": self._rows[: self._filled],
            "small": self._small[: self._filled, : self._done],
            "products": self.matvecs,
            "steps": self.steps,
            "scale": self._scale,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a state, after a look at whether it is of this operator."""
        rows, small = state["rows"], state["small"]
        self._filled, self._done = small.shape
        if self._filled > len(self._rows):  # more products had been allowed there
            self._rows = self._rows.new_empty(self._filled, self._rows.shape[1])
            self._small = self._small.new_empty(self._filled, self._filled)
        self._rows[: self._filled] = rows.to(self._rows.device)
        self._small.zero_()
        self._small[: self._filled, : self._done] = small
        self.matvecs, self.steps, self._scale = state["products"], state["steps"], state["scale"]
        if self._done:
            image = (self._operator @ self._rows[0].to(self._operator.dtype)).double()
            before = small[:, 0].to(image.device) @ self._rows[: self._filled]
            tolerance = torch.finfo(self._operator.dtype).eps ** 0.5
            if float((image - before).norm()) > tolerance * self._scale:
                raise OutputError(ANOTHER)

    # Orthogonalise against all rows and append what is left, unless it's rounding. Returns its
    # coefficients in the rows.
    def _append(self, vector: Tensor, least: float) -> Tensor:
        coefficients = torch.zeros(len(self._small), dtype=torch.float64)
        basis = self._rows[: self._filled]
        for _ in range(2):
            subtracted = basis @ vector
            vector = vector - subtracted @ basis
            coefficients[: self._filled] += subtracted.cpu()
        length = float(vector.norm())
        if length > least and self._filled < self._rows.shape[1]:
            self._rows[self._filled] = vector / length
            coefficients[self._filled] = length
            self._filled += 1
        return coefficients

    def _columns(self) -> Iterator[slice]:
        for start in range(0, self._rows.shape[1], _COLUMNS):
            yield slice(start, start + _COLUMNS)

    def _restart(self) -> None:
        width, done = self.width, self._done
        _, vectors, _ = self.ritz(min(self._keep, done))
        kept = vectors.shape[1]
        weights = vectors.T.to(self._rows.device)
        for columns in self._columns():
            self._rows[:kept, columns] = weights @ self._rows[:done, columns]
        self._rows[kept : kept + width] = self._rows[done : done + width].clone()
        square = vectors.T @ self._small[:done, :done] @ vectors
        coupling = self._small[done : done + width, :done] @ vectors
        self._small.zero_()
        self._small[:kept, :kept] = square
        self._small[kept : kept + width, :kept] = coupling
        self._done, self._filled = kept, kept + width
