"""What experiments share: presets from ``config.yaml``, options, and tables of finished units.

A unit is the least that is repeated after an interruption, for instance one fit.
"""

import argparse
import contextlib
import csv
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import xarray as xr
import yaml

from dipkernels.base.checks import as_annotated
from dipkernels.base.devices import resolve_device
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.storage import RunFolder, is_interrupted
from dipkernels.storage.locks import claim

PRESETS = ("smoke", "cpu", "paper")
DRAWN = 2000  # points of a curve, more than a figure has columns
POLL = 0.2  # seconds between looks at what other processes hold
S = TypeVar("S")
U = TypeVar("U")


@dataclass(frozen=True)
class Options:
    """What the command line of an experiment was given."""

    preset: str
    output: Path
    device: torch.device


def parse(script: str, description: str | None, arguments: Sequence[str] | None) -> Options:
    """Read ``--preset``, ``--output`` and ``--device``.

    Parameters
    ----------
    script : str
        ``__file__`` of the experiment.
    description : str
        Its docstring.
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    Options
        The output is ``runs/NAME-PRESET`` unless another is given.
    """
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--output", type=Path, help="folder of results; a run in it continues")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    given = parser.parse_args(arguments)
    default = Path("runs") / f"{Path(script).parent.name}-{given.preset}"
    return Options(given.preset, given.output or default, resolve_device(given.device))


