"""What a store holds: a table of all runs, and how far they are."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.sweep.plan import Sweep
from dipkernels.sweep.runs import Run
from dipkernels.sweep.store import DONE, FAILED, MISSING, RUNNING, Store

KINDS = ("dataframe", "dataset")
UNITS = {"seconds": "s"} | dict.fromkeys(("score", "score_lower", "score_upper"), "dB")


@dataclass(frozen=True)
class Status:
    """How far a sweep is: labels by key, of what failed with the reason."""

    done: dict[str, str] = field(default_factory=dict)
    failed: dict[str, tuple[str, str]] = field(default_factory=dict)
    running: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        counts = [f"{len(getattr(self, name))} {name}" for name in (DONE, FAILED, RUNNING, MISSING)]
        lines = [", ".join(counts)]
        for name in (RUNNING, MISSING):
            lines += [f"  {name}: {label}" for label in getattr(self, name).values()]
        lines += [f"  {FAILED}: {label}: {reason}" for label, reason in self.failed.values()]
        return "\n".join(lines)


@checked
def status(store: str | Path, plan: Sweep | None = None) -> Status:
    """Say which runs are done, failed and why, running or missing.

    Parameters
    ----------
    store : str or Path
        Of a sweep.
    plan : Sweep, optional
        Whose runs count; by default those of all sweeps that used the store.

    Returns
    -------
    Status
        Labels by key of what is ``done``, ``running`` and ``missing``, label and reason of what
        has ``failed``; ``print`` shows it.

    Raises
    ------
    OutputError
        If there's no store.
    """
    opened = Store.open(store)
    found = Status()
    for key, label in _labels(opened, plan).items():
        state = opened.state(key)
        if state == FAILED:
            failure = opened.failure(key) or {}
            found.failed[key] = (label, str(failure.get("reason", "unknown")))
        else:
            getattr(found, state)[key] = label
    return found


@checked
def table(
    store: str | Path, kind: str = "dataframe", *, plan: Sweep | None = None
) -> pd.DataFrame | xr.Dataset:
    """Collect all runs that are done, a row each.

    Parameters
    ----------
    store : str or Path
        Of a sweep.
    kind : {"dataframe", "dataset"}
        Of pandas; or of xarray, over ``run``.
    plan : Sweep, optional
        Whose runs count; by default all.

    Returns
    -------
    pandas.DataFrame or xarray.Dataset
        The index, ``run``, is the hash. Columns: ``prior``, ``task``, ``image``, ``size``,
        ``seed``, ``measure``, and their options where a plan says them for any run, such as
        ``prior.width`` or ``measure.iterations``, with the value that each run had; ``seconds`` and
        ``device``; then what was measured. Missing (NaN) where a measurement doesn't give it.

    Raises
    ------
    InvalidInputError
        If the kind is unknown.
    OutputError
        If there's no store.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"kind must be one of {KINDS}, got '{kind}'")
    opened = Store.open(store)
    keys = _labels(opened, plan)
    rows = {key: row for key in keys if (row := opened.row(key)) is not None}
    asked = list(dict.fromkeys(name for row in rows.values() for name in row["asked"]))
    asked.sort(key=lambda name: "." in name)
    lines = {}
    for key, row in rows.items():
        lines[key] = {name: _asked(row, name) for name in asked}
        lines[key] |= {"seconds": row["seconds"], "device": row["device"], **row["values"]}
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index.name = "run"
    return frame if kind == "dataframe" else _as_dataset(frame)


@checked
def over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Put runs together that differ in nothing but their seed.

    Parameters
    ----------
    frame : pandas.DataFrame
        From `table`.

    Returns
    -------
    pandas.DataFrame
        A row for each configuration, in the order of its first run: its columns, ``seeds`` (how
        many runs), and for each number that was measured ``NAME`` (the mean) and ``NAME_spread``
        (the standard deviation, with n - 1; NaN of one run).
    """
    measured = frame.columns.get_loc("device") + 1
    keys = [name for name in frame.columns[: measured - 2] if name != "seed"]
    numbers = frame.iloc[:, measured:].select_dtypes("number").columns
    groups = frame.groupby(keys, sort=False, dropna=False)
    found = groups.size().rename("seeds").to_frame()
    for name in numbers:
        found[name] = groups[name].mean()
        found[f"{name}_spread"] = groups[name].std(ddof=1)
    return found.reset_index()


@checked
def load_result(store: str | Path, run: str | Run) -> xr.Dataset:
    """Load all that a run gave: of a fit its curves and images.

    Parameters
    ----------
    store : str or Path
        Of a sweep.
    run : str or Run
        Its key, as in the table's index, or enough of the beginning of it.

    Returns
    -------
    xarray.Dataset
        As the measurement returned it.

    Raises
    ------
    InvalidInputError
        If it isn't done, gave no dataset, or the beginning isn't that of exactly one run.
    OutputError
        If there's no store.
    """
    opened = Store.open(store)
    key = run.key if isinstance(run, Run) else str(run)
    matches = [each for each in opened.keys() if each.startswith(key)]  # noqa: SIM118
    if len(matches) != 1 and not isinstance(run, Run):
        raise InvalidInputError(f"{len(matches)} runs in {store} begin with '{key}': give more")
    return opened.dataset(matches[0] if matches else key)


def _labels(store: Store, plan: Sweep | None) -> dict[str, str]:
    if plan is not None:
        return {each.key: each.label for each in plan.runs}
    begun = {}
    planned = store.planned()
    for key in store.keys():  # noqa: SIM118
        if key not in planned:
            begun[key] = str(store.folder(key).record.get("label", key))
    return {**planned, **begun}


# What a column says of a run: as its plan does, else from its full configuration.
def _asked(record: dict[str, Any], column: str) -> Any:
    said = record["asked"]
    if column in said:
        return _cell(said[column])
    group, _, option = column.partition(".")
    settings = record["configuration"].get(group, {})
    if group == "prior" and option not in settings:
        settings = settings.get("options", {})
    return _cell(settings.get(option)) if isinstance(settings, dict) else None


def _cell(value: Any) -> Any:
    return str(value) if isinstance(value, list | dict) else value


def _as_dataset(frame: pd.DataFrame) -> xr.Dataset:
    columns: dict[str, tuple[str, np.ndarray]] = {}
    for name in frame.columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column):
            columns[str(name)] = ("run", column.to_numpy())
            continue
        if any(isinstance(value, str) for value in column):
            words = ["" if pd.isna(value) else str(value) for value in column]
            columns[str(name)] = ("run", np.array(words, dtype=str))
        else:
            columns[str(name)] = ("run", column.to_numpy(dtype=float))
    dataset = xr.Dataset(
        columns,
        {"run": frame.index.to_numpy(dtype=str)},
    )
    for name, values in dataset.data_vars.items():
        unit = "dB" if "psnr" in str(name) else UNITS.get(str(name))
        if unit is not None and values.dtype.kind == "f":
            values.attrs["units"] = unit
    return dataset
