"""The page of a comparison: verdict, table, images through the iterations, and what kernels say."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels import plotting
from dipkernels.base.checks import checked
from dipkernels.plotting.style import styles
from dipkernels.reports.charts import Curve, network_lines
from dipkernels.reports.citing import reopening
from dipkernels.reports.interactive import Chart, cells_of, fits_fields, head_of
from dipkernels.reports.kernels import kernel_charts
from dipkernels.reports.pages import drawn, picture_words, write_page
from dipkernels.reports.table import COLUMNS, baseline_rows, csv_table, measured_psnr, notes
from dipkernels.reports.verdicts import comparison_verdict
from dipkernels.stages.comparison import STAGES, load_stages, summary_row
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import RunFolder, is_interrupted
from dipkernels.tasks import Task
from dipkernels.theory.curves import resolved_stretch

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
# Those that stand on the page as pictures; of the others it has what moves.
PICTURES = {
    "predicted_against_measured": (
        "Did the kernel predict the fit?",
        "On the diagonal, the peak of the fit with Adam is the one predicted from the kernel at "
        "initialisation. Above it, the fit did better: the kernel changed on the way, or Adam is "
        "not gradient descent. Bars: numerical error; an arrow starts at the lower bound of a peak "
        "that isn't resolved.",
    ),
    "gradient_descent": (
        "Gradient descent, the case that the theory describes",
        "Measured and predicted at the same iterations, at half of the largest stable learning "
        "rate. The prediction keeps the initial kernel; where the curves separate, the kernel "
        "has changed.",
    ),
    "eigenvectors": (
        "Leading eigenvectors of the kernels",
        "The images that gradient descent learns first (grey is 0), with their eigenvalues "
        "relative to the largest.",
    ),
}
PREDICTED = (
    "Predicted learning curves",
    "Expected PSNR of gradient flow; a line ends where the matrix-vector products no longer "
    "resolve it to 1 dB. Time counts iterations of gradient descent at half of its largest stable "
    "rate.",
)
REOPENED = """print(run.table())  # the numbers of the table, as a pandas.DataFrame
fit = run.stages["{first}/{stage}"]  # an xarray.Dataset; white is 1
images = dipkernels.fitting.snapshot_images(fit)  # over (snapshot, channel, y, x)"""


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
        Of ``report.html``, which works without the other files and without a network, of at most
        6 MB as `fit_page` says; beside it are ``summary.csv`` and ``figures/*.png``.
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
    pictures = drawn(figures, folder.path / "figures", formats)
    rows = [summary_row(name, found) for name, found in done.items() if found]
    write_text(csv_table(rows), folder.path / "summary.csv")
    complete = all(
        len(found) == len(STAGES) and not any(map(is_interrupted, found.values()))
        for found in done.values()
    )
    baseline = measured_psnr(task)
    sound, verdict = comparison_verdict(rows, baseline)
    return write_page(
        folder,
        "report.html",
        "results",
        sound=sound and complete,
        verdict=verdict,
        python=reopening(folder.path, REOPENED.format(first=next(iter(priors), ""), stage=ADAM)),
        figures=[
            {**each, "title": PICTURES[each["name"]][0], "words": PICTURES[each["name"]][1]}
            for each in pictures
            if each["name"] in PICTURES
        ],
        notes=notes(rows, task),
        **_words(folder, complete, baseline),
        **_moving(stages, baseline),
        **_table(rows, task),
    )


def _words(folder: RunFolder, complete: bool, baseline: float | None) -> dict[str, Any]:
    asked: dict[str, Any] = folder.settings or {}
    words = picture_words(
        asked["shape"],
        task=asked["task"],
        image=asked["image"],
        noise_sigma=asked.get("noise_sigma"),
    )
    warning = (
        "This run is not complete: it was interrupted, or is still going on. The same command "
        "continues it."
    )
    return {
        "title": f"{asked['task']} of {asked['image']}",
        "question": "Which networks carry an image prior, and did their kernels predict it?",
        "lead": (
            f"{words}, seed {asked['seed']}, on {asked['device']}. Scores are PSNR to the clean "
            "image in dB."
        ),
        "baseline": None if baseline is None else f"The measured image itself: {baseline:.2f} dB.",
        "warning": "" if complete else warning,
    }


def _table(rows: Sequence[dict[str, object]], task: Task | None) -> dict[str, Any]:
    beside = [{"cells": cells_of(COLUMNS, row), "fixed": True} for row in baseline_rows(task)]
    shown = [{"cells": cells_of(COLUMNS, row)} for row in rows]
    return {"columns": head_of(COLUMNS), "rows": [*shown, *beside]}


def _moving(stages: dict[str, dict[str, Any]], baseline: float | None) -> dict[str, Any]:
    if not stages[ADAM]:  # nothing to move
        return {}
    peaks = {
        name: float(each.peak_psnr)
        for name, each in stages[PREDICTION].items()
        if name in stages[ADAM] and (each.peak_resolved or each.attrs.get("peak_extrapolated"))
    }
    looks = styles(stages[ADAM])
    return fits_fields(
        stages[ADAM],
        peaks=peaks,
        measured=baseline,
        further=_charts(stages[KERNEL], stages[PREDICTION], looks),
    )


def _charts(
    kernels: Mapping[str, xr.Dataset], predictions: Mapping[str, xr.Dataset], looks: Any
) -> list[Chart]:
    found = kernel_charts(kernels, looks) if kernels else []
    if predictions:
        curves = {n: Curve(*_predicted(each)) for n, each in predictions.items()}
        words = ("time x largest eigenvalue", "expected PSNR (dB)")
        draw = partial(network_lines, curves, looks, *words, x_axis_type="log")
        found.append(("chart-predicted", PREDICTED, draw))
    return found


def _predicted(prediction: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    score = prediction.sel(region=prediction.score_region)
    told = resolved_stretch(prediction, prediction.score_region)
    time = prediction.time.values * prediction.largest_eigenvalue
    shown = (time > 0) & (np.arange(len(time)) < told)
    return time[shown], score.psnr.values[shown]
