"""Saving and loading results: netCDF, written whole or not at all."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5netcdf
import xarray as xr
from xarray.backends import H5NetCDFStore

from dipkernels.base.checks import checked
from dipkernels.base.files import replacing, stays, to_disk
from dipkernels.base.memory import require_free
from dipkernels.errors import ArgumentsError, InvalidInputError, MemoryLimitError, OutputError
from dipkernels.storage.hashes import HOW, SEALED, is_whole, seal

DAMAGED = (
    "can't read {} as netCDF: it is damaged or something else ({}); remove it, and what made it "
    "makes it anew"
)
CLASSIC = b"CDF"  # how a netCDF 3 file begins
# Attributes and variables of this package's results from before they were called so.
OURS = "version_dipkernels"  # an attribute of all of them
RENAMED = {"products": "matvecs", "freedom": "degrees_of_freedom"}


@checked
def save(
    dataset: xr.Dataset, path: str | Path, *, classic: bool = False, durable: bool = False
) -> None:
    """Write a dataset as netCDF, atomically: a reader sees the old file or the new one.

    Parameters
    ----------
    dataset : xarray.Dataset
        Any result of this package.
    path : str or Path
        Where to; an existing file is replaced only once the new one is complete.
    classic : bool
        Write netCDF 3 where it can hold the dataset (no whole numbers beyond 32 bits), which takes
        a twentieth of the time for small ones; else netCDF 4. `load` reads both.
    durable : bool
        Wait until it is on the disk, so that a power cut can't take it.

    Raises
    ------
    OutputError
        If it can't be written; what was there before stays whole.
    ArgumentsError
        If netCDF can't hold it: attributes are words, numbers, or arrays of these.

    Notes
    -----
    The file is made in memory, which takes as much as the dataset, and then written.
    """
    try:
        with replacing(Path(path)) as partial:
            sealed = dataset.assign_attrs({SEALED: HOW})
            partial.write_bytes((classic and _as_classic(sealed)) or _as_hdf5(sealed))
            seal(partial)
            if durable:
                to_disk(partial)
    except OSError as error:
        raise OutputError(f"can't write {path}: {error}") from error


@checked
def load(path: str | Path) -> xr.Dataset:
    """Read a dataset into memory.

    Parameters
    ----------
    path : str or Path
        A netCDF file.

    Returns
    -------
    xarray.Dataset
        Loaded; the file is closed.

    Raises
    ------
    InvalidInputError
        If there is no such file, it isn't netCDF, or it is damaged: its SHA-256 isn't that of its
        content. Files that this package wrote before it kept hashes are read without one.
    MemoryLimitError
        If what it holds doesn't fit into the memory that is free.
    OutputError
        If it may not be read.
    """
    try:
        whole = is_whole(Path(path))
        if whole is False:
            raise InvalidInputError(DAMAGED.format(path, "its SHA-256 isn't that of its content"))
        with Path(path).open("rb") as file:
            classic = file.read(len(CLASSIC)) == CLASSIC
        with xr.open_dataset(path, engine="scipy" if classic else "h5netcdf") as stored:
            require_free(stored.nbytes, str(path), "open it by xarray, and load a part")
            found = stored.load()
        if found.attrs.pop(SEALED, None) is not None and whole is None:
            raise InvalidInputError(DAMAGED.format(path, "its end is missing"))
    except (InvalidInputError, MemoryLimitError):
        raise
    except FileNotFoundError as error:
        raise InvalidInputError(f"can't read {path} as netCDF: there is no such file") from error
    except PermissionError as error:  # it may be whole: nobody computes it anew
        raise OutputError(f"can't read {path}: {error}") from error
    except Exception as error:  # h5py raises whatever its C library meets
        said = str(error) or type(error).__name__
        raise InvalidInputError(DAMAGED.format(path, said)) from error
    if OURS not in found.attrs:  # a dataset of the user's own keeps its names
        return found
    found.attrs = renamed(found.attrs)
    old = [n for n, new in RENAMED.items() if n in found.variables and new not in found.variables]
    return found.rename({name: RENAMED[name] for name in old})


def renamed(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """Call what this package has measured as it is called now."""
    return {
        name if RENAMED.get(name, name) in values else RENAMED.get(name, name): value
        for name, value in values.items()
    }


def write_text(text: str, path: Path, *, durable: bool = False) -> None:
    """Write a text file atomically, as `save` does."""
    if stays(path):
        return
    try:
        with replacing(path) as partial:
            # names of folders may hold what is no letter
            partial.write_text(text, encoding="utf-8", errors="backslashreplace")
            if durable:
                to_disk(partial)
    except (OSError, ValueError) as error:
        raise OutputError(f"can't write {path}: {error}") from error


# Not by HDF5 itself: where a disk is full, it ends the process.
def _as_hdf5(dataset: xr.Dataset) -> memoryview:
    content = io.BytesIO()
    try:
        with h5netcdf.File(content, "w") as file:
            dataset.dump_to_store(H5NetCDFStore(file))
    except TypeError as error:
        raise ArgumentsError(
            f"netCDF can't hold this dataset ({error}): its attributes must be words, numbers, or "
            "arrays of these"
        ) from error
    return content.getbuffer()


def _as_classic(dataset: xr.Dataset) -> bytes | memoryview:
    try:
        return dataset.to_netcdf(engine="scipy", format="NETCDF3_64BIT")
    except (ValueError, TypeError, AttributeError):
        return b""
