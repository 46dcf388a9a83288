"""Estimates with what they cost and how far off they may be; moments; the jackknife."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked

Value = TypeVar("Value", float, Tensor)


@checked(nan=True)
@dataclass(frozen=True, eq=False)
class Estimate(Generic[Value]):
    """A value with its standard error and its cost.

    Attributes
    ----------
    value : float or Tensor
        The estimate.
    standard_error : float or Tensor
        Of the mean over the probes; 0 if the value is exact, NaN if there was one probe only.
    matvecs : int
        Spent. A quadratic form counts as one, though an NTK computes it at half the price.
    """

    value: Value
    standard_error: Value
    matvecs: int

    def __repr__(self) -> str:
        if isinstance(self.value, Tensor):
            shape = tuple(self.value.shape)
            return f"Estimate(value of shape {shape}, {self.matvecs} products)"
        return f"Estimate({self.value:.6g} +- {self.standard_error:.2g}, {self.matvecs} products)"


def mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first axis, and its standard error."""
    n = samples.shape[0]
    spread = samples.std(dim=0) if n > 1 else torch.full_like(samples[0], float("nan"))
    return samples.mean(dim=0), spread / n**0.5


def standard_error(samples: np.ndarray) -> np.ndarray:
    """Estimate the standard error of the mean over the first axis; NaN for a single sample."""
    count = len(samples)
    if count < 2:
        return np.full(samples.shape[1:], math.nan)
    return np.asarray(samples.std(axis=0, ddof=1) / math.sqrt(count))


def with_errors(found: Mapping[str, tuple[Any, Any]], dims: Any = ()) -> dict[str, Any]:
    """Make variables of a dataset from values and their standard errors."""
    data = {}
    for name, (value, error) in found.items():
        data[name], data[f"{name}_standard_error"] = (dims, value), (dims, error)
    return data


def jackknife(
    samples: np.ndarray, function: Callable[[np.ndarray], Any], *, debiased: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Evaluate a function of the mean over the first axis; its bias is taken off if wanted."""
    count, total = len(samples), samples.sum(axis=0)
    left_out = np.array([function((total - sample) / (count - 1)) for sample in samples])
    value = function(total / count)
    if debiased:
        value = count * value - (count - 1) * left_out.mean(axis=0)
    return np.asarray(value), jackknife_error(left_out)


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """Estimate the standard error of a statistic from its values with each sample left out in turn.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0, 9.0])
    >>> left_out = (x.sum() - x) / 3
    >>> bool(np.isclose(jackknife_error(left_out), x.std(ddof=1) / 2))
    True
    """  # noqa: DOC201
    # Source: Tukey 1958. Of a mean it is the usual standard error.
    count = len(left_out)
    spread = left_out - left_out.mean(axis=0)
    return np.asarray(np.sqrt((count - 1) / count * np.square(spread).sum(axis=0)))


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
        """Take in a batch."""
        rows = rows.double()
        size, mean = len(rows), rows.mean(dim=0)
        squares = self._summed_squares(rows - mean)
        if self._mean is None or self._squares is None:
            self.count, self._mean, self._squares = size, mean, squares
            return
        total = self.count + size
        shift = mean - self._mean
        self._squares += squares + self._summed_squares(shift[None]) * (self.count * size / total)
        self._mean += shift * (size / total)
        self.count = total

    def _summed_squares(self, rows: Tensor) -> Tensor:
        return rows.square().sum(dim=0)

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


class RunningCovariance(RunningMoments):
    """Mean and covariance matrix of short vectors, shape (k,), that arrive in batches."""

    def _summed_squares(self, rows: Tensor) -> Tensor:
        return rows.T @ rows

    @property
    def covariance(self) -> Tensor:
        """Covariance of a row, unbiased, shape (k, k); needs two rows."""
        return torch.empty(0) if self._squares is None else self._squares / (self.count - 1)
