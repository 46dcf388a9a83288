"""A covariance over the pixels of an image as a matrix, in the terms of one on a torus."""

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.gp.torus import Size, Spectral, TorusCovariance


class DenseCovariance(TorusCovariance):
    """A covariance matrix, by its eigenvectors: the image is all there is."""

    filters = False

    def __init__(self, matrix: Float[Tensor, "n n"], size: Size) -> None:
        self.period, self.torus, self.size = (1,) * len(size), size, size
        self.device = matrix.device
        self._matrix = matrix
        values, self._columns = torch.linalg.eigh((matrix + matrix.T) / 2)
        self.eigenvalues = values.clamp(min=0)  # a DenseKernel is positive up to rounding
        self.negativity = 0.0

    def function(self, function: Spectral) -> Spectral:
        """Prepare products with a function of the matrix, given on its eigenvalues."""
        matrix = (self._columns * function(self.eigenvalues)) @ self._columns.T

        def multiply(x: Tensor) -> Tensor:
            product: Tensor = x.reshape(-1, len(matrix)) @ matrix
            return product.reshape(x.shape)

        return multiply

    def diagonal(self, function: Spectral) -> Float[Tensor, "*size"]:
        """Diagonal of a function of the matrix."""
        values: Tensor = self._columns.square() @ function(self.eigenvalues)
        return values.reshape(self.size)

    def powers(self, x: Float[Tensor, "*torus"]) -> Tensor:
        """Squared coefficients of a field in the eigenvectors."""
        along: Tensor = self._columns.T @ x.flatten()
        return along.square()

    def to_dense(self) -> Float[Tensor, "n n"]:
        """Give the matrix."""
        return self._matrix
