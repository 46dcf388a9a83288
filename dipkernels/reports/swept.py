"""The page of a sweep: who leads, means over seeds, any quantity along any axis, all runs."""

import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from dipkernels import sweep
from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.plotting.style import PALETTE
from dipkernels.reports import charts
from dipkernels.reports.citing import reopening
from dipkernels.reports.interactive import shared_fields
from dipkernels.reports.pages import write_page
from dipkernels.reports.verdicts import listed, told_apart
from dipkernels.storage.opened import open_run
from dipkernels.storage.runs import RunFolder
from dipkernels.sweep.tables import Status

if TYPE_CHECKING:
    from bokeh.plotting import figure

PAGE = "index.html"
BYTES = 3_000_000  # of the rows of all runs
MOST_POINTS = 20_000
MOST_LEVELS = 60  # of an axis that can be read
# Of which more is better; the first that was measured leads the page.
SCORES = ("peak_psnr", "score", "mean_psnr", "predicted_peak_psnr")
CHART = (
    "What was measured along an axis",
    "A small point is a run, a large one the mean of all runs at that place, whatever else differs "
    "between them; its bar is their standard deviation.",
)
MEANINGS = {
    "run": "Beginning of the run's key, which sweep.load_result takes.",
    "seeds": "Number of runs that differ only in their seed.",
    "seconds": "Time that the run took.",
    "peak_psnr": "Highest PSNR to the clean image, in dB.",
    "score": "Peak that the kernel predicts, in dB.",
}
REOPENED = """from dipkernels import sweep

table = sweep.table(run.path)  # a pandas.DataFrame, a row each run
together = sweep.over_seeds(table)  # mean and standard deviation"""


@checked
def sweep_page(store: str | Path) -> Path:
    """Write the page of a sweep, as far as it is done.

    Parameters
    ----------
    store : str or Path
        Of the sweep.

    Returns
    -------
    Path
        Of ``index.html`` in the store, which works without the other files and without a network.

    Raises
    ------
    OutputError
        If there is no store.

    Notes
    -----
    The page takes at most 6 MB: of many thousand runs it lists the first, and says so.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import sweep
    >>> fit = {"name": "fit", "iterations": 2}
    >>> plan = sweep.load({"priors": "vit", "images": "camera", "sizes": 8, "measure": fit})
    >>> with tempfile.TemporaryDirectory() as store:
    ...     _ = sweep.run(plan, store)
    ...     page = sweep_page(store)
    ...     page.name, "1 run is done." in page.read_text()
    ('index.html', True)
    """
    frame: pd.DataFrame = sweep.table(store)
    if not len(frame):  # of no run there's no column either
        frame = pd.DataFrame(columns=["prior", "seconds", "device"])
    state, opened = sweep.status(store), open_run(store)
    asked = _asked(frame)
    measured = _measured(frame)
    together = sweep.over_seeds(frame) if len(frame) else frame
    seeds = int(together["seeds"].max()) if len(frame) else 1
    verdict = [_counts(state), *_leaders(together, asked, measured)]
    runs, left_out = _runs(frame, asked, measured)
    tables = [_summary(together, asked, measured)] if seeds > 1 else []
    tables += [runs] if runs["rows"] else []
    notes = [spread_note(seeds)]
    if left_out:
        notes.append(f"{left_out} further runs are in the table of sweep-table STORE --csv FILE.")
    return write_page(
        RunFolder(opened.path),
        PAGE,
        "results",
        record={**opened.about, "settings": {}},
        title=f"sweep in {opened.path.name}",
        question="What came of the sweep?",
        sound=not (state.failed or state.missing),
        verdict=" ".join(verdict),
        lead=f"Runs of {listed([*opened.settings] or ['no plan'])}, in the store {opened.path}.",
        plans=opened.settings,
        failures=list(state.failed.values()),
        notes=notes,
        python=reopening(opened.path, REOPENED),
        figures=[],
        further=tables,
        **_moving(frame, asked, measured),
    )


# What the plan says of runs, and differs between them; the prior in any case.
def _asked(frame: pd.DataFrame) -> list[str]:
    names = [str(name) for name in frame.columns[: frame.columns.get_loc("seconds")]]
    differing = [name for name in names if frame[name].nunique(dropna=False) > 1]
    return differing if "prior" in differing or not len(frame) else ["prior", *differing]


