"""Symmetric linear operators that are known by their products alone."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.base.statistics import Estimate, mean_and_error
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.accuracy import Symmetry, symmetry_of_projection

DEFAULT_PROBES = 32
ANOTHER = (
    "the checkpoint's products are not those of this operator: choose another file, or remove it "
    "to start afresh"
)


class SymmetricOperator(ABC):
    """A symmetric matrix ``A`` of size ``n``, of which only products are ever formed.

    A subclass sets ``shape``, ``dtype`` and ``device`` and writes `_matmat`; arguments are
    validated here, once.

    Attributes
    ----------
    shape : (int, int)
        ``(n, n)``.
    dtype, device
        Of the products.
    """

    shape: tuple[int, int]
    dtype: torch.dtype
    device: torch.device

    @abstractmethod
    def _matmat(self, block: Tensor) -> Tensor:
        """Multiply a validated block ``(n, k)``; k is at least 1."""

    def __matmul__(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Multiply a vector ``(n,)`` or a block ``(n, k)``, of the operator's dtype and device."""
        if not isinstance(x, Tensor):
            raise InvalidInputError(f"expected a torch.Tensor, got {type(x).__name__}")
        require_length(x, self.shape[1])
        if x.dtype != self.dtype or x.device != self.device:
            raise InvalidInputError(
                f"expected {self.dtype} on {self.device}, got {x.dtype} on {x.device}: convert "
                "with x.to(operator.device, operator.dtype)"
            )
        if x.dim() == 2 and x.shape[1] == 0:
            return x.clone()
        return self._matmat(x[:, None])[:, 0] if x.dim() == 1 else self._matmat(x)

    @property
    def T(self) -> "SymmetricOperator":  # noqa: N802, the name of the transpose everywhere
        """The transpose: the operator itself."""
        return self

    def to_dense(self) -> Float[Tensor, "n n"]:
        """Form the matrix.

        Returns
        -------
        Tensor, shape (n, n)
            Costs n products and ``n**2`` numbers of memory; symmetric up to rounding.
        """
        return self @ torch.eye(self.shape[0], dtype=self.dtype, device=self.device)

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """Wrap as a SciPy operator, for `scipy.sparse.linalg.eigsh` and the like.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Takes and returns NumPy arrays; converts dtypes; copies to and from the device.
        """

        def product(x: np.ndarray) -> np.ndarray:
            block = torch.from_numpy(np.array(x)).to(self.device, self.dtype)
            return (self @ block).cpu().numpy()

        every = dict.fromkeys(("matvec", "rmatvec", "matmat", "rmatmat"), product)
        dtype = torch.empty(0, dtype=self.dtype).numpy().dtype
        return scipy.sparse.linalg.LinearOperator(self.shape, dtype=dtype, **every)

    def diagonal(self, probes: int | None = DEFAULT_PROBES, *, seed: int = 0) -> Estimate[Tensor]:
        """Estimate the diagonal by random probes (Bekas et al. 2007), or compute it exactly.

        Parameters
        ----------
        probes, seed : int
            Rademacher probes, and their seed; ``probes=None`` forms it exactly from n products.

        Returns
        -------
        Estimate
            Value and standard error of shape (n,). With m probes the error of entry i has a
            standard deviation of ``sqrt(sum_j!=i A_ij^2 / m)``.
        """
        if probes is None:
            exact = self._exact_diagonal()
            return Estimate(exact, torch.zeros_like(exact), self.shape[0])
        v = self.rademacher(probes, seed)
        mean, error = mean_and_error((v * (self @ v)).T)
        return Estimate(mean, error, probes)

    def trace(self, probes: int | None = DEFAULT_PROBES, *, seed: int = 0) -> Estimate[float]:
        """Estimate the trace by random probes (Hutchinson 1990), or compute it exactly.

        Parameters
        ----------
        probes, seed : int
            Rademacher probes, and their seed; ``probes=None``: exactly, from n products.

        Returns
        -------
        Estimate
            Unbiased. With m probes the standard deviation is at most
            ``sqrt(2 / m) * frobenius_norm(A)``.
        """
        if probes is None:
            return Estimate(float(self._exact_diagonal().double().sum()), 0.0, self.shape[0])
        samples = self.quadratic_form(self.rademacher(probes, seed)).double()
        mean, error = mean_and_error(samples)
        return Estimate(float(mean), float(error), probes)

    def quadratic_form(self, block: Float[Tensor, "n k"]) -> Float[Tensor, " k"]:
        """Compute ``v^T A v`` for every column ``v`` of a block.

        Parameters
        ----------
        block : Tensor, shape (n, k)
            Columns.

        Returns
        -------
        Tensor, shape (k,)
            One number a column.
        """
        return (block * (self @ block)).sum(dim=0)

    def symmetry(self, probes: int = 4, *, seed: int = 0) -> Symmetry:
        """Probe whether the operator is symmetric and positive semi-definite.

        Parameters
        ----------
        probes, seed : int
            Random orthonormal vectors, at least 2, on whose span the operator is projected.

        Returns
        -------
        Symmetry
            Relative asymmetry and negativity: some roundings, where all is well.

        Raises
        ------
        InvalidInputError
            If there are fewer than 2 probes.
        NotSymmetricError
            If it clearly isn't; `AccuracyWarning` is given if it has fewer digits than its type.
        """
        if probes < 2:
            raise InvalidInputError(f"at least 2 probes are needed, got {probes}")
        stream = generator("symmetry", seed)
        normal = torch.randn(self.shape[0], probes, generator=stream, dtype=torch.float64)
        basis = torch.linalg.qr(normal).Q.to(self.device, self.dtype)
        images = (self @ basis).double()
        small, scale = basis.double().T @ images, float(images.norm(dim=0).max())
        return symmetry_of_projection(small, scale, probes).judge(self.dtype)

    def rademacher(self, k: int, seed: int) -> Float[Tensor, "n k"]:
        """Draw a block of random signs.

        Parameters
        ----------
        k, seed : int
            Columns, at least 1, and the seed of the draw.

        Returns
        -------
        Tensor, shape (n, k)
            Entries are -1 or 1.
        """
        return random_signs(self.shape[0], k, seed).to(self.device, self.dtype)

    def _exact_diagonal(self, block: int = 64) -> Tensor:
        parts = []
        for chosen in torch.arange(self.shape[0]).split(block):
            unit = torch.zeros(self.shape[0], len(chosen), dtype=self.dtype, device=self.device)
            unit[chosen, torch.arange(len(chosen))] = 1
            parts.append(self.quadratic_form(unit))
        return torch.cat(parts)


