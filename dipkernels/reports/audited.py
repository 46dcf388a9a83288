"""The page of an audit: fits beside what their kernel predicts, iteration by iteration."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.style import PALETTE
from dipkernels.reports import charts
from dipkernels.reports.charts import Curve, network_lines
from dipkernels.reports.citing import reopening
from dipkernels.reports.frames import Frames, plane, sheets
from dipkernels.reports.interactive import (
    PARTS,
    REFERENCES,
    Chart,
    cells_of,
    drawing_words,
    head_of,
    panes_fields,
    power_chart,
    powers,
    scale_of,
    shared_fields,
)
from dipkernels.reports.kernels import relative_curve
from dipkernels.reports.pages import lead_of, write_page
from dipkernels.reports.table import Column, Row, measured_psnr, plain
from dipkernels.reports.verdicts import audit_verdict
from dipkernels.stages.audits import SOURCES, audit_rows
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

if TYPE_CHECKING:
    from bokeh.plotting import figure

PAGE = "index.html"
FRAMES = 40  # images of each fit, and of each prediction
CURVES = (
    "PSNR to the clean image",
    "Solid: measured. Dashed: predicted from the kernel at initialisation (of Adam, from its "
    "metric at an early step). Where they separate, the kernel changes. The dashed upright line is "
    "the iteration of the slider.",
)
MODES = (
    "Misfit along the kernel's leading eigenvectors",
    "Root mean square misfit to the measurement along the first eigenvector, and along all that "
    "aren't leading ones. Solid: measured. Dashed: predicted.",
)
RESPONSE = (
    "How the kernel's response changes",
    "Response by spatial frequency at the start and at the last check, relative to the lowest "
    "ring, with bands of two standard errors.",
)
REOPENED = """found = run.stages["audit"]  # an xarray.Dataset
print(found.psnr.dims, run.table())
figure = dipkernels.plotting.plot_audit(found)"""
MEASURED, PREDICTED = SOURCES


@checked
def audit_page(folder: RunFolder, found: xr.Dataset, task: Task) -> Path:
    """Write the page of an audit.

    Parameters
    ----------
    folder : RunFolder
        Where `dipkernels.audit` ran: with its images the page has a slider through them.
    found : xarray.Dataset
        From `dipkernels.audit`.
    task : Task
        That was audited.

    Returns
    -------
    Path
        Of ``index.html``, which works without the other files and without a network.

    Raises
    ------
    InvalidInputError
        If it isn't an audit.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import audit, images, networks, tasks
    >>> from dipkernels.storage import RunFolder
    >>> prior = networks.create("deep-decoder", image_size=8, channels=1, width=6, upsamplings=1)
    >>> task = tasks.denoise(images.load("camera", size=8))
    >>> with tempfile.TemporaryDirectory() as path:
    ...     found = audit(prior, task, iterations=4, freeze=2, steps=4, modes=2, folder=path)
    ...     page = audit_page(RunFolder(Path(path)), found, task)
    ...     page.name, page.stat().st_size < 6e6
    ('index.html', True)
    """
    if "mode_energy" not in found:
        raise InvalidInputError("this dataset is no audit: it has no mode_energy")
    rows = [{"prior": row["optimiser"], **row} for row in audit_rows(found)]
    network = str(found.attrs.get("prior", "the network"))
    sound, verdict = audit_verdict(rows, network)
    baseline = measured_psnr(task)
    beside = (
        [] if baseline is None else [{"prior": "measured image", "measured_peak_psnr": baseline}]
    )
    return write_page(
        folder,
        PAGE,
        "results",
        title=f"audit of {network}",
        question=f"Does the kernel of {network} predict its fits?",
        sound=sound,
        verdict=verdict,
        lead=f"{network}: {lead_of(folder, task)} Scores are PSNR to the clean image in dB, over "
        f"the region '{found.score_region}'.",
        baseline=None if baseline is None else f"The measured image itself: {baseline:.2f} dB.",
        columns=head_of(COLUMNS),
        rows=[
            *({"cells": cells_of(COLUMNS, row)} for row in rows),
            *({"cells": cells_of(COLUMNS, row), "fixed": True} for row in beside),
        ],
        notes=[spread_note()],
        python=reopening(folder.path, REOPENED),
        figures=[],
        **_moving(folder, found, task),
    )


def _name(optimiser: str, source: str) -> str:
    return f"{optimiser}, {source}"


def _moving(folder: RunFolder, found: xr.Dataset, task: Task) -> dict[str, Any]:
    optimisers = [str(each) for each in found.optimiser.values]
    looks = {
        _name(each, source): {
            "color": PALETTE[i % len(PALETTE)],
            "ls": "-" if source == MEASURED else "--",
        }
        for i, each in enumerate(optimisers)
        for source in SOURCES
    }
    drawn: list[Chart] = [
        ("chart-psnr", CURVES, partial(_curves, found, looks)),
        ("chart-modes", MODES, partial(_modes, found, looks)),
        ("chart-response", RESPONSE, partial(_responses, found)),
    ]
    frames = _frames(folder, found, optimisers, task)
    if not frames:
        needs = {"needs": "Curves need JavaScript."}
        return shared_fields(list(looks), looks, drawn, {"offset": 1}) | needs
    images = {
        name: plane((tensor / task.data_range).cpu().numpy()).astype(np.float32)
        for name, tensor in (("clean", task.clean), ("measured", task.measurement))
        if tensor is not None and tensor.shape == task.shape
    }
    if "measured" in images and not bool(task.counted.all()):
        images["mask"] = plane(task.counted.cpu().numpy()).astype(np.float32)
    sheet = sheets(frames, images)
    power, noise, radii = powers(sheet.kept, images)
    if radii is not None:
        drawn.insert(1, power_chart(radii, power, looks, noise, clean="clean" in images))
    first = optimisers[0]
    most = max(len(each.iterations) for each in sheet.kept.values())
    return {
        **panes_fields(
            sheet,
            list(looks),
            looks,
            drawn,
            word="iteration",
            said=partial(_said, found),
            chosen=[_name(first, source) for source in SOURCES],
            titles={name: text for name, text in REFERENCES.items() if name in images},
            parts=PARTS,
            power=power,
            scale=scale_of(images),
            start=int(found.measured_peak_iteration.sel(optimiser=first)),
            offset=1,
        ),
        "moving": "Through the iterations",
        "needs": "This part needs JavaScript: images through the iterations, with curves.",
        "frames_note": " ".join(
            [
                f"At most {most} images of each fit and of each prediction are here, in 8 bits; "
                "arrow keys move the slider, too.",
                *drawing_words(images, sheet.block),
            ]
        ),
    }


# Of a folder that holds the parts of the audit.
def _frames(
    folder: RunFolder, found: xr.Dataset, optimisers: Sequence[str], task: Task
) -> dict[str, Frames]:
    frames = {}
    for each in optimisers:
        parts = sorted((folder.path / each).glob("fit-*.nc"))
        fits = [folder.stored(f"{each}/{part.stem}") for part in parts]
        predicted = folder.stored(f"{each}/prediction")
        images = [fit[["image"]] for fit in fits if fit is not None]
        if predicted is None or not images:
            return {}
        whole = xr.concat(images, "iteration")
        for source, one in ((MEASURED, whole), (PREDICTED, predicted)):
            kept = charts.spaced(one.sizes["iteration"], FRAMES)
            pixels = one.image.values[kept].reshape(-1, *task.shape) / task.data_range
            frames[_name(each, source)] = Frames(
                [int(i) for i in one.iteration.values[kept]],
                np.stack([plane(image) for image in pixels]).astype(np.float32),
            )
    return frames


def _said(found: xr.Dataset, name: str, frames: Frames) -> list[str]:
    optimiser, source = name.rsplit(", ", 1)
    psnr = found.psnr.sel(optimiser=optimiser, source=source)
    return [f"{float(psnr.sel(iteration=i)):.2f} dB to clean" for i in frames.iterations]


def _curves(found: xr.Dataset, looks: charts.Looks) -> "figure":
    x = found.iteration.values + 1
    lines = {
        name: Curve(x, found.psnr.sel(optimiser=optimiser, source=source).values)
        for name in looks
        for optimiser, source in [name.rsplit(", ", 1)]
    }
    words = ("iteration", "PSNR (dB)")
    return _over_iterations(found, network_lines(lines, looks, *words, x_axis_type="log"))


def _modes(found: xr.Dataset, looks: charts.Looks) -> "figure":
    x, lines, ways = found.iteration.values + 1, {}, {}
    energy = found.mode_energy.sel(target="measurement")
    modes = [str(mode) for mode in found["mode"].values]
    for name, look in looks.items():
        optimiser, source = name.rsplit(", ", 1)
        for number, mode in enumerate((modes[0], modes[-1])):
            label = f"{name}: {'mode ' if mode.isdigit() else 'the '}{mode}"
            one = energy.sel(optimiser=optimiser, source=source, mode=mode)
            lines[label] = Curve(x, np.sqrt(one.values))
            ways[label] = look | {"color": _shade(looks, look["color"], number)}
    words = ("iteration", "misfit (root mean square)")
    plot = network_lines(lines, ways, *words, x_axis_type="log", y_axis_type="log")
    for each in plot.renderers:  # toggled with their fit
        each.tags = [str(each.tags[0]).partition(":")[0]]
    return _over_iterations(found, plot)


# Another colour for the rest than for a mode, which no optimiser has.
def _shade(looks: charts.Looks, colour: str, number: int) -> str:
    taken = len({look["color"] for look in looks.values()})
    return PALETTE[(PALETTE.index(colour) + number * taken) % len(PALETTE)]


def _over_iterations(found: xr.Dataset, plot: "figure") -> "figure":
    charts.iteration_ticks(plot, int(found.iteration.values[-1]) + 1)
    charts.mark(plot)
    return plot


def _responses(found: xr.Dataset) -> "figure":
    lines: dict[str, Curve] = {}
    ways: dict[str, dict[str, Any]] = {}
    for i, optimiser in enumerate(str(each) for each in found.optimiser.values):
        one, last = found.sel(optimiser=optimiser), int(found.check.values[-1])
        for check in (0, last):
            if check == 0 and i:
                continue
            at = one.sel(check=check)
            label = f"{optimiser} at {check}" if check else "at the start"
            lines[label] = relative_curve(at.frequency, at.response, at.response_standard_error)
            grey = {"color": "#888888", "ls": "-"}
            ways[label] = {"color": PALETTE[i % len(PALETTE)], "ls": "-"} if check else grey
    words = ("spatial frequency (cycles per pixel)", "response / lowest ring")
    plot = network_lines(lines, ways, *words, x_axis_type="log", y_axis_type="log")
    charts.frequency_ticks(plot)
    return plot


def _at(kind: str) -> Column:
    return Column(
        f"{kind} peak dB @ it.",
        f"{kind}_peak_psnr",
        lambda row: _peak(row, kind),
        "Highest PSNR to the clean image, and its iteration.",
    )


def _peak(row: Row, kind: str) -> str:
    value = row.get(f"{kind}_peak_psnr")
    if value is None:
        return "-"
    at = row.get(f"{kind}_peak_iteration")
    return f"{value:.2f}" + ("" if at is None else f" @ {at}")


COLUMNS: Sequence[Column] = (
    plain("optimiser", "prior", "s", "The optimiser of the fit."),
    _at(MEASURED),
    _at(PREDICTED),
    plain(
        "largest gap dB",
        "largest_gap",
        ".2f",
        "Between both curves at one iteration, up to the measured peak.",
    ),
    plain(
        "kernel changes by",
        "relative_change",
        ".2f",
        "Norm of the kernel's change at the last check over the norm of the kernel.",
    ),
    plain(
        "alignment",
        "alignment",
        ".2f",
        "Cosine between both kernels: 1 if only its size has changed.",
    ),
    plain("learning rate", "learning_rate", ".3g", "That of the fit."),
)