# What differs of what was measured, scores first, then the time.
def _measured(frame: pd.DataFrame) -> list[str]:
    names = [str(name) for name in frame.columns[frame.columns.get_loc("device") + 1 :]]
    shown = [name for name in names if len(frame) == 1 or frame[name].nunique(dropna=False) > 1]
    return [*sorted(shown, key=lambda name: name not in SCORES), "seconds"]


def _counts(state: Status) -> str:
    count = len(state.done)
    said = f"{count} run{'' if count == 1 else 's'} {'is' if count == 1 else 'are'} done"
    others = [
        f"{len(getattr(state, word))} {word}"
        for word in ("failed", "running", "missing")
        if getattr(state, word)
    ]
    return f"{listed([said, *others])}."


def _leaders(together: pd.DataFrame, asked: Sequence[str], measured: Sequence[str]) -> list[str]:
    """Say which network leads in how many settings, by means over seeds, and whether it's told."""
    score = next((name for name in SCORES if name in measured), None)
    if score is None:
        return []
    ours = [name for name in asked if name.partition(".")[0] == "prior"]
    setting = [name for name in asked if name not in ours and name != "seed"]
    scored = together[together[score].notna()]
    groups = [g for _, g in scored.groupby(setting, dropna=False)] if setting else [scored]
    won: Counter[str] = Counter()
    close = 0
    for group in groups:
        if len(group) < 2:
            continue
        one, other = group.nlargest(2, score).to_dict("records")
        won[_words(one, ours)] += 1
        several = min(one["seeds"], other["seeds"]) > 1
        close += several and not told_apart(one, other, score)
    if not won:
        return [] if not len(scored) else [_range(scored, score, asked)]
    of = sum(won.values())
    (first, most), *others = won.most_common(5)
    also = listed([f"{name} in {count}" for name, count in others]) if others else ""
    where = "" if of == 1 else f" in {most} of {of} settings"
    said = [f"By {score}, {first} leads{where}{f', {also}' * bool(also)}."]
    if int(scored["seeds"].max()) == 1:
        said.append("With one seed, this may be chance.")
    elif close:
        there = "The" if of == 1 else f"In {close} the"
        said.append(f"{there} second can't be distinguished from the first with these seeds.")
    return said


def _range(scored: pd.DataFrame, score: str, asked: Sequence[str]) -> str:
    low, high = float(scored[score].min()), float(scored[score].max())
    if len(scored) == 1 or low == high:
        return f"{score} is {high:.4g}."
    return f"{score} runs from {low:.4g} to {high:.4g}."


def _words(row: dict[str, Any], names: Sequence[str]) -> str:
    shown = {name.partition(".")[2]: _text(row[name]) for name in names if "." in name}
    options = [f"{name}={text}" for name, text in shown.items() if text != "-"]
    return f"{row['prior']} ({', '.join(options)})" if options else str(row["prior"])


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN isn't itself
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cell(value: Any) -> dict[str, object]:
    text = _text(value)
    return {"text": text, "sort": "" if text == "-" else value}


def _head(frame: pd.DataFrame, names: Sequence[str]) -> list[dict[str, object]]:
    return [
        {
            "title": name.replace("_", "_\u200b").replace(".", ".\u200b"),  # where it may break
            "meaning": MEANINGS.get(name, "As the plan says." if name in frame else ""),
            "words": name in frame and not pd.api.types.is_numeric_dtype(frame[name]),
        }
        for name in names
    ]


def _runs(
    frame: pd.DataFrame, asked: Sequence[str], measured: Sequence[str]
) -> tuple[dict[str, Any], int]:
    """Lay out all runs, as many as the page holds."""
    names = [*asked, *measured]
    rows: list[dict[str, object]] = []
    size = 0
    for key, row in zip(frame.index, frame[names].to_dict("records"), strict=True):
        cells = [*(_cell(row[name]) for name in names), _cell(str(key)[:8])]
        size += sum(70 + len(str(c["text"])) + len(str(c["sort"])) for c in cells)
        size += sum(map(len, names))
        if size > BYTES:
            break
        rows.append({"cells": cells})
    head = {"id": "runs", "title": "All runs", "columns": _head(frame, [*names, "run"])}
    return head | {"rows": rows}, len(frame) - len(rows)


