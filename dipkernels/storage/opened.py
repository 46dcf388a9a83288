"""What a command left on disk, read back: `open_run`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from dipkernels.base import displays
from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.storage.hashes import read_json
from dipkernels.storage.netcdf import load
from dipkernels.storage.runs import SETTINGS_FILE, STORE_FILE, RunFolder

if TYPE_CHECKING:
    import pandas as pd


class StoredStages(Mapping[str, xr.Dataset]):
    """The datasets of a folder by name, each read when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            file.relative_to(folder).with_suffix("").as_posix(): file
            for file in sorted(folder.rglob("*.nc"))
        }

    def __getitem__(self, name: str) -> xr.Dataset:
        if name not in self._files:
            raise KeyError(f"no stage {name!r}: there are {', '.join(self._files) or 'none'}")
        return load(self._files[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"StoredStages({', '.join(self._files)})"


@checked
@dataclass(frozen=True)
class OpenedRun:
    """A run folder to read.

    Attributes
    ----------
    path : Path
        Of the folder.
    settings : dict
        All that the results depend on; of a sweep, its plans as text by file.
    about : dict
        Versions, device, when it began.
    stages : mapping of str to xarray.Dataset
        By name, as ``"skip/fit_adam"``, or ``"runs/KEY/result"`` of a sweep; read when asked for.
    """

    path: Path
    settings: dict[str, Any]
    about: dict[str, Any]
    stages: StoredStages

    def table(self, name: str | None = None) -> "pd.DataFrame":
        """Read a table of the folder.

        Parameters
        ----------
        name : str, optional
            Of its CSV file, without the ending; not needed where there is one. A sweep has none
            of its own, but ``"runs"``: what each run measured, by hash.

        Returns
        -------
        pandas.DataFrame
            As it was written.

        Raises
        ------
        InvalidInputError
            If there is no such table, or several and no name.
        """
        import pandas as pd

        files = {f.relative_to(self.path).with_suffix("").as_posix(): f for f in self._tables()}
        names = [*files, *(["runs"] if (self.path / STORE_FILE).exists() else [])]
        chosen = names[0] if name is None and len(names) == 1 else name
        if chosen not in names:
            asked = "has" if name is None else f"has no table '{name}':"
            raise InvalidInputError(f"{self.path} {asked} {', '.join(names) or 'no table'}")
        if chosen in files:
            return pd.read_csv(files[chosen])
        rows = {f.parent.name: read_json(f) for f in sorted(self.path.glob("runs/*/result.json"))}
        parts = ("asked", "values")
        whole = {key: row for key, row in rows.items() if row and all(p in row for p in parts)}
        lines = {key: {**row["asked"], **row["values"]} for key, row in whole.items()}
        return pd.DataFrame.from_dict(lines, orient="index").rename_axis("run")

    def _repr_html_(self) -> str:
        return displays.of_run(self.path, self.settings, self.about, self.stages)

    def _tables(self) -> list[Path]:
        return sorted(self.path.rglob("*.csv"))


@checked
def open_run(path: str | Path) -> OpenedRun:
    """Open what a command, an experiment or a sweep has stored.

    Parameters
    ----------
    path : str or Path
        Of the folder: ``--output``, a sweep's store, or one of its runs.

    Returns
    -------
    OpenedRun
        Its settings, stages and tables. Nothing is read but the settings.

    Raises
    ------
    InvalidInputError
        If the folder holds no run, or what it holds can't be read.

    Examples
    --------
    >>> import tempfile
    >>> import xarray as xr
    >>> from dipkernels.storage import RunFolder
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = RunFolder.open(Path(folder), {"prior": "skip"})
    ...     _ = written.stage("kernel", lambda: xr.Dataset({"trace": 2.0}))
    ...     opened = open_run(folder)
    ...     opened.settings, float(opened.stages["kernel"].trace)
    ({'prior': 'skip'}, 2.0)
    """
    folder = Path(path)
    if (folder / STORE_FILE).exists():
        about = read_json(folder / STORE_FILE)
        settings: Any = {}
        for file in sorted((folder / "sweeps").glob("*.json")):
            each = read_json(file) or {}
            source = str(each.get("source"))
            # an edited file has run twice under one name
            name = f"{source} ({file.stem})" if source in settings else source
            settings[name] = each.get("text")
    else:
        about = RunFolder(folder).record
        settings = about.pop("settings", None)
    if about is None or not isinstance(settings, dict):
        has = f"its {SETTINGS_FILE} can't be read" if (folder / SETTINGS_FILE).exists() else ""
        raise InvalidInputError(
            f"{path} {has or 'holds no run'}: give the folder that a command said at its end "
            "(--output), a sweep's store, or one of a store's runs"
        )
    return OpenedRun(folder, settings, about, StoredStages(folder))
