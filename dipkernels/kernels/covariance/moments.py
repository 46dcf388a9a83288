"""Means, their standard errors and covariances of rows that arrive in batches."""

import torch
from jaxtyping import Float
from torch import Tensor


class RunningMoments:
    """Mean over rows that arrive in batches, and its standard error, entry by entry.

    Merges batches by the exact update of Chan, Golub & LeVeque (1983), in float64: no rows are
    kept, and a common offset costs no digits. Memory: three arrays of a row's shape.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean: Tensor | None = None
        self._squares: Tensor | None = None

    def update(self, rows: Float[Tensor, "batch *shape"]) -> None:
        """Take in a batch.

        Parameters
        ----------
        rows : Tensor, shape ``(batch, *shape)``
            Independent of each other and of all before.
        """
        rows = rows.double()
        size, mean = len(rows), rows.mean(dim=0)
        squares = (rows - mean).square().sum(dim=0)
        if self._mean is None or self._squares is None:
            self.count, self._mean, self._squares = size, mean, squares
            return
        total = self.count + size
        shift = mean - self._mean
        self._squares += squares + shift.square() * (self.count * size / total)
        self._mean += shift * (size / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """Mean so far, of a row's shape."""
        return torch.empty(0) if self._mean is None else self._mean

    @property
    def standard_error(self) -> Tensor:
        """Its standard error; NaN while there are fewer than two rows."""
        if self._squares is None:
            return torch.empty(0)
        if self.count < 2:
            return torch.full_like(self._squares, float("nan"))
        return (self._squares / (self.count - 1) / self.count).sqrt()


class RunningCovariance:
    """Mean and covariance matrix of short vectors that arrive in batches.

    Merged exactly, as in `RunningMoments`.
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = torch.empty(0)
        self._products = torch.empty(0)

    def update(self, rows: Float[Tensor, "batch k"]) -> None:
        """Take in a batch.

        Parameters
        ----------
        rows : Tensor, shape ``(batch, k)``
            Independent of each other and of all before.
        """
        rows = rows.double()
        size, mean = len(rows), rows.mean(dim=0)
        products = (rows - mean).T @ (rows - mean)
        if self.count == 0:
            self.count, self._mean, self._products = size, mean, products
            return
        total = self.count + size
        shift = mean - self._mean
        self._products += products + torch.outer(shift, shift) * (self.count * size / total)
        self._mean += shift * (size / total)
        self.count = total

    @property
    def mean(self) -> Tensor:
        """Mean so far, shape (k,)."""
        return self._mean

    @property
    def covariance(self) -> Tensor:
        """Covariance of a row, unbiased, shape (k, k); needs two rows."""
        return self._products / (self.count - 1)
