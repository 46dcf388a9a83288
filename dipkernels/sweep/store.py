"""The folder of a sweep: every run a run folder below its hash, and what the sweeps will run.

``runs/KEY/result.nc`` holds what a run gave, ``result.json`` its row of the table, which is written
last and makes the run done; ``failure.json`` and ``failure.txt`` say why one failed.
"""

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from dipkernels.base.origin import provenance
from dipkernels.errors import DipkernelsError, InvalidInputError, OutputError
from dipkernels.stages.stage import Measured
from dipkernels.storage.hashes import as_json, read_json
from dipkernels.storage.locks import holder
from dipkernels.storage.netcdf import load, renamed, save, write_text
from dipkernels.storage.runs import SETTINGS_FILE, STORE_FILE, RunFolder
from dipkernels.sweep.runs import RESULTS_VERSION, Run

FORMAT = "dipkernels-sweep-1"
OURS = ("kernel", "prediction", "score")  # stages that once said their names otherwise
RESULT, ROW = "result", "result.json"
FAILURE, TRACEBACK = "failure.json", "failure.txt"
DONE, FAILED, RUNNING, MISSING = "done", "failed", "running", "missing"


@dataclass(frozen=True)
class Store:
    """A folder of results of sweeps."""

    path: Path

    @classmethod
    def open(cls, path: str | Path, *, create: bool = False) -> "Store":
        """Open a store, or make it."""
        store = cls(Path(path))
        marker = store.path / STORE_FILE
        try:
            if marker.exists():
                content = read_json(marker)
                if content is None:
                    raise OutputError(f"{marker} is damaged: choose another folder as store")
                found = content.get("format")
                if found != FORMAT:
                    raise OutputError(f"{path} is a store of another kind ({found}, not {FORMAT})")
                return store
            if not create:
                raise OutputError(f"{path} holds no sweep: 'dipkernels sweep' makes one")
            require_free(store.path)
            for name in ("runs", "sweeps"):
                (store.path / name).mkdir(parents=True, exist_ok=True)
            _write({"format": FORMAT, **provenance("cpu")}, marker)
        except OutputError:
            raise
        except (OSError, ValueError, AttributeError) as error:
            raise OutputError(f"can't use {path} as a store: {error}") from error
        return store

    def folder(self, key: str) -> RunFolder:
        """Name the folder of a run, which need not exist."""
        return RunFolder(self.path / "runs" / key)

    def keys(self) -> list[str]:
        """List the runs that were begun, sorted."""
        return sorted(entry.name for entry in os.scandir(self.path / "runs") if entry.is_dir())

    def begin(self, run: Run) -> None:
        """Write a run's configuration; of one that is held."""
        folder = self.folder(run.key)
        before = folder.settings
        if before is None:
            about = {name: value for name, value in asdict(run).items() if name != "configuration"}
            folder.note(run.configuration, label=run.label, results=RESULTS_VERSION, **about)
        elif before != run.configuration:
            raise OutputError(
                f"{folder.path / SETTINGS_FILE} isn't what its name says: it was changed by hand, "
                "or two configurations have one hash; move the folder away"
            )

    def row(self, key: str) -> dict[str, Any] | None:
        """Read a run's row of the table; None if it isn't done, or its dataset isn't whole."""
        folder = self.folder(key)
        found = read_json(folder.path / ROW)
        if found is None or not isinstance(found.get("values"), dict):
            return None
        size = found.get("dataset_bytes", 0)
        try:
            whole = not size or folder.file(RESULT).stat().st_size == size
        except OSError:
            return None
        if not whole:
            return None
        measured = found.get("configuration", {}).get("measure", {}).get("name")
        return {**found, "values": renamed(found["values"])} if measured in OURS else found

    def failure(self, key: str) -> dict[str, Any] | None:
        """Read why a run failed: ``reason``, ``kind``, ``attempts``, when and where."""
        return read_json(self.folder(key).path / FAILURE)

    def state(self, key: str) -> str:
        """Say how far a run is: done, failed, running or missing."""
        if self.row(key) is not None:
            return DONE
        folder = self.folder(key).path
        if not folder.is_dir():
            return MISSING
        who = holder(folder)
        if who is not None and not who.lost():
            return RUNNING
        return MISSING if self.failure(key) is None else FAILED

    def finish(self, run: Run, measured: Measured, seconds: float, device: str) -> None:
        """Store a result; the row comes last."""
        folder, size = self.folder(run.key), 0
        if measured.dataset is not None:
            described = measured.dataset.assign_attrs(run=run.key, run_label=run.label)
            save(described, folder.file(RESULT), classic=True, durable=True)
            size = folder.file(RESULT).stat().st_size
        row = {
            "label": run.label,
            "asked": run.asked,
            "configuration": run.configuration,
            "values": dict(measured.values),
            "seconds": seconds,
            "dataset_bytes": size,
            **provenance(device),
        }
        _write(row, folder.path / ROW)

    def fail(self, run: Run, reason: str, kind: str, trace: str) -> None:
        """Store why a run failed; earlier failures stay beside."""
        folder = self.folder(run.key).path
        before = self.failure(run.key)
        attempts = 1 if before is None else int(before.get("attempts", 1)) + 1
        if before is not None:
            for name in (FAILURE, TRACEBACK):
                with contextlib.suppress(FileNotFoundError):
                    (folder / name).replace(folder / f"{name}.{attempts - 1}")
        write_text(trace, folder / TRACEBACK)
        said = {"reason": reason, "kind": kind, "attempts": attempts, **provenance("cpu")}
        _write(said, folder / FAILURE)

    def set_aside(self, key: str) -> list[Path]:
        """Rename what is there of a run that is held and can't be read, so that it is repeated."""
        folder = self.folder(key)
        names = [ROW, folder.file(RESULT).name]
        return folder.set_aside(*names, *([SETTINGS_FILE] if folder.settings is None else []))

    def dataset(self, key: str) -> xr.Dataset:
        """Load all that a run gave: curves and images."""
        row = self.row(key)
        if row is None:
            raise InvalidInputError(f"run {key} isn't done in {self.path}: it's {self.state(key)}")
        if not row["dataset_bytes"]:
            raise InvalidInputError(f"run {key} gave a row of the table only, no dataset")
        try:
            return load(self.folder(key).file(RESULT))
        except DipkernelsError as error:
            raise InvalidInputError(
                f"{error}: rename {ROW} beside it, and the sweep runs it again"
            ) from error

    def note_sweep(self, runs: Mapping[str, str], source: str, text: str, key: str) -> None:
        """Write down what a sweep will run, so that what is missing can be told."""
        file = self.path / "sweeps" / f"{key}.json"
        if not file.exists():
            _write({"source": source, "text": text, "runs": dict(runs)}, file)

    def planned(self) -> dict[str, str]:
        """List the labels by key of the runs of all sweeps that used this store."""
        found: dict[str, str] = {}
        for file in sorted((self.path / "sweeps").glob("*.json")):
            found |= (read_json(file) or {}).get("runs", {})
        return found


def require_free(path: Path) -> None:
    """Require that a store can be made."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"can't use {path} as a store: it's a file, not a folder")
    known = (STORE_FILE, "runs", "sweeps")
    if any(item.name not in known and not item.name.startswith(".") for item in path.iterdir()):
        raise OutputError(f"{path} is not empty and holds no sweep: choose another folder")


def _write(content: Mapping[str, Any], file: Path) -> None:
    write_text(as_json(content), file, durable=True)