def settings(script: str, preset: str, kind: type[S]) -> S:
    """Read a preset from the ``config.yaml`` beside a script.

    Parameters
    ----------
    script : str
        ``__file__`` of the experiment.
    preset : str
        A section of the file.
    kind : type
        A dataclass with the section's keys; lists become tuples. Values of plain types are checked
        against its annotations: YAML reads ``1e-3``, without a point, as a word.

    Returns
    -------
    object
        Of that class.
    """
    path = Path(script).with_name("config.yaml")
    sections = yaml.safe_load(path.read_text(encoding="utf-8"))
    if preset not in sections:
        raise InvalidInputError(f"{path} has no preset '{preset}', only {', '.join(sections)}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    needed = {
        name
        for name, field in fields.items()
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    section = sections[preset]
    wrong, missing = sorted(set(section) - set(fields)), sorted(needed - set(section))
    if wrong or missing:
        raise InvalidInputError(f"{path}, {preset}: unknown keys {wrong}, missing keys {missing}")
    return kind(
        **{
            key: as_annotated(f"{path}, {preset}: {key}", _frozen(value), fields[key].type)
            for key, value in section.items()
        }
    )


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value


def open_folder(script: str, options: Options, chosen: Any) -> RunFolder:
    """Open the folder of results; one that holds other settings is refused.

    Parameters
    ----------
    script : str
        ``__file__`` of the experiment.
    options : Options
        Of the command line.
    chosen : object
        The preset, a dataclass.

    Returns
    -------
    RunFolder
        With the settings written.
    """
    record = {"experiment": Path(script).parent.name, **dataclasses.asdict(chosen)}
    return RunFolder.open(options.output, record)


class Table:
    """Rows with a key, in a CSV that is written row by row.

    Parameters
    ----------
    path : Path
        Of the file; made with the first row.
    columns : tuple of str
        Of every row.
    keys : tuple of str
        The columns that name a unit of work.
    """

    def __init__(self, path: Path, columns: Sequence[str], keys: Sequence[str]) -> None:
        self.path, self.columns, self.keys = path, tuple(columns), tuple(keys)

    def rows(self) -> list[dict[str, str]]:
        """Read all rows, as strings.

        Returns
        -------
        list of dict
            Without a row whose writing was cut off.
        """
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        return [row for row in lines if None not in row.values()]

    def done(self) -> set[tuple[str, ...]]:
        """Keys of the units that are finished.

        Returns
        -------
        set of tuple of str
            Without duplicates.
        """
        return {tuple(row[key] for key in self.keys) for row in self.rows()}

    def append(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add finished rows; the file is replaced whole.

        Parameters
        ----------
        rows : iterable of mapping
            Numbers are written with six digits.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        before = self.rows()
        if before and tuple(before[0]) != self.columns:
            raise OutputError(
                f"{self.path} has other columns than are written now "
                f"({', '.join(self.columns)}): choose another --output"
            )
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(before)
            writer.writerows(
                {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
                for row in rows
            )
        partial.replace(self.path)


def each(todo: Sequence[U]) -> Iterator[U]:
    """Go through units, telling how far the work is and how long the rest may take.

    Parameters
    ----------
    todo : sequence
        What isn't done yet.

    Yields
    ------
    object
        Each of them.
    """
    start = time.perf_counter()
    for number, unit in enumerate(todo, start=1):
        yield unit
        seconds = time.perf_counter() - start
        left = seconds / number * (len(todo) - number)
        print(f"{number}/{len(todo)} {unit}: {seconds:.0f} s, about {left:.0f} s left", flush=True)


def packed(
    values: xr.DataArray, low: float = 0.0, high: float = 1.0, *, side: int = 128, bits: int = 8
) -> xr.DataArray:
    """Make what is only looked at small.

    Parameters
    ----------
    values : xarray.DataArray
        Such as images, over ``y`` and ``x``.
    low, high : float
        What is beyond is cut.
    side : int
        Most rows and columns: of more, every second, third, ... is kept.
    bits : {8, 16}
        In which a number is stored: to one part in twice 254 or 65534 of the range.

    Returns
    -------
    xarray.DataArray
        Is stored so, as netCDF packs numbers, and compressed; `dipkernels.storage.load` unpacks it.
    """
    shown = values.clip(low, high)
    steps = {dim: -(-shown.sizes[dim] // side) for dim in ("y", "x") if dim in shown.dims}
    shown = shown.isel({dim: slice(None, None, step) for dim, step in steps.items()})
    levels = 2**bits - 2  # and one more is for NaN
    shown.encoding = {
        "dtype": f"uint{bits}",
        "scale_factor": (high - low) / levels or 1.0,
        "add_offset": low,
        "_FillValue": levels + 1,
        "zlib": True,
    }
    return shown


def reduced(
    result: xr.Dataset, names: Sequence[str], *, pictures: Sequence[str] = (), side: int = 128
) -> xr.Dataset:
    """Keep what a report reads, so that a run of the `paper` preset writes a few MB, not GB.

    Parameters
    ----------
    result : xarray.Dataset
        Of a unit, before it is stored.
    names : sequence of str
        Variables that are kept as they are; those that it lacks are passed over.
    pictures : sequence of str
        Variables that are only looked at, of values in [0, 1]: those of more than ``side`` rows or
        columns keep every second, third, ... of them; stored in 8 bits (as netCDF packs numbers).
    side : int
        Most rows and columns of a picture.

    Returns
    -------
    xarray.Dataset
        With all attributes.
    """
    kept = result[[name for name in names if name in result]]
    for name in pictures:
        if name not in result:
            continue
        kept[name] = packed(result[name], side=side)
    return kept.assign_attrs(result.attrs)


def log_spaced(count: int, keep: Iterable[int] = (), *, most: int = DRAWN) -> np.ndarray:
    """Choose iterations of a long curve, for figures whose axis of iterations is logarithmic.

    Parameters
    ----------
    count : int
        Iterations of the curve, from 0 on.
    keep : iterable of int
        Some that tables read, for instance that of the peak; chosen in any case.
    most : int
        Curves of no more than that are left whole.

    Returns
    -------
    ndarray of int
        Ascending, the first and the last among them: all up to some number, from there on in
        steps that grow with the iteration, fewer than ``most`` beside those to keep.
    """
    if count <= most:
        return np.arange(count)
    spaced = np.geomspace(1, count - 1, most).round().astype(int)
    return np.unique([0, *spaced, *keep])


def each_missing(
    units: Sequence[U], folder: RunFolder, name: Callable[[U], str]
) -> Iterator[tuple[U, str]]:
    """Go through units whose results aren't stored, beside other processes on the same folder.

    Parameters
    ----------
    units : sequence
        All of them.
    folder : RunFolder
        Where results are stored as soon as they are there.
    name : callable
        From a unit to the name of its result.

    Yields
    ------
    unit, name : object, str
        Held by this process until it asks for the next one. What another process holds is left to
        it, or done here if it dies; at the end all are stored. A fit that Ctrl-C ended isn't.
    """
    todo = left = [unit for unit in units if not _finished(folder, name(unit))]
    start = time.perf_counter()
    while left:
        before, left = left, []
        for unit in before:
            with claim(_locks(folder, name(unit))) as held:
                if not held:
                    left.append(unit)
                elif not _finished(folder, name(unit)):  # it wasn't when the list was made
                    yield unit, name(unit)
                    _tell(name(unit), [folder.file(name(unit)) for unit in todo], start)
        if len(left) == len(before):
            time.sleep(POLL)


# What `RunFolder.stage` returns and doesn't compute again.
def _finished(folder: RunFolder, name: str) -> bool:
    result = folder.stored(name)
    return result is not None and not is_interrupted(result)


def _tell(name: str, files: list[Path], start: float) -> None:
    seconds = time.perf_counter() - start
    done = sum(file.exists() for file in files)
    left = seconds / max(done, 1) * (len(files) - done)
    print(f"{done}/{len(files)} {name}: {seconds:.0f} s, about {left:.0f} s left", flush=True)


@contextlib.contextmanager
def alone(folder: RunFolder, name: str) -> Iterator[None]:
    """Wait until no other process on the same folder is in a block of this name.

    Parameters
    ----------
    folder : RunFolder
        Of results.
    name : str
        Of the block.

    Yields
    ------
    None
        While it's held.
    """
    while True:
        with claim(_locks(folder, name)) as held:
            if held:
                yield
                return
        time.sleep(POLL)


def _locks(folder: RunFolder, name: str) -> Path:
    place = folder.path / "locks" / name
    place.mkdir(parents=True, exist_ok=True)
    return place
