"""The summary table of a comparison, as text, CSV or cells of a page."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.tasks import Task

Row = dict[str, object]
END = 0.02  # of the iterations: a peak in there may well be none


@dataclass(frozen=True)
class Column:
    """One column of a table: its head, the number that it sorts by, its text, what it says."""

    title: str
    key: str
    cell: Callable[[Row], str]
    meaning: str


def plain(title: str, key: str, pattern: str, meaning: str) -> Column:
    """Make a column of one number; a dash where it's missing."""
    return Column(title, key, lambda row: _number(row, key, pattern), meaning)


def number_of(row: Row, key: str, missing: float = float("nan")) -> float:
    """Give a number of a row."""
    return float(str(row.get(key, missing)))


def still_rising(row: Row) -> bool:
    """Say whether a fit ended on the way up, as its peak among the last iterations tells."""
    return number_of(row, "peak_iteration") >= (1 - END) * number_of(row, "iterations")


def _number(row: Row, key: str, pattern: str) -> str:
    value = row.get(key)
    return "-" if value is None else format(value, pattern)


def _peak(row: Row) -> str:
    if "measured_psnr" in row:
        return _number(row, "measured_psnr", ".2f")
    if "peak_psnr" not in row:
        return "-"
    mark = "+" if still_rising(row) else ""
    deviation = _deviation(row, "peak_psnr_spread")
    return f"{row['peak_psnr']:.2f}{deviation} @ {row['peak_iteration']}{mark}"


# Nothing of one seed, be it all that were asked for or the only one that didn't diverge.
def _deviation(row: Row, key: str) -> str:
    value = float(str(row.get(key, math.nan)))
    return f" +- {value:.2f}" if math.isfinite(value) else ""


def _gap(row: Row) -> str:
    if not math.isfinite(float(str(row.get("final_gap", math.nan)))):
        return "-"
    return _number(row, "final_gap", "+.2f") + _deviation(row, "final_gap_spread")


def _predicted(row: Row) -> str:
    if "predicted_peak_psnr" not in row:
        return "-"
    value, low, high = (
        f"{row[f'predicted_peak_psnr{end}']:.1f}" for end in ("", "_lower", "_upper")
    )
    when = row.get("predicted_peak_iteration")
    at = "" if when is None else f" @ {float(str(when)):.1e}"
    if row["predicted_peak_resolved"]:
        return f"{value} [{low}, {high}]{at}"
    extrapolated = row.get("predicted_peak_extrapolated")
    return f"~ {value} [{low}, {high}]{at}" if extrapolated else f"> {value}"


def _beyond(row: Row) -> str:
    if "beyond_kernel" not in row:
        return "-"
    value, low, high = (f"{row[f'beyond_kernel{end}']:+.1f}" for end in ("", "_lower", "_upper"))
    return f"{value} [{low}, {high}]" if "nan" not in low + high else f"{value} [no interval]"


def _descent(row: Row) -> str:
    if "descent_peak_psnr" not in row:
        return "-"
    predicted = _number(row, "predicted_descent_peak_psnr", ".2f")
    return f"{row['descent_peak_psnr']:.2f} / {predicted} in {row['descent_iterations']}"


def _half_power(row: Row) -> str:
    value = row.get("half_power_frequency")
    if value is None:
        return "-"
    number = float(str(value))
    return f"{number:.3f}" if math.isfinite(number) else "none"


