"""The summary table of a comparison, as text, CSV or cells of a page."""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Row = dict[str, object]


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes
    ----------
    title : str
        Its head.
    cell : callable
        Makes the text of a row.
    meaning : str
        What it says, in a sentence.
    """

    title: str
    cell: Callable[[Row], str]
    meaning: str


def _number(key: str, pattern: str) -> Callable[[Row], str]:
    # A dash where a stage is missing.
    def cell(row: Row) -> str:
        value = row.get(key)
        return "-" if value is None else format(value, pattern)

    return cell


def _peak(row: Row) -> str:
    if "peak_psnr" not in row:
        return "-"
    mark = "+" if row["peak_iteration"] == row["iterations"] else ""
    spread = f" +- {row['peak_psnr_spread']:.2f}" if row.get("seeds", 1) != 1 else ""
    return f"{row['peak_psnr']:.2f}{spread} @ {row['peak_iteration']}{mark}"


def _predicted(row: Row) -> str:
    if "predicted_peak_psnr" not in row:
        return "-"
    value, low, high = (
        f"{row[f'predicted_peak_psnr{end}']:.1f}" for end in ("", "_lower", "_upper")
    )
    return f"{value} [{low}, {high}]" if row["predicted_peak_resolved"] else f"> {value}"


def _descent(row: Row) -> str:
    if "descent_peak_psnr" not in row:
        return "-"
    predicted = _number("predicted_descent_peak_psnr", ".2f")(row)
    return f"{row['descent_peak_psnr']:.2f} / {predicted} in {row['descent_iterations']}"


def _half_power(row: Row) -> str:
    value = row.get("half_power_frequency")
    if value is None:
        return "-"
    number = float(str(value))
    return f"{number:.3f}" if math.isfinite(number) else "none"


COLUMNS: Sequence[Column] = (
    Column("prior", _number("prior", "s"), "Name in the registry."),
    Column("parameters", _number("parameters", ",d"), "Trainable parameters."),
    Column(
        "Adam: peak dB @ it.",
        _peak,
        "Highest PSNR to the clean image and its iteration; + if it was still rising at the end. "
        "With several seeds: their mean and standard deviation, and the median iteration.",
    ),
    Column(
        "final gap dB",
        _number("final_gap", "+.2f"),
        "PSNR to the clean image minus PSNR to the measured one, at the end of the fit: positive "
        "if the network kept the noise out.",
    ),
    Column(
        "predicted peak dB",
        _predicted,
        "Of gradient flow, from the kernel at initialisation alone, with the band of its numerics; "
        "> where the products spent don't resolve the peak but only what it certainly reaches.",
    ),
    Column(
        "GD: measured / predicted dB",
        _descent,
        "Highest PSNR of plain gradient descent within its iterations, and the predicted one.",
    ),
    Column(
        "half-power c/px",
        _half_power,
        "Spatial frequency at which the kernel's response has fallen to half of its lowest ring.",
    ),
    Column("seconds", _number("seconds", ".0f"), "All stages together."),
)


def format_table(rows: Sequence[Row]) -> str:
    """Lay out the table as text.

    Parameters
    ----------
    rows : sequence of dict
        As `dipkernels.compare.summary_row` makes them.

    Returns
    -------
    str
        Lines of equal width: head, rule, rows.
    """
    cells = [[column.title for column in COLUMNS], *table_cells(rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]

    def layout(line: list[str]) -> str:
        padded = [
            text.ljust(width) if i == 0 else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(padded).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([layout(cells[0]), rule, *(layout(line) for line in cells[1:])])


def table_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Make the texts of the table, row by row.

    Parameters
    ----------
    rows : sequence of dict
        As `dipkernels.compare.summary_row` makes them.

    Returns
    -------
    list of list of str
        Without the head.
    """
    return [[column.cell(row) for column in COLUMNS] for row in rows]


def csv_table(rows: Sequence[Row]) -> str:
    """Write the numbers behind the table as CSV.

    Parameters
    ----------
    rows : sequence of dict
        As `dipkernels.compare.summary_row` makes them.

    Returns
    -------
    str
        Full precision; empty where a stage is missing.
    """
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, keys, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
