"""Results of fits in few bytes, without a change of a value: what `harness.reduced` leaves."""

import numpy as np
import xarray as xr

PSNR, ERROR = "psnr_", "mse_"
SMALL = 1024  # bytes that aren't worth compressing


def compact(result: xr.Dataset) -> xr.Dataset:
    """Write curves of PSNRs as the errors that they come from, leave out counts, and compress.

    A fit in float32 records mean squared errors and gives them in dB in float64, which takes twice
    the bytes and hardly compresses. A number of every iteration is as long as a curve.

    Parameters
    ----------
    result : xarray.Dataset
        Of `dipkernels.fit`, or a part of it.

    Returns
    -------
    xarray.Dataset
        For `dipkernels.storage.save`; `restored` makes the other of it again. PSNRs of fits in
        float64, which would lose digits, stay as they are.
    """
    result = result.copy()
    for name in _curves(result, PSNR):
        decibels = result[name]
        errors = (10 ** (-decibels / 10)).astype(np.float32)
        # Equal, but for the last bits of other implementations of the logarithm.
        if np.allclose(_decibels(errors), decibels, rtol=1e-15, atol=1e-14, equal_nan=True):
            errors.attrs = {}  # the unit isn't dB
            result = result.drop_vars(name).assign({ERROR + name.removeprefix(PSNR): errors})
    if "iteration" in result.coords and _counts(result["iteration"].values):
        result = result.drop_vars("iteration")
    for variable in result.variables.values():
        if variable.nbytes > SMALL:
            packed = {"zlib": True, "complevel": 9, "shuffle": True, "chunksizes": variable.shape}
            variable.encoding |= packed
    return result


def restored(result: xr.Dataset) -> xr.Dataset:
    """Make PSNRs in dB and numbers of iterations again.

    Parameters
    ----------
    result : xarray.Dataset
        Of `compact`, stored and loaded; any other stays as it is.

    Returns
    -------
    xarray.Dataset
        With the variables that `dipkernels.fit` gives.
    """
    for name in _curves(result, ERROR):
        decibels = _decibels(result[name]).assign_attrs(units="dB")
        result = result.drop_vars(name).assign({PSNR + name.removeprefix(ERROR): decibels})
    if "iteration" in result.sizes and "iteration" not in result.coords:
        result = result.assign_coords(iteration=np.arange(result.sizes["iteration"]))
    return result


def _curves(result: xr.Dataset, prefix: str) -> list[str]:
    return [
        str(name)
        for name, values in result.data_vars.items()
        if str(name).startswith(prefix) and "iteration" in values.dims
    ]


def _decibels(errors: xr.DataArray) -> xr.DataArray:
    with np.errstate(divide="ignore"):
        return -10 * np.log10(errors.astype(np.float64))


def _counts(values: np.ndarray) -> bool:
    return np.array_equal(values, np.arange(len(values)))
