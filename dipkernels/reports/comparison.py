"""The page of a comparison: figures, table and words in one self-contained HTML file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dipkernels import plotting
from dipkernels.base.checks import checked
from dipkernels.reports.pages import drawn, write_page
from dipkernels.reports.table import COLUMNS, csv_table, notes, table_cells
from dipkernels.stages.comparison import STAGES, load_stages, summary_row
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import RunFolder, is_interrupted
from dipkernels.tasks import Task

ADAM, KERNEL, PREDICTION, DESCENT = STAGES
# How each figure is drawn, from which stages, and which of them must be there.
DRAWINGS: dict[str, tuple[Callable[..., Figure], Sequence[str], Sequence[str]]] = {
    "fits": (plotting.plot_fits, [ADAM, PREDICTION], [ADAM]),
    "images": (plotting.plot_images, [ADAM], [ADAM]),
    "predicted_against_measured": (
        plotting.plot_predicted_against_measured, [ADAM, PREDICTION], [PREDICTION],
    ),
    "gradient_descent": (plotting.plot_descent, [DESCENT, PREDICTION], [DESCENT, PREDICTION]),
    "predictions": (plotting.plot_predictions, [PREDICTION], [PREDICTION]),
    "frequency_response": (plotting.plot_responses, [KERNEL], [KERNEL]),
    "eigenvectors": (plotting.plot_eigenvectors, [KERNEL], [KERNEL]),
    "spectral_density": (plotting.plot_densities, [KERNEL], [KERNEL]),
}  # fmt: skip


@checked
def write_report(
    folder: RunFolder,
    priors: list[str] | tuple[str, ...],
    task: Task | None = None,
    *,
    formats: Sequence[str] = ("png",),
) -> Path:
    """Draw all figures of a run folder and write its table and page, as far as it got.

    Parameters
    ----------
    folder : RunFolder
        Of `dipkernels.compare`.
    priors : list of str
        In the order of the table.
    task : Task, optional
        That was fitted: the page then says what the measured image itself scores.
    formats : sequence of str
        Of the figures beside the page, which holds PNG: ``"pdf"``, ``"svg"``.

    Returns
    -------
    Path
        Of ``report.html``; beside it are ``summary.csv`` and ``figures/*.png``.
    """
    done = {name: load_stages(folder, name) for name in priors}
    stages: dict[str, dict[str, Any]] = {
        stage: {name: found[stage] for name, found in done.items() if stage in found}
        for stage in STAGES
    }
    figures = {
        name: draw(*(stages[stage] for stage in taken))
        for name, (draw, taken, needed) in DRAWINGS.items()
        if all(stages[stage] for stage in needed)
    }
    rows = [summary_row(name, found) for name, found in done.items() if found]
    write_text(csv_table(rows), folder.path / "summary.csv")
    return write_page(
        folder,
        "report.html",
        "comparison",
        columns=COLUMNS,
        cells=table_cells(rows, task),
        notes=notes(rows, task),
        figures=drawn(figures, folder.path / "figures", formats),
        complete=all(
            len(found) == len(STAGES) and not any(map(is_interrupted, found.values()))
            for found in done.values()
        ),
    )