class DenseOperator(SymmetricOperator):
    """A symmetric matrix that is held in memory.

    Parameters
    ----------
    matrix : Tensor, shape (n, n)
        Symmetric, which is not checked; only products with it are used.

    Raises
    ------
    InvalidInputError
        If it isn't square.
    """

    def __init__(self, matrix: Float[Tensor, "rows columns"]) -> None:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidInputError(f"expected a square matrix, got shape {tuple(matrix.shape)}")
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def _matmat(self, block: Tensor) -> Tensor:
        return self.matrix @ block


def require_length(x: Tensor, n: int) -> None:
    """Check that a matrix of n columns can multiply a vector or a block."""
    if x.dim() not in (1, 2) or x.shape[0] != n:
        raise InvalidInputError(f"expected shape ({n},) or ({n}, k), got {tuple(x.shape)}")


def identity_of(operator: SymmetricOperator, **settings: int) -> dict[str, Any]:
    """Say what a checkpoint is of: an operator, and the settings of a computation."""
    known = {"operator": repr(operator), "size": operator.shape[0]}
    return {**known, "dtype": str(operator.dtype), "device": str(operator.device), **settings}


def random_signs(n: int, k: int, seed: int) -> Tensor:
    """Draw k columns of n random signs, as whole numbers."""
    if k < 1:
        raise InvalidInputError(f"at least 1 probe is needed, got {k}")
    signs = torch.randint(0, 2, (k, n), generator=generator("probes", seed))
    return 2 * signs.T - 1
