"""Measured covariances as kernels: from lags within an image to tables on a torus."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.kernels.stationary.blocks import block_matrices


@dataclass(frozen=True)
class TabulatedKernel:
    """A kernel made of an estimate; see `from_covariance`."""

    kernel: StationaryKernel
    removed: float


@checked
def from_covariance(dataset: xr.Dataset, *, phases: bool = False) -> TabulatedKernel:
    """Make a kernel of a measured covariance.

    An estimate has noise, with which its spectrum isn't positive everywhere. The nearest kernel on
    the torus of its lags is taken whose spectrum is.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `dipkernels.kernels.covariance` returns, with channels averaged. For images of n pixels a
        side measure ``max_lag=n`` on networks of more than n pixels.
    phases : bool
        Take ``phase_kernel``, measured with a period; phase 0 is the image's first pixel.

    Returns
    -------
    TabulatedKernel
        ``kernel``, on a torus of twice the largest lag, shortened to a multiple of the period;
        ``removed``, the norm of the negative part of the spectrum that was taken away, over that of
        the rest: of the size of the estimate's own error, if all is well.

    Raises
    ------
    InvalidInputError
        If there is no such kernel, or it has an axis for channels.
    """
    name = "phase_kernel" if phases else "kernel"
    if name not in dataset:
        raise InvalidInputError(
            f"the dataset has no {name}: it has {', '.join(map(str, dataset.data_vars))}"
        )
    lag_dims = [str(d) for d in dataset[name].dims if str(d).startswith("lag_")]
    phase_dims = [str(d) for d in dataset[name].dims if str(d).startswith("phase_")]
    if len(lag_dims) + len(phase_dims) != dataset[name].ndim:
        raise InvalidInputError(
            f"expected a kernel over lags alone, got {dataset[name].dims}: select a channel, or "
            "measure with channels='average'"
        )
    values = torch.from_numpy(np.array(dataset[name].values, dtype=np.float64))
    period = tuple(values.shape[: len(phase_dims)]) or (1,) * len(lag_dims)
    table = values.reshape(*period, *values.shape[len(phase_dims) :])
    for axis, (dim, t) in enumerate(zip(lag_dims, period, strict=True)):
        table = _wrapped(table, len(period) + axis, dataset[dim].values, t)
    return _nearest(table)


# Lags of a torus, 0 first, from lags that ascend from below 0 to above.
def _wrapped(table: Tensor, axis: int, lags: np.ndarray, period: int) -> Tensor:
    origin = int(np.flatnonzero(lags == 0)[0])
    reach = min(origin, len(lags) - 1 - origin)
    size = max(2 * reach // period, 1) * period
    take = (torch.arange(size) + size // 2) % size - size // 2 + origin
    return table.index_select(axis, take)


def _nearest(table: Tensor) -> TabulatedKernel:
    dims = table.dim() // 2
    size, period = tuple(table.shape[dims:]), tuple(table.shape[:dims])
    blocks = block_matrices(table)
    values, vectors = torch.linalg.eigh((blocks + blocks.mH) / 2)
    kept = values.clamp(min=0)
    removed = float((values - kept).norm() / kept.norm().clamp(min=1e-300))
    positive = (vectors * kept[:, None, :]) @ vectors.mH
    table = _table_of(positive, size, period)
    mean = table.new_zeros(period)
    return TabulatedKernel(StationaryKernel(table, torch.zeros_like(table), mean), removed)


# The inverse of `block_matrices`.
def _table_of(blocks: Tensor, size: tuple[int, ...], period: tuple[int, ...]) -> Tensor:
    dims = len(size)
    coarse = tuple(n // t for n, t in zip(size, period, strict=True))
    picked = torch.fft.ifftn(
        blocks.conj().reshape(*coarse, *period, *period), dim=tuple(range(dims))
    ).real
    table: Tensor = picked.new_zeros(*period, *size)
    steps = [torch.arange(n) for n in coarse]
    for a in itertools.product(*map(range, period)):
        for b in itertools.product(*map(range, period)):
            lags = [
                (q - p + t * j) % n for p, q, t, j, n in zip(a, b, period, steps, size, strict=True)
            ]
            there: Any = (*a, *torch.meshgrid(*lags, indexing="ij"))
            table[there] = picked[(..., *a, *b)]
    return table