PRIOR = plain("prior", "prior", "s", "Name in the registry.")
PARAMETERS = plain("parameters", "parameters", ",d", "Trainable parameters.")
HALF_POWER = Column(
    "half-power c/px",
    "half_power_frequency",
    _half_power,
    "Spatial frequency at which the kernel's response has fallen to half of its lowest ring.",
)
COLUMNS: Sequence[Column] = (
    PRIOR,
    PARAMETERS,
    Column(
        "Adam: peak dB @ it.",
        "peak_psnr",
        _peak,
        "Highest PSNR to the clean image and its iteration; + if that is among the last 2 %, so "
        "that it was still rising at the end. "
        "With several seeds: their mean and standard deviation, and the median iteration.",
    ),
    Column(
        "final gap dB",
        "final_gap",
        _gap,
        "PSNR to the clean image minus PSNR to the measured one, at the end of the fit: positive "
        "if the network kept the noise out. With several seeds: their mean and standard deviation.",
    ),
    Column(
        "kernel: peak dB @ it.",
        "predicted_peak_psnr",
        _predicted,
        "Of gradient flow, from the kernel at the first initialisation alone, with the band of its "
        "numerics, and the iteration at which gradient descent at half of its limit of stability "
        "gets there; ~ where the upper end is extrapolated, > where the products spent tell only "
        "what it certainly reaches.",
    ),
    Column(
        "beyond kernel dB",
        "beyond_kernel",
        _beyond,
        "Adam's peak less that of the kernel: what is learned beyond the kernel. In brackets an "
        "interval of 95 %, by Student's t over the seeds of Adam, widened by the kernel's band.",
    ),
    Column(
        "GD: measured / predicted dB",
        "descent_peak_psnr",
        _descent,
        "Highest PSNR of plain gradient descent within its iterations, and the predicted one.",
    ),
    HALF_POWER,
    plain("seconds", "seconds", ".0f", "All stages together."),
)


@checked
def format_table(rows: Sequence[Row], task: Task | None = None) -> str:
    """Lay out the table as text.

    Parameters
    ----------
    rows : sequence of dict
        As `dipkernels.stages.comparison.summary_row` makes them.
    task : Task, optional
        That was fitted, for the PSNR of the measured image.

    Returns
    -------
    str
        Lines of equal width: head, rule, rows; then an empty line and the `notes`.
    """
    cells = [[column.title for column in COLUMNS], *table_cells(rows, task)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]

    def layout(line: list[str]) -> str:
        padded = [
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    lines = [layout(cells[0]), rule, *(layout(line) for line in cells[1:])]
    return "\n".join([*lines, "", *notes(rows, task)])


def notes(rows: Sequence[Row], task: Task | None = None) -> list[str]:
    """Say what the table is to be read against."""
    seeds = max((int(str(row.get("seeds", 1))) for row in rows), default=1)
    said = spread_note(seeds, single="predictions, gradient descent and half-power frequencies")
    return [*_verdict(rows), *_diverged(rows), said]


# Whose numbers are those of other seeds, and of iterations before.
def _diverged(rows: Sequence[Row]) -> list[str]:
    return [
        f"{row['prior']}: {row['diverged']} of {row['seeds']} fits diverged; its peak is of the "
        "iterations before, its final gap of the others."
        for row in rows
        if row.get("diverged")
    ]


# In a sentence, what the intervals tell of each network.
def _verdict(rows: Sequence[Row]) -> list[str]:
    more, less, neither = "above it", "below it", "can't tell"
    words: dict[str, list[str]] = {more: [], less: [], neither: []}
    for row in rows:
        if "beyond_kernel" in row:
            low, high = (float(str(row[f"beyond_kernel_{end}"])) for end in ("lower", "upper"))
            words[more if low > 0 else less if high < 0 else neither].append(str(row["prior"]))
        elif "predicted_peak_psnr" in row:
            words[neither].append(str(row["prior"]))
    said = [f"{what}: {', '.join(names)}" for what, names in words.items() if names]
    return [f"Adam's peak and that of the kernel: {'; '.join(said)}."] if said else []


def table_cells(rows: Sequence[Row], task: Task | None = None) -> list[list[str]]:
    """Make the texts of the table, row by row; that of the measured image comes last."""
    return [[column.cell(row) for column in COLUMNS] for row in [*rows, *baseline_rows(task)]]


def baseline_rows(task: Task | None) -> list[Row]:
    """Make the row of the measured image itself, if it has a score."""
    psnr = measured_psnr(task)
    return [] if psnr is None else [{"prior": "measured image", "measured_psnr": psnr}]


def measured_psnr(task: Task | None) -> float | None:
    """PSNR of the measured image itself, where it is one, of all pixels, and the truth known."""
    if task is None or task.clean is None or task.measurement.shape != task.shape:
        return None
    return float(task.psnr(task.measurement)) if bool(task.counted.all()) else None


def csv_table(rows: Sequence[Row]) -> str:
    """Write the numbers behind the table as CSV."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
