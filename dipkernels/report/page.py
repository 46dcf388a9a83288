"""The page of a comparison: figures, table and words in one self-contained HTML file."""

import base64
import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jinja2
import xarray as xr
from matplotlib.figure import Figure

from dipkernels import plotting
from dipkernels.report.table import COLUMNS, csv_table, notes, table_cells
from dipkernels.stages.comparison import STAGES, load_stages, summary_row
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import SETTINGS_FILE, RunFolder, is_interrupted
from dipkernels.tasks import Task

Stages = dict[str, dict[str, xr.Dataset]]

# File name, title, what it shows, and how to draw it from the stages that are there.
Drawing = tuple[str, str, str, Callable[[Stages], Figure | None]]


def write_report(
    folder: RunFolder, priors: list[str] | tuple[str, ...], task: Task | None = None
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

    Returns
    -------
    Path
        Of ``report.html``; beside it are ``summary.csv`` and ``figures/*.png``.
    """
    done = {name: load_stages(folder, name) for name in priors}
    stages = {
        stage: {name: found[stage] for name, found in done.items() if stage in found}
        for stage in STAGES
    }
    rows = [summary_row(name, found) for name, found in done.items() if found]
    write_text(csv_table(rows), folder.path / "summary.csv")
    settings = json.loads((folder.path / SETTINGS_FILE).read_text(encoding="utf-8"))
    template = resources.files("dipkernels.report").joinpath("page.html.jinja").read_text("utf-8")
    page = jinja2.Environment(autoescape=True).from_string(template)
    html = page.render(
        settings=settings["settings"],
        provenance={k: v for k, v in settings.items() if k != "settings"},
        columns=COLUMNS,
        cells=table_cells(rows),
        notes=notes(rows, task),
        figures=_draw_all(stages, folder.path / "figures"),
        complete=all(len(found) == len(STAGES) for found in done.values())
        and not any(
            is_interrupted(dataset) for found in done.values() for dataset in found.values()
        ),
    )
    path = folder.path / "report.html"
    write_text(html, path)
    return path


def _draw_all(stages: Stages, folder: Path) -> list[dict[str, str]]:
    # A figure is left out if no stage that it needs is there.
    folder.mkdir(exist_ok=True)
    figures = []
    for name, title, caption, draw in DRAWINGS:
        figure = draw(stages)
        if figure is None:
            continue
        path = folder / f"{name}.png"
        plotting.save_figure(figure, path)
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        figures.append({"title": title, "caption": caption, "data": data})
    return figures


def _fits(stages: Stages) -> Figure | None:
    adam = stages["fit_adam"]
    return plotting.plot_fits(adam, stages["prediction"]) if adam else None


def _images(stages: Stages) -> Figure | None:
    return plotting.plot_images(stages["fit_adam"]) if stages["fit_adam"] else None


def _against(stages: Stages) -> Figure | None:
    adam, prediction = stages["fit_adam"], stages["prediction"]
    return plotting.plot_predicted_against_measured(adam, prediction) if prediction else None


def _descent(stages: Stages) -> Figure | None:
    descent, prediction = stages["fit_gradient_descent"], stages["prediction"]
    return plotting.plot_descent(descent, prediction) if descent and prediction else None


def _predictions(stages: Stages) -> Figure | None:
    return plotting.plot_predictions(stages["prediction"]) if stages["prediction"] else None


def _responses(stages: Stages) -> Figure | None:
    return plotting.plot_responses(stages["kernel"]) if stages["kernel"] else None


def _eigenvectors(stages: Stages) -> Figure | None:
    return plotting.plot_eigenvectors(stages["kernel"]) if stages["kernel"] else None


def _densities(stages: Stages) -> Figure | None:
    return plotting.plot_densities(stages["kernel"]) if stages["kernel"] else None


DRAWINGS: tuple[Drawing, ...] = (
    (
        "fits",
        "What each network learns, and when",
        "Fits with Adam. A network with an image prior nears the clean image (blue) long before "
        "it reproduces the measured one (orange). Green: the peak that its kernel at "
        "initialisation predicts, with the band of the numerics, or what that peak at least "
        "reaches where the products spent don't resolve it.",
        _fits,
    ),
    (
        "images",
        "The images",
        "At initialisation, at the highest PSNR to the clean image (an oracle's choice), and at "
        "the end of the fit with Adam.",
        _images,
    ),
    (
        "predicted_against_measured",
        "Did the kernel predict the fit?",
        "On the diagonal, the peak of the fit with Adam is the one predicted from the kernel at "
        "initialisation. Above it, the fit did better: the kernel changed on the way, or Adam is "
        "not gradient descent. Bars: the band of the numerics; an arrow starts at what a peak "
        "that isn't resolved at least reaches.",
        _against,
    ),
    (
        "gradient_descent",
        "Where the theory is at home: plain gradient descent",
        "Measured and predicted at the same iterations, at half of the limit of stability. The "
        "kernel is held at its initial value; where the curves part, it has changed.",
        _descent,
    ),
    (
        "predictions",
        "Predicted learning curves",
        "Expected PSNR of gradient flow; lines end where the products spent no longer tell it to "
        "1 dB, and the bands of the numerics go on. The time axis counts iterations of gradient "
        "descent at half of its limit of stability: it shows how long plain gradient descent would "
        "take.",
        _predictions,
    ),
    (
        "frequency_response",
        "Which frequencies are fitted first",
        "Mean of |J^T e_k|^2 over rings of spatial frequency, relative to the lowest ring. A "
        "falling curve is a low-pass filter, a flat one has no preference. Open circles: "
        "half-power frequencies. Bars: two standard errors.",
        _responses,
    ),
    (
        "eigenvectors",
        "Leading eigenvectors of the kernels",
        "The images that gradient descent learns first (grey is 0), with their eigenvalues "
        "relative to the largest.",
        _eigenvectors,
    ),
    (
        "spectral_density",
        "Spectra of the kernels",
        "Eigenvalues per decade, by stochastic Lanczos quadrature; bands of two standard errors "
        "over the probes. Below about 1e-4 the quadrature resolves the total only.",
        _densities,
    ),
)
