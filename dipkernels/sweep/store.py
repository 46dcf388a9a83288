"""The folder of a sweep: every run below the hash of its configuration, whole or not at all."""

import contextlib
import datetime
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from dipkernels.base.origin import provenance
from dipkernels.errors import DipkernelsError, InvalidInputError, OutputError
from dipkernels.stages.stage import Measured
from dipkernels.storage.locks import holder
from dipkernels.storage.netcdf import load, replacing, save
from dipkernels.sweep.runs import RESULTS_VERSION, Run

MARKER, FORMAT = "store.json", "dipkernels-sweep-1"
RUN, RESULT, DATASET = "run.json", "result.json", "result.nc"
FAILURE, TRACEBACK = "failure.json", "failure.txt"
DONE, FAILED, RUNNING, MISSING = "done", "failed", "running", "missing"


@dataclass(frozen=True)
class Store:
    """A folder of results.

    Attributes
    ----------
    path : Path
        Of the folder.
    """

    path: Path

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> "Store":
        """Open a store.

        Parameters
        ----------
        path : str or Path
            Of the folder.
        create : bool
            Make it, if there is none.

        Returns
        -------
        Store
            That exists.

        Raises
        ------
        OutputError
            If there is none, it holds something else, or it can't be made.
        """
        store = cls(Path(path))
        marker = store.path / MARKER
        try:
            if marker.exists():
                found = json.loads(marker.read_text(encoding="utf-8")).get("format")
                if found != FORMAT:
                    raise OutputError(f"{path} is a store of another kind ({found}, not {FORMAT})")
                return store
            if not create:
                raise OutputError(f"{path} holds no sweep: 'dipkernels sweep' makes one")
            require_free(store.path)
            store.path.mkdir(parents=True, exist_ok=True)
            for name in ("runs", "sweeps"):
                (store.path / name).mkdir(exist_ok=True)
            write_json({"format": FORMAT, **provenance("cpu")}, marker)
        except OutputError:
            raise
        except (OSError, ValueError, AttributeError) as error:
            raise OutputError(f"can't use {path} as a store: {error}") from error
        return store

    def folder(self, key: str) -> Path:
        """Where a run is, or will be.

        Parameters
        ----------
        key : str
            `Run.key`.

        Returns
        -------
        Path
            It need not exist.
        """
        return self.path / "runs" / key

    def keys(self) -> list[str]:
        """List the runs that were begun.

        Returns
        -------
        list of str
            Sorted.
        """
        return sorted(entry.name for entry in os.scandir(self.path / "runs") if entry.is_dir())

    def begin(self, run: Run) -> None:
        """Write a run's configuration; of one that is held.

        Parameters
        ----------
        run : Run
            Whose folder exists.

        Raises
        ------
        OutputError
            If there's another one under the same hash.
        """
        file = self.folder(run.key) / RUN
        before = read_json(file)
        if before is None:
            content = {**run.record(), "label": run.label, "results": RESULTS_VERSION}
            write_json(content, file, durable=False)  # the result says it again
        elif before.get("configuration") != run.configuration:
            raise OutputError(
                f"{file} isn't what its name says: it was changed by hand, or two configurations "
                "have one hash; move the folder away"
            )

    def result(self, key: str) -> dict[str, Any] | None:
        """Read a run's row.

        Parameters
        ----------
        key : str
            Of the run.

        Returns
        -------
        dict or None
            None if the run isn't done: there's no result, or it can't be read, or its dataset
            isn't there in full length.
        """
        folder = self.folder(key)
        found = read_json(folder / RESULT)
        if found is None or not isinstance(found.get("values"), dict):
            return None
        size = found.get("dataset_bytes", 0)
        if size:
            try:
                if (folder / DATASET).stat().st_size != size:
                    return None
            except OSError:
                return None
        return found

    def failure(self, key: str) -> dict[str, Any] | None:
        """Read why a run failed.

        Parameters
        ----------
        key : str
            Of the run.

        Returns
        -------
        dict or None
            ``reason``, ``kind``, ``attempts`` and when and where.
        """
        return read_json(self.folder(key) / FAILURE)

    def state(self, key: str) -> str:
        """Say how far a run is.

        Parameters
        ----------
        key : str
            Of the run.

        Returns
        -------
        str
            done, failed, running or missing.
        """
        if self.result(key) is not None:
            return DONE
        folder = self.folder(key)
        if not folder.is_dir():
            return MISSING
        who = holder(folder)
        if who is not None and not who.lost():
            return RUNNING
        return MISSING if self.failure(key) is None else FAILED

    def finish(self, run: Run, measured: Measured, seconds: float, device: str) -> None:
        """Store a result; the row is written last and makes the run done.

        Parameters
        ----------
        run : Run
            That was carried out.
        measured : Measured
            What it gave.
        seconds : float
            That it took.
        device : str
            That computed.
        """
        folder = self.folder(run.key)
        size = 0
        if measured.dataset is not None:
            described = measured.dataset.assign_attrs(run=run.key, run_label=run.label)
            save(described, folder / DATASET, classic=True)
            _to_disk(folder / DATASET)
            size = (folder / DATASET).stat().st_size
        row = {
            "label": run.label,
            "asked": run.asked,
            "configuration": run.configuration,
            "values": dict(measured.values),
            "seconds": seconds,
            "dataset_bytes": size,
            **provenance(device),
        }
        write_json(row, folder / RESULT)

    def fail(self, run: Run, reason: str, kind: str, trace: str) -> None:
        """Store why a run failed; earlier failures stay beside.

        Parameters
        ----------
        run : Run
            Whose folder exists.
        reason : str
            One line.
        kind : str
            The error's class.
        trace : str
            Where it came from.
        """
        folder = self.folder(run.key)
        before = self.failure(run.key)
        attempts = 1 if before is None else int(before.get("attempts", 1)) + 1
        if before is not None:
            for name in (FAILURE, TRACEBACK):
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).replace(folder / f"{name}.{attempts - 1}")
        with _writing(folder / TRACEBACK) as partial:
            partial.write_text(trace, encoding="utf-8")
        write_json(
            {"reason": reason, "kind": kind, "attempts": attempts, **provenance("cpu")},
            folder / FAILURE,
        )

    def set_aside(self, key: str) -> list[Path]:
        """Rename what is there of a result that can't be read, so that the run can be repeated.

        Parameters
        ----------
        key : str
            Of a run that is held and not done.

        Returns
        -------
        list of Path
            What it is called now.
        """
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
        moved = []
        for name in (RESULT, DATASET, RUN):
            file = self.folder(key) / name
            if file.exists() and (name != RUN or read_json(file) is None):
                moved.append(file.rename(file.with_name(f"{name}.unreadable-{stamp}")))
        return moved

    def dataset(self, key: str) -> xr.Dataset:
        """Load all that a run gave.

        Parameters
        ----------
        key : str
            Of a run that is done.

        Returns
        -------
        xarray.Dataset
            Curves and images.

        Raises
        ------
        InvalidInputError
            If the run isn't done, or gave a row only.
        """
        row = self.result(key)
        if row is None:
            raise InvalidInputError(f"run {key} isn't done in {self.path}: it's {self.state(key)}")
        if not row["dataset_bytes"]:
            raise InvalidInputError(f"run {key} gave a row of the table only, no dataset")
        try:
            return load(self.folder(key) / DATASET)
        except DipkernelsError as error:
            raise InvalidInputError(
                f"{error}: rename {RESULT} beside it, and the sweep runs it again"
            ) from error

    def note_sweep(self, runs: Mapping[str, str], source: str, text: str, key: str) -> None:
        """Write down what a sweep will run, so that what is missing can be told.

        Parameters
        ----------
        runs : mapping of str to str
            Labels by key.
        source : str
            The plan's file.
        text : str
            The plan.
        key : str
            Of the sweep.
        """
        file = self.path / "sweeps" / f"{key}.json"
        if not file.exists():
            write_json({"source": source, "text": text, "runs": dict(runs)}, file)

    def planned(self) -> dict[str, str]:
        """List the runs of all sweeps that used this store.

        Returns
        -------
        dict of str to str
            Labels by key.
        """
        found: dict[str, str] = {}
        for file in sorted((self.path / "sweeps").glob("*.json")):
            found |= (read_json(file) or {}).get("runs", {})
        return found


def read_json(file: Path) -> dict[str, Any] | None:
    """Read a file of this store."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(content: Mapping[str, Any], file: Path, *, durable: bool = True) -> None:
    """Write a file, whole or not at all."""
    with _writing(file) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        if durable:
            _to_disk(partial)


def require_free(path: Path) -> None:
    """Require that a store can be made."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"can't use {path} as a store: it's a file, not a folder")
    known = (MARKER, "runs", "sweeps")
    if any(item.name not in known and not _is_partial(item) for item in path.iterdir()):
        raise OutputError(f"{path} is not empty and holds no sweep: choose another folder")


@contextlib.contextmanager
def _writing(file: Path) -> Iterator[Path]:
    try:
        with replacing(file) as partial:
            yield partial
    except OSError as error:
        raise OutputError(f"can't write {file}: {error}") from error


def _to_disk(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


def _is_partial(file: Path) -> bool:
    return file.name.startswith(".")
