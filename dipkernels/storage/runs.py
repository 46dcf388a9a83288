"""Run folders: results on disk as soon as they exist, resumable, never overwritten by others."""

import contextlib
import datetime
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.files import PARTIAL
from dipkernels.base.interruption import Interrupted
from dipkernels.base.origin import now, provenance, session
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.storage.hashes import as_json, is_whole, read_json
from dipkernels.storage.netcdf import OURS, load, save, write_text

logger = logging.getLogger(__name__)

SETTINGS_FILE = "run.json"
STORE_FILE = "store.json"  # of a sweep, whose runs are run folders
HASH = "_sha256"  # ends the names of settings that are fingerprints of arrays
MOST_KEPT = 50  # commands that continued a run
MOST_SHOWN, LONGEST_SHOWN = 8, 60  # differences, and characters of a value


@checked
@dataclass(frozen=True)
class RunFolder:
    """A folder of results of one command with one set of settings.

    Attributes
    ----------
    path : Path
        Of the folder.
    """

    path: Path

    @classmethod
    def open(cls, path: Path, settings: dict[str, Any], **about: Any) -> "RunFolder":
        """Create a run folder, or open the one that holds a run with the same settings.

        Parameters
        ----------
        path : Path
            Of the folder; parents are created.
        settings : dict
            All that the results depend on, fit for JSON.
        **about
            What else is written down with them when the folder is made.

        Returns
        -------
        RunFolder
            With its settings written. ``run.json`` says which command line began it, when and from
            which commit, and the same of each that continued it.

        Raises
        ------
        OutputError
            If it can't be written, or holds something else.
        """
        folder = cls(path)
        try:
            path.mkdir(parents=True, exist_ok=True)
            if (path / SETTINGS_FILE).exists():
                before = folder.settings
                if not isinstance(before, dict):
                    raise OutputError(
                        f"{path / SETTINGS_FILE} is damaged, or no file of this package: move "
                        "the folder away, or choose another --output"
                    )
                _require_equal(before, json.loads(json.dumps(settings)), path)
                folder._add(continued=[*folder.record.get("continued", ()), session()][-MOST_KEPT:])
                return folder
            # What a process that was killed has left doesn't count, nor what one is just writing.
            others = any(not item.name.endswith(PARTIAL) for item in path.iterdir())
            if others and (path / SETTINGS_FILE).exists():  # another process was faster
                return cls.open(path, settings, **about)
            if others:
                raise OutputError(
                    f"{path} is not empty and holds no run of dipkernels: choose another --output"
                )
            folder.note(settings, **about)
        except OutputError:
            raise
        except (OSError, ValueError) as error:
            raise OutputError(f"can't use {path} as output folder: {error}") from error
        return folder

    def note(self, settings: dict[str, Any], **about: Any) -> None:
        """Write down what is run, and what else is to be said about it.

        Parameters
        ----------
        settings : dict
            All that the results depend on, fit for JSON.
        **about
            Anything else, fit for JSON.

        Raises
        ------
        InvalidInputError
            If they aren't fit for JSON.
        """
        record = {"settings": settings, **about, **session(), **provenance("cpu")}
        try:
            text = as_json(record, indent=2)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidInputError(f"settings must be fit for JSON: {error}") from error
        write_text(text, self.path / SETTINGS_FILE)

    def finish(self) -> None:
        """Write down that the command came to its end, and when."""
        self._add(finished=now())

    def leave(self) -> None:
        """Remove a folder that holds nothing but its settings: what was asked for can't be done."""
        with contextlib.suppress(OSError):
            if [item.name for item in self.path.iterdir()] == [SETTINGS_FILE]:
                (self.path / SETTINGS_FILE).unlink()
                self.path.rmdir()

    def differences(self, settings: dict[str, Any]) -> list[str]:
        """Say in words how settings differ from those of the folder.

        Parameters
        ----------
        settings : dict
            Fit for JSON.

        Returns
        -------
        list of str
            Empty where a folder of these settings would be continued.
        """
        return _differences(self.settings or {}, json.loads(json.dumps(settings)))

    def amend(self, settings: dict[str, Any]) -> None:
        """Take other settings for those of the folder, whose results go on under them.

        Parameters
        ----------
        settings : dict
            Fit for JSON. ``run.json`` keeps those before under ``amended``.
        """
        before = {"settings": self.settings, "until": now()}
        self._add(settings=settings, amended=[*self.record.get("amended", ()), before])

    def join(self, loaded: dict[str, dict[str, str]]) -> None:
        """Write down networks of files, by label, that join a folder of several.

        Parameters
        ----------
        loaded : dict of str to dict
            Of each its ``source``, ``file`` and ``content_sha256``.

        Raises
        ------
        OutputError
            If the folder's results of a label are of another file, or of another version of it.
        """
        before = self.record.get("loaded", {})
        for label, here in loaded.items():
            there = before.get(label, here)
            if there["content_sha256"] != here["content_sha256"]:
                raise OutputError(
                    f"{self.path} holds results of {label} from {there['file']} as it was then: "
                    f"{here['file']} has another content; choose another --output"
                )
        if {**before, **loaded} != before:
            self._add(loaded={**before, **loaded})

    # Where it can't be written, what is there is only read.
    def _add(self, **about: Any) -> None:
        file = self.path / SETTINGS_FILE
        with contextlib.suppress(OutputError):
            if found := read_json(file):
                write_text(as_json({**found, **about}, indent=2), file)

    @property
    def record(self) -> dict[str, Any]:
        """All that was written down when the run began: settings, versions, when and where."""
        found = read_json(self.path / SETTINGS_FILE) or {}
        if "configuration" in found:  # of a sweep, before it shared this layout
            found["settings"] = found.pop("configuration")
        return found

    @property
    def settings(self) -> dict[str, Any] | None:
        """All that the results depend on; None if nothing was written, or it can't be read."""
        found = self.record.get("settings")
        return found if isinstance(found, dict) else None

    def stage(
        self,
        name: str,
        compute: Callable[[], xr.Dataset],
        *,
        keep_checkpoint: bool = False,
        classic: bool = False,
    ) -> xr.Dataset:
        """Return a stored result, or compute and store it.

        Parameters
        ----------
        name : str
            Of the result, for instance ``"skip/fit_adam"``.
        compute : callable
            Makes the dataset.
        keep_checkpoint : bool
            Whether a `checkpoint` of that name stays when the result is stored.
        classic : bool
            Store it as `dipkernels.storage.save` does with this option: for many small results.

        Returns
        -------
        xarray.Dataset
            Stored under the name. One that was interrupted is computed anew.

        Raises
        ------
        Interrupted
            On Ctrl-C during a fit, after what there was has been stored.

        Notes
        -----
        A fit that has a `checkpoint` of the same name continues from it.
        """
        file = self.file(name)
        stored = self.stored(name)
        if stored is not None and not is_interrupted(stored):
            logger.info("%s was done before: read from %s", name, file)
            return stored
        logger.info("%s begins", name)
        file.parent.mkdir(exist_ok=True)
        try:
            result = compute()
        except Interrupted as interrupt:
            longer = stored is None or _length(interrupt.result) >= _length(stored)
            if longer:
                save(interrupt.result, file)
                logger.info("%s was interrupted: what there is of it is in %s", name, file)
            raise
        save(result, file, classic=classic)
        if not keep_checkpoint:
            self.checkpoint(name).unlink(missing_ok=True)
        return result

    def stored(self, name: str) -> xr.Dataset | None:
        """Load a stored result.

        Parameters
        ----------
        name : str
            Of the result.

        Returns
        -------
        xarray.Dataset or None
            None if there is none, or it can't be read (it is computed anew then).

        Raises
        ------
        OutputError
            If it isn't of this package, or may not be read.
        """
        file = self.file(name)
        if not file.exists():
            return None
        try:
            found = load(file)
        except InvalidInputError as error:
            logger.warning("%s counts as not done: %s", name, error)
            return None
        if OURS not in found.attrs and is_whole(file) is None:
            raise OutputError(f"{file} is no result of this package: move it away")
        return found

    def checkpoint(self, name: str) -> Path:
        """Path of the checkpoint of a fit.

        Parameters
        ----------
        name : str
            Of the result.

        Returns
        -------
        Path
            Below the folder; it need not exist.
        """
        return self.path / f"{name}.safetensors"

    def set_aside(self, *names: str) -> list[Path]:
        """Rename files, so that what they hold can be made anew and nothing is lost.

        Parameters
        ----------
        *names : str
            Of files in the folder; those that aren't there are passed over.

        Returns
        -------
        list of Path
            What they are called now.
        """
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
        files = [self.path / name for name in names]
        return [f.rename(f.with_name(f"{f.name}.unreadable-{stamp}")) for f in files if f.exists()]

    def file(self, name: str) -> Path:
        """Path of a result.

        Parameters
        ----------
        name : str
            Of the result.

        Returns
        -------
        Path
            Below the folder; it need not exist.
        """
        return self.path / f"{name}.nc"


