"""Symmetric linear operators that are known by their products alone."""

from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import at_least
from dipkernels.base.seeds import generator
from dipkernels.base.statistics import Estimate, mean_and_error
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.linalg.accuracy import Symmetry, symmetry_of_projection
from dipkernels.linalg.linear import LinearOperator

DEFAULT_PROBES = 32
ANOTHER = (
    "the checkpoint's products are not those of this operator: choose another file, or remove it "
    "to start afresh"
)


@checked
class SymmetricOperator(LinearOperator):
    """A symmetric matrix ``A`` of size ``n``, of which only products are ever formed.

    A subclass sets ``shape``, ``dtype`` and ``device`` and writes `_matmat`, and `_forms` where
    quadratic forms cost less than products.
    """

    def _rmatmat(self, block: Tensor) -> Tensor:
        return self._matmat(block)

    def adjoint(self) -> "SymmetricOperator":
        """Give the transpose: the operator itself."""
        return self

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

        Raises
        ------
        DivergenceError
            If it isn't finite.
        """
        if probes is None:
            return Estimate(float(self._exact_diagonal().double().sum()), 0.0, self.shape[0])
        samples = self.quadratic_form(self.rademacher(probes, seed)).double()
        mean, error = mean_and_error(samples)
        if not mean.isfinite():
            raise DivergenceError(
                f"the trace isn't finite in {self.dtype}: its products overflow, or hold NaN"
            )
        return Estimate(float(mean), float(error), probes)

    def quadratic_form(self, block: Tensor | np.ndarray) -> Any:
        """Compute ``v^T A v`` for every column ``v`` of a block.

        Parameters
        ----------
        block : Tensor or ndarray, shape (n,) or (n, k)
            Columns; of complex ones the form is ``v^H A v``, which is real.

        Returns
        -------
        Tensor or ndarray, shape () or (k,)
            One number a column, at half the price of a product with a tangent kernel.
        """
        return self._through(self._all_forms, block, self.shape[0], torch.add)

    def _all_forms(self, block: Tensor) -> Tensor:
        return self._forms(block) if block.shape[1] else block.new_zeros(0)

    def _forms(self, block: Tensor) -> Tensor:
        return (block * self._matmat(block)).sum(dim=0)

    def symmetry(self, probes: Annotated[int, at_least(2)] = 4, *, seed: int = 0) -> Symmetry:
        """Probe whether the operator is symmetric and positive semi-definite.

        Parameters
        ----------
        probes, seed : int
            Random orthonormal vectors, at least 2, on whose span the operator is projected.

        Returns
        -------
        Symmetry
            ``asymmetry``, the largest ``|u^T A v - v^T A u|`` over pairs of these vectors, and
            ``negativity``, how far the projection's least eigenvalue lies below 0, both relative to
            the largest ``|A v|``: some roundings, where all is well; and ``matvecs``.

        Raises
        ------
        DivergenceError
            If a product isn't finite.
        NotSymmetricError
            If it is off by 5 % or more; `AccuracyWarning` is given from the square root of the
            type's precision on, 3e-4 in float32 and 1.5e-8 in float64.
        """
        stream = generator("symmetry", seed)
        normal = torch.randn(self.shape[0], probes, generator=stream, dtype=torch.float64)
        basis = torch.linalg.qr(normal).Q.to(self.device, self.dtype)
        images = (self @ basis).double()
        if not images.isfinite().all():
            raise DivergenceError("a product with the operator is NaN or infinite")
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
