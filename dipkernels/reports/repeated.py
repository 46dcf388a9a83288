"""A table that was made again, beside the one that was kept: what is beyond its spread."""

import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from dipkernels.errors import InvalidInputError

DEVIATIONS = 3.0  # of the spread that may lie between two runs
SHARE = 0.05  # of a column's root mean square, where nothing tells its spread
ENDINGS = ("spread", "sd", "std", "standard error", "error")
TIMES = ("seconds", "created", "device")  # differ from run to run
SHOWN = 12  # differences


@dataclass
class TableCheck:
    """How a table agrees with the kept one; each column is in one of the lists."""

    name: str
    rows: int = 0
    keys: list[str] = field(default_factory=list)  # tell rows apart, and must be equal
    by_spread: list[str] = field(default_factory=list)  # a column beside it
    by_seeds: list[str] = field(default_factory=list)  # its spread over seeds in the kept table
    by_share: list[str] = field(default_factory=list)  # neither: `SHARE`
    skipped: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdict = f"{len(self.beyond)} beyond" if self.beyond else "agrees"
        lines = [f"{self.name}: {self.rows} rows, {verdict}"]
        for words, names in (
            ("rows are found by", self.keys),
            (f"within {DEVIATIONS:g} of the spread in a column beside them", self.by_spread),
            (f"within {DEVIATIONS:g} standard deviations over the seeds kept", self.by_seeds),
            (f"no spread is kept, within {SHARE:.0%} of the column's r.m.s.", self.by_share),
            ("not compared", self.skipped),
        ):
            lines += [f"  {words}: {', '.join(names)}"] if names else []
        more = len(self.beyond) - SHOWN
        shown = [*self.beyond[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
        lines += [f"  beyond: {each}" for each in shown]
        return "\n".join(textwrap.fill(line, 80, subsequent_indent="    ") for line in lines)


def check_tables(made: Path, kept: Path) -> list[TableCheck]:
    """Compare every CSV of a folder that is kept with that of its name in a folder made now."""
    found = []
    for path in sorted(kept.glob("*.csv")):
        check = TableCheck(path.name)
        if (made / path.name).exists():
            _compare(check, pd.read_csv(made / path.name), pd.read_csv(path))
        else:
            check.beyond.append("the table isn't there")
        found.append(check)
    if not found:
        raise InvalidInputError(f"{kept} holds no table (*.csv) to compare with")
    return found


def _compare(check: TableCheck, made: pd.DataFrame, kept: pd.DataFrame) -> None:
    check.rows = len(kept)
    if missing := [name for name in kept if name not in made]:
        check.beyond.append(f"columns that aren't there: {', '.join(missing)}")
        return
    keys = check.keys = _keys(kept)
    check.skipped += [name for name in kept if name in TIMES]
    spreads = {name: beside for name in kept if (beside := _spread_of(name, kept))}
    left = [n for n in kept if n not in (*keys, *spreads.values(), *check.skipped)]
    before, now = (table.set_index(_index(table, keys)) for table in (kept, made))
    lacking = [row for row in before.index if row not in now.index]
    check.beyond += [f"the row {row} isn't there" for row in lacking]
    before = before.drop(index=lacking)
    now = now.loc[before.index]
    groups = [key for key in keys if key != "seed"]
    for name in left:
        widths = _widths(check, name, before, spreads.get(name), groups if "seed" in kept else None)
        _tell(check, name, now[name], before[name], widths)


# As few columns as tell rows apart: words and seeds, then numbers that take few values.
def _keys(table: pd.DataFrame) -> list[str]:
    def rank(name: str) -> int:
        column = table[name]
        if column.dtype == bool:
            return 2
        if not _is_number(column) or name.endswith("seed"):
            return 0
        return 1 if column.nunique() <= len(table) / 2 else 2

    keys: list[str] = []
    ranks = {name: rank(name) for name in table if _spread_of(name, table) is None}
    for name in sorted((name for name in ranks if ranks[name] < 2), key=lambda name: ranks[name]):
        if len(table) < 2 or (keys and not table.duplicated(keys).any()):
            break
        keys.append(name)
    return [name for name in table if name in keys]


# Rows that no key tells apart are numbered.
def _index(table: pd.DataFrame, keys: list[str]) -> pd.Index:
    words = [[f"{v:.6g}" if isinstance(v, float) else str(v) for v in table[key]] for key in keys]
    named = pd.Series([", ".join(row) for row in zip(*words, strict=True)] or [""] * len(table))
    number = named.groupby(named).cumcount()
    return pd.Index(
        [f"{name} ({n + 1})" if n else name for name, n in zip(named, number, strict=True)]
    )


def _spread_of(name: str, table: pd.DataFrame) -> str | None:
    stem = name.removesuffix("_mean")
    names = (f"{stem}{gap}{end.replace(' ', gap)}" for end in ENDINGS for gap in "_ ")
    return next((each for each in names if each in table and _is_number(table[each])), None)


def _widths(
    check: TableCheck, name: str, kept: pd.DataFrame, beside: str | None, groups: list[str] | None
) -> np.ndarray:
    """Give what each entry may differ by, and note of what kind that is."""
    values = kept[name]
    if not _is_number(values):
        return np.zeros(len(kept))
    share = SHARE * float(np.sqrt(np.nanmean(np.square(values.astype(float))))) if len(kept) else 0
    widths = np.full(len(kept), np.nan)
    if beside is not None:
        widths = DEVIATIONS * kept[beside].to_numpy(float)
    elif groups is not None:
        by = kept.groupby(groups)[name] if groups else None
        spread = by.transform("std") if by is not None else np.full(len(kept), values.std())
        widths = DEVIATIONS * np.asarray(spread, dtype=float)
    told = np.isfinite(widths) & (widths > 0)
    kind = (
        check.by_share if not told.any() else check.by_seeds if beside is None else check.by_spread
    )
    kind.append(name)
    # numbers are kept with six digits
    return np.asarray(np.where(told, widths, share) + 1e-5 * np.abs(values.to_numpy(float)))


def _tell(
    check: TableCheck, name: str, now: pd.Series, before: pd.Series, widths: np.ndarray
) -> None:
    for row, here, there, width in zip(before.index, now, before, widths, strict=True):
        if (pd.isna(here) and pd.isna(there)) or here == there:
            continue
        numbers = all(isinstance(each, int | float) for each in (here, there))
        if numbers and abs(here - there) <= width:
            continue
        by = f", beyond {width:.2g}" if numbers else ""
        check.beyond.append(f"{row}: {name} {_shown(there)} kept, {_shown(here)} now{by}")


def _is_number(column: pd.Series) -> bool:
    return bool(pd.api.types.is_numeric_dtype(column)) and column.dtype != bool


def _shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
