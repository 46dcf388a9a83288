"""What is done with estimates: several runs pooled to one, lags of equal length averaged."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.covariances.estimate import GROUP

ERROR = "_standard_error"
SETTINGS = ("prior", "codes", "boundary", "centre", "channels", "period", "dtype", "parameters")
TESTED = ("variance_spread", "skewness", "excess_kurtosis")


@checked
def pool_covariances(datasets: Sequence[xr.Dataset]) -> xr.Dataset:
    """Pool estimates of the same covariance from independent samples.

    Parameters
    ----------
    datasets : sequence of xarray.Dataset
        As `covariance` returns, from runs whose samples differ (``first`` or ``seed``).

    Returns
    -------
    xarray.Dataset
        As if all samples had come from one run, to rounding, without tests.

    Raises
    ------
    InvalidInputError
        If there is none, settings differ, or two runs have samples in common.
    """
    if not datasets:
        raise InvalidInputError("nothing to pool: pass at least one result of covariance()")
    _require_alike(datasets)
    rows = np.array([each.attrs["rows"] for each in datasets], dtype=float)
    samples = np.array([each.attrs["samples"] for each in datasets], dtype=float)
    pooled = datasets[0].drop_dims("test", errors="ignore").copy(deep=True)
    for key in [str(k) for k in pooled.data_vars if f"{k}{ERROR}" in pooled.data_vars]:
        means = np.stack([each[key].values for each in datasets])
        errors = np.stack([each[f"{key}{ERROR}"].values for each in datasets])
        count = samples if key == "mean" else rows
        if key == "full_kernel" and pooled.attrs["centre"] == "ensemble":
            count = samples * (GROUP - 1) / GROUP
        n = count.reshape(-1, *[1] * (means.ndim - 1))
        mean = (n / count.sum() * means).sum(axis=0)
        squares = (n * (n - 1) * errors**2 + n * (means - mean) ** 2).sum(axis=0)
        pooled[key].values = mean
        pooled[f"{key}{ERROR}"].values = np.sqrt(squares / (count.sum() - 1) / count.sum())
    for key in TESTED:
        pooled.attrs.pop(key, None)
        pooled.attrs.pop(f"{key}{ERROR}", None)
    return pooled.assign_attrs(samples=int(samples.sum()), rows=int(rows.sum()))


@checked
def radial_average(dataset: xr.Dataset) -> xr.Dataset:
    """Average a stationary kernel over lags of equal length.

    Parameters
    ----------
    dataset : xarray.Dataset
        As `covariance` returns, with ``kernel(lag_y, lag_x)`` or ``kernel(lag_x)``.

    Returns
    -------
    xarray.Dataset
        Over ``radius`` (pixels; equal squared lengths, nothing is binned): ``kernel``, the number
        of ``lags``, and ``kernel_standard_error``, the mean of theirs, which bounds the error.
        Only for fields that pass the tests of isotropy.

    Raises
    ------
    InvalidInputError
        If the kernel has other axes than lags.
    """
    kernel = dataset["kernel"]
    if not all(str(dim).startswith("lag_") for dim in kernel.dims):
        raise InvalidInputError(
            f"expected a kernel over lags alone, got {kernel.dims}: select a channel"
        )
    grids = np.meshgrid(*(dataset[dim].values for dim in kernel.dims), indexing="ij")
    squared = sum(grid.astype(np.int64) ** 2 for grid in grids)
    lengths, where, counts = np.unique(squared, return_inverse=True, return_counts=True)

    def averaged(values: np.ndarray) -> np.ndarray:
        return np.bincount(where.ravel(), weights=values.ravel()) / counts

    return xr.Dataset(
        {
            "kernel": ("radius", averaged(kernel.values)),
            "kernel_standard_error": ("radius", averaged(dataset[f"kernel{ERROR}"].values)),
            "lags": ("radius", counts),
        },
        {"radius": ("radius", np.sqrt(lengths), {"units": "pixels"})},
        dict(dataset.attrs),
    )


def _require_alike(datasets: Sequence[xr.Dataset]) -> None:
    head = datasets[0]
    seen: list[tuple[int, int, int]] = []
    for each in datasets:
        for key in SETTINGS:
            if each.attrs.get(key) != head.attrs.get(key):
                raise InvalidInputError(
                    f"can't pool runs with {key} {head.attrs.get(key)} and {each.attrs.get(key)}"
                )
        if each.sizes != head.sizes:
            raise InvalidInputError(
                f"can't pool results of sizes {dict(head.sizes)} and {dict(each.sizes)}"
            )
        if "first" in each.attrs:
            seed, start = each.attrs["seed"], each.attrs["first"]
            stop = start + each.attrs["samples"]
            for other, first, last in seen:
                if seed == other and start < last and first < stop:
                    raise InvalidInputError(
                        f"two runs share samples: seed {seed}, {start} to {stop - 1} and "
                        f"{first} to {last - 1}; choose another seed or first"
                    )
            seen.append((seed, start, stop))
