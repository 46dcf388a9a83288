"""A number that was estimated, with what it cost and how far off it may be."""

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

Value = TypeVar("Value", float, Tensor)


@dataclass(frozen=True, eq=False)
class Estimate(Generic[Value]):
    """A value with its standard error and its cost.

    Attributes
    ----------
    value : float or Tensor
        The estimate.
    standard_error : float or Tensor
        Of the mean over the probes; 0 if the value is exact, NaN if there was one probe only.
    products : int
        Spent. A quadratic form counts as one, though an NTK computes it at half the price.
    """

    value: Value
    standard_error: Value
    products: int

    def __repr__(self) -> str:
        if isinstance(self.value, Tensor):
            shape = tuple(self.value.shape)
            return f"Estimate(value of shape {shape}, {self.products} products)"
        return f"Estimate({self.value:.6g} +- {self.standard_error:.2g}, {self.products} products)"


def mean_and_error(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over the first axis, and its standard error.

    Parameters
    ----------
    samples : Tensor, shape (n, ...)
        Independent draws.

    Returns
    -------
    mean, standard_error : Tensor, shape (...)
        The error is NaN for a single draw.
    """
    n = samples.shape[0]
    spread = samples.std(dim=0) if n > 1 else torch.full_like(samples[0], float("nan"))
    return samples.mean(dim=0), spread / n**0.5


def jackknife_error(left_out: np.ndarray) -> np.ndarray:
    """Estimate the standard error of a statistic from its values with each sample left out in turn.

    Parameters
    ----------
    left_out : ndarray, shape (n, ...)
        Of n samples; at least 2.

    Returns
    -------
    ndarray, shape (...)
        ``sqrt((n - 1) / n * sum of squared deviations)``.

    Notes
    -----
    Source: Tukey 1958. Of a mean it is the usual standard error.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 4.0, 9.0])
    >>> left_out = (x.sum() - x) / 3
    >>> bool(np.isclose(jackknife_error(left_out), x.std(ddof=1) / 2))
    True
    """
    count = len(left_out)
    spread = left_out - left_out.mean(axis=0)
    return np.asarray(np.sqrt((count - 1) / count * np.square(spread).sum(axis=0)))
