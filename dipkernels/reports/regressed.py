"""The page of a Gaussian process: its mean, how sure it is, and how wrong."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.posterior import psnr_of, region_words
from dipkernels.plotting.style import styles
from dipkernels.reports.citing import reopening
from dipkernels.reports.draws import DEVIATION, ERROR, MEAN, maps_beside, titles_of
from dipkernels.reports.frames import Frames, sheets
from dipkernels.reports.interactive import (
    REFERENCES,
    Chart,
    cells_of,
    drawing_words,
    head_of,
    panes_fields,
    power_chart,
    powers,
    scale_of,
)
from dipkernels.reports.pages import lead_of, write_page
from dipkernels.reports.table import Column, Row, measured_psnr, plain
from dipkernels.reports.verdicts import process_verdict
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

PAGE = "index.html"
POWER = (
    "Error by spatial frequency",
    "How much of the {} is left in the mean at each spatial frequency, averaged over rings. Dashed "
    "grey: the measured image, if it has all pixels.",
)
REOPENED = """found = run.stages["gp"]  # an xarray.Dataset, in units of the image
mean, deviation = found["mean"], found["standard_deviation"]"""


@checked
def gp_page(folder: RunFolder, result: xr.Dataset, task: Task, *, name: str = "process") -> Path:
    """Write the page of a Gaussian process that is given a task.

    Parameters
    ----------
    folder : RunFolder
        That holds the result as its stage ``gp``.
    result : xarray.Dataset
        From `dipkernels.gp.GPPosterior.dataset`.
    task : Task
        That it was given.
    name : str
        Of the process.

    Returns
    -------
    Path
        Of ``index.html``, which works without the other files and without a network.

    Raises
    ------
    InvalidInputError
        If it isn't such a result, or of another shape than the task.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import gp, images, tasks
    >>> from dipkernels.storage import RunFolder
    >>> task = tasks.denoise(images.load("camera", size=8), noise_sigma=0.1)
    >>> found = gp.GaussianProcess(gp.rbf(2.0)).posterior(task).dataset(draws=2)
    >>> with tempfile.TemporaryDirectory() as path:
    ...     folder = RunFolder.open(Path(path) / "run", {"command": "gp"})
    ...     page = gp_page(folder, found, task)
    ...     page.name, page.stat().st_size < 6e6
    ('index.html', True)
    """
    if "standard_deviation" not in result or result["mean"].shape != task.shape:
        raise InvalidInputError(
            f"expected a result of gp.GPPosterior.dataset with images of shape {task.shape}, the "
            "task's; give the task that the process was given"
        )
    row = process_row(name, result, task)
    baseline = measured_psnr(task)
    sound, verdict = process_verdict(row, baseline, region_words(task))
    rows: list[dict[str, Any]] = [{"cells": cells_of(COLUMNS, row)}]
    if baseline is not None:
        beside: Row = {"prior": "measured image", "psnr": baseline, "psnr_whole": baseline}
        rows.append({"cells": cells_of(COLUMNS, beside), "fixed": True})
    return write_page(
        folder,
        PAGE,
        "results",
        title=f"{task.name} by a Gaussian process, {name}",
        question="How well does a Gaussian process restore the image?",
        sound=sound,
        verdict=verdict,
        lead=f"{lead_of(folder, task)} {result.attrs.get('process', '')}; solver "
        f"{result.attrs.get('solver', 'unknown')}.",
        baseline=None if baseline is None else f"The measured image itself: {baseline:.2f} dB.",
        columns=head_of(COLUMNS),
        rows=rows,
        notes=[spread_note()],
        python=reopening(folder.path, REOPENED),
        figures=[],
        **_maps(result, task),
    )


def process_row(name: str, result: xr.Dataset, task: Task) -> Row:
    """Condense a process given a task: scores, and whether its deviations have the right size."""
    deviation = result["standard_deviation"].values / task.data_range
    row: Row = {"prior": name, "mean_deviation": float(deviation.mean())}
    if "iterations" in result.attrs:
        row["iterations"] = int(result.attrs["iterations"])
    if task.clean is None:
        return row
    mean = result["mean"].values / task.data_range
    row |= {"psnr": float(psnr_of(task, mean)), "psnr_whole": float(psnr_of(task, mean, "whole"))}
    region = task.regions[task.score_region].expand(task.shape).cpu().numpy()
    error = mean - (task.clean / task.data_range).cpu().double().numpy()
    sized = region & (deviation > 0)
    if sized.any():
        row["z_rms"] = float(np.sqrt(np.square(error[sized] / deviation[sized]).mean()))
    return row


def _maps(result: xr.Dataset, task: Task) -> dict[str, Any]:
    mean, deviation = (
        result[key].values / task.data_range for key in ("mean", "standard_deviation")
    )
    images, ranges, notes = maps_beside(mean, deviation, task)
    found = sheets({}, images, own=ranges)
    known = {name: image for name, image in images.items() if name in (*REFERENCES, "mask")}
    power, noise, radii = powers({MEAN: Frames([0], images[MEAN][None])}, known)
    looks = styles([MEAN])
    drawn: list[Chart] = []
    if radii is not None:
        drawn.append(power_chart(radii, power, looks, noise, clean="clean" in known, words=POWER))
    said = [
        "Standard deviation and error share black and white.",
        *drawing_words(known, found.block),
    ]
    return {
        **panes_fields(
            found,
            [MEAN],
            looks,
            drawn,
            word="",
            said=lambda name, frames: [],
            chosen=[name for name in (MEAN, DEVIATION, ERROR, "measured") if name in images],
            titles=titles_of(images) | {MEAN: "mean of the process"},
            notes=notes,
            ranges=ranges,
            scale=scale_of(known),
        ),
        "moving": "Mean, standard deviation and error",
        "needs": "This part needs JavaScript: images, with values under the pointer.",
        "frames_note": " ".join(said),
    }


COLUMNS: Sequence[Column] = (
    plain("process", "prior", "s", "Its covariance."),
    plain("PSNR dB", "psnr", ".2f", "Of the mean, to the clean image, where the task is scored."),
    plain("whole dB", "psnr_whole", ".2f", "Of the mean, over the whole image."),
    plain(
        "standard deviation",
        "mean_deviation",
        ".4f",
        "Of the image given the measurement, on average; white = 1.",
    ),
    plain(
        "error / standard deviation",
        "z_rms",
        ".2f",
        "Root mean square where the task is scored: 1 if standard deviations have the right size, "
        "more if they are too small.",
    ),
    plain("iterations", "iterations", ",d", "Of the solver; - if it needs none."),
)