@checked
def is_interrupted(result: xr.Dataset) -> bool:
    """Tell whether a fit was cut off by Ctrl-C.

    Parameters
    ----------
    result : xarray.Dataset
        Any; of several runs, each has a status.

    Returns
    -------
    bool
        True if it could go on.
    """
    status: Any = result["status"].values if "status" in result else result.attrs.get("status")
    return "interrupted" in np.ravel(status).tolist()


@checked
def default_folder(label: str) -> Path:
    """Choose a new folder for a run.

    Parameters
    ----------
    label : str
        What is run.

    Returns
    -------
    Path
        Below ``runs/``, with the time in its name; it doesn't exist yet.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path = Path("runs") / f"{label}-{stamp}"
    number = 2
    while path.exists():
        path = Path("runs") / f"{label}-{stamp}-{number}"
        number += 1
    return path


def _length(result: xr.Dataset) -> int:
    return int(result.sizes.get("iteration", 0))


def _require_equal(before: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    command = before.get("command")
    if command is not None and command != now.get("command"):
        raise OutputError(
            f"{path} holds a run of 'dipkernels {command}', another command: choose another "
            "--output"
        )
    found = _differences(before, now)
    if found:
        more = f"; and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
        raise OutputError(
            f"{path} holds a run with other settings ({'; '.join(found[:MOST_SHOWN])}{more}): "
            "choose another --output"
        )


# In words: what stands under a hash is named, not the hash; long values aren't shown.
def _differences(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key in sorted({*before, *now}):
        name, there, here = f"{prefix}{key}", before.get(key), now.get(key)
        if there == here:  # None is as good as nothing: an option that an earlier version lacked
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            found += _differences(there, here, f"{name}.")
        elif key not in before or key not in now:
            found.append(f"{name}: {'not there' if key not in before else 'not now'}")
        elif key.endswith(HASH):
            found.append(
                f"another {key.removesuffix(HASH)}{f' of {prefix[:-1]}' if prefix else ''}"
            )
        elif max(len(str(there)), len(str(here))) > LONGEST_SHOWN:
            found.append(f"{name} differs")
        else:
            found.append(f"{name}: {there} there, {here} now")
    return found
