"""Operators whose numbers are held in memory: a matrix, a diagonal."""

from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.operator import SymmetricOperator


@checked
class DenseOperator(SymmetricOperator):
    """A symmetric matrix that is held in memory.

    Parameters
    ----------
    matrix : Tensor, shape (n, n)
        Real, symmetric, which is not checked; only products with it are used.

    Raises
    ------
    InvalidInputError
        If it isn't square, or its numbers aren't real floating-point ones.

    Examples
    --------
    >>> import torch
    >>> DenseOperator(torch.tensor([[2.0, 1.0], [1.0, 2.0]])) @ torch.tensor([1.0, 0.0])
    tensor([2., 1.])
    """

    def __init__(self, matrix: Tensor) -> None:
        if matrix.dim() != 2 or matrix.shape[0] != matrix.shape[1]:
            raise InvalidInputError(f"expected a square matrix, got shape {tuple(matrix.shape)}")
        require_real(matrix)
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def to_dense(self) -> Float[Tensor, "n n"]:
        """Give a copy of the matrix."""
        return self.matrix.clone()

    def _matmat(self, block: Tensor) -> Tensor:
        return self.matrix @ block

    def _exact_diagonal(self, block: int = 64) -> Tensor:
        return self.matrix.diagonal().clone()


@checked
class DiagonalOperator(SymmetricOperator):
    """A diagonal matrix: weights, a mask, or the identity to be added to another operator.

    Parameters
    ----------
    values : Tensor, shape (n,)
        The diagonal.

    Raises
    ------
    InvalidInputError
        If it isn't a vector of real floating-point numbers.

    Examples
    --------
    >>> import torch
    >>> A, noise = DenseOperator(torch.ones(2, 2)), 0.5 * DiagonalOperator(torch.ones(2))
    >>> (A + noise).to_dense()
    tensor([[1.5000, 1.0000],
            [1.0000, 1.5000]])
    """

    def __init__(self, values: Tensor) -> None:
        if values.dim() != 1:
            raise InvalidInputError(
                f"expected a vector, the diagonal, got shape {tuple(values.shape)}"
            )
        require_real(values)
        self.values = values
        self.shape = (len(values), len(values))
        self.dtype, self.device = values.dtype, values.device

    def _matmat(self, block: Tensor) -> Tensor:
        return self.values[:, None] * block

    def _exact_diagonal(self, block: int = 64) -> Tensor:
        return self.values.clone()


def require_real(tensor: Tensor) -> None:
    """Require floating-point numbers that aren't complex."""
    if not tensor.is_floating_point():
        raise InvalidInputError(
            f"expected real floating-point numbers, got {tensor.dtype}: convert with x.double(); "
            "a complex matrix is no operator here"
        )