def _summary(
    together: pd.DataFrame, asked: Sequence[str], measured: Sequence[str]
) -> dict[str, Any]:
    """Lay out means and standard deviations over seeds."""
    keys = [name for name in asked if name != "seed"]
    numbers = [name for name in measured if f"{name}_spread" in together]
    varying = {name for name in numbers if (together[f"{name}_spread"] > 0).any()}
    rows = []
    for row in together.head(2000).to_dict("records"):
        cells = [*(_cell(row[name]) for name in keys), _cell(row["seeds"])]
        for name in numbers:
            spread = row[f"{name}_spread"]
            cell = _cell(row[name])
            known = cell["text"] != "-" and spread == spread and name in varying
            cells.append({**cell, "text": f"{cell['text']}{f' +- {spread:.2g}' * known}"})
        rows.append({"cells": cells})
    head = {"id": "together", "title": "Means and standard deviations over seeds"}
    return head | {"columns": _head(together, [*keys, "seeds", *numbers]), "rows": rows}


def _moving(frame: pd.DataFrame, asked: Sequence[str], measured: Sequence[str]) -> dict[str, Any]:
    if len(frame) > MOST_POINTS:
        return {}
    axes = {name: _levels(frame[name]) for name in asked}
    axes = {name: found for name, found in axes.items() if 1 < len(found[0]) <= MOST_LEVELS}
    numbers = [name for name in measured if pd.api.types.is_numeric_dtype(frame[name])]
    numbers = [name for name in numbers if frame[name].nunique() > 1 and name != "seconds"]
    if not axes or not numbers:
        return {}
    options = [name for name in axes if name not in ("seed", "image", "prior")]
    along = next(iter([*options, *axes]))
    by = next((name for name in ("prior", *axes) if name in axes and name != along), "")
    quantity = next((name for name in (*SCORES, "trace") if name in numbers), numbers[0])
    study = {
        "levels": {name: labels for name, (labels, _) in axes.items()},
        "codes": {name: codes for name, (_, codes) in axes.items()},
        "values": {
            name: [None if x != x else float(f"{x:.6g}") for x in frame[name].astype(float)]
            for name in [*numbers, "seconds"]
        },
        "palette": PALETTE,
    }
    shared = shared_fields([], {}, [("chart-study", CHART, _chart)], {"study": study})
    return {
        **shared,
        "needs": "A chart of what was measured needs JavaScript.",
        "selects": [
            ("quantity", "Quantity", [*numbers, "seconds"], quantity),
            ("along", "along", [*axes], along),
            ("lines", "a colour each", ["", *axes], by),
        ],
        "charts_first": True,
    }


# Labels of the values of an axis, in order, and which one each run has.
def _levels(column: pd.Series) -> tuple[list[str], list[int]]:
    values = [None if value is None or value != value else value for value in column]
    known = list(dict.fromkeys(value for value in values if value is not None))
    with contextlib.suppress(TypeError, ValueError):  # words stay as the plan has them
        known.sort(key=float)
    order = [*known, *([None] if None in values else [])]
    place = {value: number for number, value in enumerate(order)}
    return [_text(value) for value in order], [place[value] for value in values]


def _chart() -> "figure":
    from bokeh.models import FixedTicker, HoverTool, Range1d

    plot = charts.blank(
        "along", "quantity", x_range=Range1d(start=-0.5, end=0.5), y_range=Range1d(start=0, end=1)
    )
    plot.xaxis.ticker = FixedTicker(ticks=[0])
    empty: dict[str, list[float]] = {name: [] for name in ("x", "y", "low", "high")}
    words: dict[str, list[str]] = {"color": [], "label": []}
    look: dict[str, Any] = {"line_color": "color", "line_width": 2}
    plot.multi_line("x", "y", source=charts.source(empty | words), name="lines", **look)
    plot.segment("x", "low", "x", "high", source=charts.source(empty | words), name="bars", **look)
    for name, size, alpha in (("runs", 6, 0.4), ("means", 10, 1.0)):
        fill: dict[str, Any] = {
            "fill_color": "color",
            "line_color": None,
            "fill_alpha": alpha,
            "name": name,
        }
        dots = plot.scatter("x", "y", source=charts.source(empty | words), size=size, **fill)
        plot.add_tools(HoverTool(tooltips=[("", "@label")], renderers=[dots]))
    return plot
