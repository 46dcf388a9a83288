"""Block Golub-Kahan bidiagonalisation of a factor ``B`` of ``A = B B^T``, extendable."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.progress import Progress
from dipkernels.errors import DivergenceError
from dipkernels.linalg.quadrature import Quadrature

_BREAKDOWN = 1e-13  # size of a residual, relative to the factor's, that is rounding in float64
# Of a network's Jacobian: of its largest singular value, and of each; about twice what differs
# between float32 and float64 on the registered priors.
ROUNDINGS, RELATIVE = 4, 4096
_COLUMNS = 2**20  # of parameters are summed in float64 at a time


@runtime_checkable
class Factor(Protocol):
    """A linear map from parameters, P of them, to n numbers."""

    dtype: torch.dtype
    device: torch.device

    def transposed(self, images: Tensor) -> Tensor:
        """Multiply columns (n, k) by ``B^T``: rows (k, P)."""

    def forward(self, rows: Tensor) -> Tensor:
        """Multiply rows (k, P) by ``B``: columns (n, k)."""


@runtime_checkable
class Measuring(Protocol):
    """A linear map M from images, rows of n numbers, to what is measured of them, in float64."""

    size: int  # numbers of the measurement that may differ from 0
    image_size: int
    eps: float  # rounding of its products

    def measure(self, images: Tensor) -> Tensor:
        """Apply it."""

    def spread(self, measured: Tensor) -> Tensor:
        """Apply its transpose."""


class _Mask:
    def __init__(self, mask: Tensor | None, size: int) -> None:
        self._mask, self.eps, self.image_size = mask, 0.0, size
        self.size = size if mask is None else int(mask.sum())

    def measure(self, images: Tensor) -> Tensor:
        return images if self._mask is None else images * self._mask

    def spread(self, measured: Tensor) -> Tensor:
        return measured


@dataclass(frozen=True, eq=False)
class FactoredSpace:
    """What a block Krylov space of ``A = M B B^T M^T`` knows about functions of A.

    The rows Q are orthonormal, ``(M B)^T Q_m^T = U^T L_m^T`` and ``M B U^T = Q^T L``, where ``L``
    has a row for each of Q and ``L_m`` its first m, those that have been multiplied. The projection
    of A, ``L_m L_m^T``, is positive semi-definite whatever rounding does.
    """

    lower: np.ndarray  # L, (rows, columns)
    coordinates: np.ndarray  # of the starts in the first rows, (width, starts)
    basis: Float[Tensor, "rows m"]  # Q
    images: Float[Tensor, "columns n"]  # B U^T, before they are measured
    blocks: tuple[tuple[int, int], ...]  # rows multiplied, and columns, after every step
    size: int  # dimensions that there are
    rounding: float  # how far singular values of B may be off, relative to the largest one
    relative: float  # and relative to themselves
    tall: bool = False  # whether more is measured than there are images to measure

    @property
    def matvecs(self) -> int:
        """Products with A."""
        return self.blocks[-1][0] if self.blocks else 0

    @property
    def invariant(self) -> bool:
        """Whether nothing is left to multiply."""
        return self.matvecs == len(self.lower)

    @property
    def complete(self) -> bool:
        """Whether the rows span all there is, so that every eigenvalue but 0 is known."""
        return self.invariant and self.size == (len(self.images) if self.tall else self.matvecs)

    @property
    def largest(self) -> float:
        """Largest eigenvalue seen."""
        return float(self._decomposed[0].max(initial=0.0)) ** 2

    @cached_property
    def _decomposed(self) -> tuple[np.ndarray, np.ndarray]:
        return _left(self.lower[: self.matvecs])

    @cached_property
    def _extended(self) -> tuple[np.ndarray, np.ndarray]:
        return self._decomposed if self.invariant else _left(self.lower)

    def eigenpairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Ritz values, and the images ``A`` of their vectors as coefficients of `images`."""
        values, vectors = self._decomposed
        return values**2, self.lower[: self.matvecs].T @ vectors

    def gauss(self, start: int) -> Quadrature:
        """Rule of a start that bounds from below what has positive even derivatives."""
        return self._rule(*self._decomposed, start)

    def radau(self, start: int) -> Quadrature:
        """Rule with nodes at 0: from above, what has positive even and negative odd ones."""
        return self._rule(*self._extended, start)

    def _rule(self, values: np.ndarray, vectors: np.ndarray, start: int) -> Quadrature:
        along = self.coordinates[:, start]
        return Quadrature(values**2, np.square(along @ vectors[: len(along)]))

    def action(
        self,
        functions: Callable[[np.ndarray], np.ndarray],
        start: int,
        steps: int | None = None,
        sign: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Coefficients of ``B (M B)^T f(A) v`` in `images`, and how far it leaves the space.

        By function, by the first steps alone, or with eigenvalues as far off as they may be.
        """  # noqa: DOC201
        rows, columns = self.blocks[(len(self.blocks) if steps is None else steps) - 1]
        square = self.lower[:rows, :columns]
        values, vectors = self._decomposed if steps is None else _left(square)
        moved = self.moved(values**2, sign)
        along = self.coordinates[:, start]
        within = functions(moved) * (along @ vectors[: len(along)]) @ vectors.T
        coefficients = within @ square
        return coefficients, coefficients @ self.lower[rows:, :columns].T

    def images_of(
        self,
        functions: Callable[[np.ndarray], np.ndarray],
        steps: int | None = None,
        sign: int = 0,
    ) -> Float[Tensor, "functions n"]:
        """Make ``B (M B)^T f(A) v`` of the first start, by function; see `action`."""
        coefficients, _ = self.action(functions, 0, steps, sign)
        rows = torch.from_numpy(coefficients).to(self.images.device)
        return rows @ self.images[: rows.shape[1]]

    def moved(self, values: np.ndarray, sign: int) -> np.ndarray:
        """Move eigenvalues as far up (1) or down (-1) as rounding may have moved them."""
        off = self.relative * np.sqrt(values) + self.rounding * np.sqrt(self.largest)
        return np.asarray(np.square(np.maximum(np.sqrt(values) + sign * off, 0.0)))

    def earlier(self) -> int:
        """Count the steps but for the last fifth, which tells errors; all if it is invariant."""
        steps = len(self.blocks)
        return steps if self.invariant else max(1, steps - max(1, steps // 5))


# Singular values of a lower block bidiagonal matrix, 0 for what has none, and left vectors.
def _left(lower: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vectors, values, _ = scipy.linalg.svd(lower, lapack_driver="gesdd")
    return np.pad(values, (0, len(vectors) - len(values))), np.asarray(vectors)


class GolubKahan:
    """Golub-Kahan steps from a block of starts, in the precision of the factor.

    Lanczos on ``B B^T`` loses eigenvalues below the rounding of the largest one; the factor keeps
    singular values, whose squares reach as far again. Image vectors are orthogonalised against all
    before them, in float64; those of parameters only against the last block, which suffices where
    the others are orthogonal (Simon & Zha 2000), so that two blocks of them are all that is kept.

    Memory: ``2 m n`` numbers of 8 bytes for m products, and 4 blocks of parameters.
    """

    def __init__(
        self, factor: Factor, starts: Float[Tensor, "m k"], seen: Tensor | Measuring | None
    ) -> None:
        rows = starts.to(factor.device, torch.float64).T
        m = rows.shape[1]
        if seen is None or isinstance(seen, Tensor):
            seen = _Mask(seen, m)
            rows = seen.measure(rows)
        self._factor, self._seen, self._size = factor, seen, seen.size
        self._basis, self._images = rows.new_empty(0, m), rows.new_empty(0, seen.image_size)
        self._lower = np.zeros((0, 0))
        self._rows = self._columns = self._done = 0
        self._blocks: list[tuple[int, int]] = []
        self._scale = self._stray = 0.0
        self._last: Tensor | None = None  # the block of parameters of the step before
        self._reserve(len(rows), 0)
        self._coordinates = np.zeros((len(rows), len(rows)))
        for i, row in enumerate(rows):
            self._coordinates[:, i] = self._append(row, 1e-12 * float(row.norm()))[: len(rows)]
        self._coordinates = self._coordinates[: self._rows]

    @property
    def width(self) -> int:
        """Products of the next step; 0 if nothing is left."""
        return self._rows - self._done

    def extend(self, steps: int, *, progress: Progress | None = None) -> "GolubKahan":
        """Run more steps; it stops by itself where the space is invariant."""
        for _ in range(steps):
            if self.width:
                self._step()
            if progress is not None:
                progress.advance()
        return self

    def space(self) -> FactoredSpace:
        """Hand out what is known so far."""
        eps = max(torch.finfo(self._factor.dtype).eps, self._seen.eps)
        return FactoredSpace(
            lower=self._lower[: self._rows, : self._columns].copy(),
            coordinates=self._coordinates,
            basis=self._basis[: self._rows],
            images=self._images[: self._columns],
            blocks=tuple(self._blocks),
            size=min(self._size, self._seen.image_size),
            tall=self._size > self._seen.image_size,
            rounding=max(self._stray, ROUNDINGS * eps),
            relative=RELATIVE * eps,
        )

    def _step(self) -> None:
        first, width, before = self._done, self.width, self._columns
        self._reserve(self._rows + width, self._columns + width)
        block = self._seen.spread(self._basis[first : self._rows]).T
        rows = self._factor.transposed(block.to(self._factor.dtype))
        if self._last is not None:
            weights = self._lower[first : self._rows, before - len(self._last) : before]
            rows = rows - torch.from_numpy(weights).to(rows) @ self._last
        self._done = self._rows
        self._last = self._orthonormal(rows, first)
        self._columns = before + len(self._last)
        self._blocks.append((self._done, self._columns))
        if not len(self._last):
            return
        images = self._factor.forward(self._last).double().T
        if not images.isfinite().all():
            raise DivergenceError("a product with the Jacobian is NaN or infinite")
        self._images[before : self._columns] = images
        measured = self._seen.measure(images)
        self._scale = max(self._scale, float(measured.norm(dim=1).max()))
        for i, image in enumerate(measured):
            column, known = before + i, self._lower[: self._done, before + i].copy()
            found = self._append(image, _BREAKDOWN * self._scale)
            # What rounding makes of the zeros of L. It meets the column once more in L L^T, and
            # couples large eigenvalues to small ones, which move by its square over the largest.
            stray = float(np.abs(found[: self._done] - known).max(initial=0.0))
            reach = float(np.abs(known).max(initial=0.0))
            self._stray = max(self._stray, stray * reach / self._scale**2)
            self._lower[self._done : self._rows, column] = found[self._done : self._rows]

    # Orthonormal rows of parameters; what each of the given rows is of them goes into L.
    def _orthonormal(self, rows: Tensor, first: int) -> Tensor:
        if not rows.isfinite().all():
            raise DivergenceError("a product with the transposed Jacobian is NaN or infinite")
        found: list[Tensor] = []
        for i, row in enumerate(rows):
            for _ in range(2):
                for j, other in enumerate(found):
                    part = _dot(other, row)
                    row = row - part * other
                    self._lower[first + i, self._columns + j] += part
            length = _dot(row, row) ** 0.5
            self._scale = max(self._scale, length)
            if length > _BREAKDOWN * self._scale:
                self._lower[first + i, self._columns + len(found)] = length
                found.append(row / length)
        return torch.stack(found) if found else rows[:0]

    # Orthogonalise an image against all rows, and append what is left unless it is rounding.
    def _append(self, image: Tensor, least: float) -> np.ndarray:
        basis = self._basis[: self._rows]
        coefficients = np.zeros(len(self._basis))
        for _ in range(2):
            along = basis @ image
            image = image - along @ basis
            coefficients[: self._rows] += along.cpu().numpy()
        length = float(image.norm())
        if length > least and self._rows < self._size:
            self._basis[self._rows] = image / length
            coefficients[self._rows] = length
            self._rows += 1
        return coefficients

    def _reserve(self, rows: int, columns: int) -> None:
        if rows > len(self._basis) or columns > len(self._images):
            wanted = min(max(rows, columns, len(self._basis) * 3 // 2), max(self._size, rows))
            self._basis = _grown(self._basis, wanted)
            self._images = _grown(self._images, wanted)
            lower = np.zeros((wanted, wanted))
            lower[: len(self._lower), : len(self._lower)] = self._lower
            self._lower = lower


def _grown(rows: Tensor, wanted: int) -> Tensor:
    grown = rows.new_empty(wanted, rows.shape[1])
    grown[: len(rows)] = rows
    return grown


def _dot(one: Tensor, other: Tensor) -> float:
    parts = zip(one.split(_COLUMNS), other.split(_COLUMNS), strict=True)
    return float(sum(float(a.double() @ b.double()) for a, b in parts))
