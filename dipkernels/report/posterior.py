"""The page of a posterior: verdict first, then target, maps, calibration and diagnostics."""

import base64
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels import plotting, sampling
from dipkernels.base.spread import spread_note
from dipkernels.errors import MissingExtraError
from dipkernels.images.metrics import decibels
from dipkernels.plotting.posterior import region_words
from dipkernels.report.table import csv_table
from dipkernels.sampling.diagnostics import LEAST_DRAWS
from dipkernels.sampling.summaries import require_draws
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import SETTINGS_FILE, RunFolder
from dipkernels.tasks import Task

PAGE, TABLE = "index.html", "calibration.csv"
DIAGNOSED = 4096  # entries of the image, at most; ArviZ takes some seconds for them
LEVELS = (0.9, 0.8, 0.5)  # of the intervals: the first for which the draws suffice

_SNIPPET = """from dipkernels import sampling, storage

result = storage.load({path!r})  # an xarray.Dataset; white is 1
print(result.draws.dims, result.attrs["method"])
maps = sampling.uncertainty.maps(result, levels=(0.5, 0.9))  # mean, std, lower, upper
"""
_CHAINS_SNIPPET = """print(sampling.summary(result))  # the diagnostics, by ArviZ
arviz_data = sampling.to_inference_data(result)
"""

# Attribute, words, pattern.
_TARGET = (
    ("target", "density", "s"),
    ("weight_prior", "prior on the weights", "s"),
    ("noise_sigma", "deviation of the noise (white = 1)", ".4g"),
    ("temperature", "temperature (1 is Bayes' rule)", "g"),
    ("step_size", "step", ".4g"),
    ("schedule", "schedule of the step", "s"),
    ("friction", "friction", "g"),
    ("learning_rate", "learning rate", "g"),
    ("input_noise", "deviation of the noise on the code", ".4g"),
    ("weight_noise", "deviation of the noise on kernels, after each step", ".4g"),
    ("weight_decay", "weight decay", ".4g"),
    ("chains", "chains", "d"),
    ("members", "fits", "d"),
    ("iterations", "iterations", "d"),
    ("requested_iterations", "iterations of each fit", "d"),
    ("burn_in", "of which burn-in", "d"),
    ("thin", "iterations from draw to draw", "d"),
    ("error", "relative error of the solves, at most", ".2g"),
)

# Variable, title, what it says, pattern; {level} is that of the intervals.
_SCORES = (
    ("values", "values", "How many values were predicted.", "d"),
    ("rmse", "RMS error", "Of the mean of the draws; white = 1.", ".4f"),
    ("sharpness", "deviation", "Mean of the predicted standard deviations; white = 1.", ".4f"),
    (
        "z_rms",
        "error / deviation",
        "Root mean square: 1 if deviations have the right size, more if they are too small.",
        ".2f",
    ),
    (
        "coverage",
        "{level} intervals hold",
        "Share of the values in their interval: {level} if it is calibrated.",
        ".0%",
    ),
    (
        "calibration_error",
        "calibration error",
        "Mean distance of the coverage curve from the diagonal; 0 is best.",
        ".3f",
    ),
    (
        "ause",
        "sparsification error",
        "Area between the two sparsification curves; 0 if deviations sort values as errors do.",
        ".3f",
    ),
    ("nll", "NLL", "Mean negative log-likelihood of a Gaussian, in nats a value.", ".2f"),
)


@dataclass(frozen=True)
class PosteriorReport:
    """What `posterior_page` wrote and found.

    Attributes
    ----------
    page : Path
        ``index.html``, which works without the other files.
    headline : str
        Whether the draws can be taken for the posterior's, in a line.
    lines : tuple of str
        Scores of mean and spread, a line each.
    """

    page: Path
    headline: str
    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join([self.headline, *self.lines])


def posterior_page(
    folder: RunFolder, result: xr.Dataset, task: Task, *, words: str, headline: str | None = None
) -> PosteriorReport:
    """Draw the maps, calibration and diagnostics of a posterior, and write its page.

    Parameters
    ----------
    folder : RunFolder
        That holds ``posterior.nc``.
    result : xarray.Dataset
        With ``draws``, at least 2, as functions of `dipkernels.sampling` return it.
    task : Task
        That was sampled: of images or signals.
    words : str
        What the method is, in a sentence.
    headline : str, optional
        The verdict of a method that runs no chain of a target; that of chains is by their
        diagnostics.

    Returns
    -------
    PosteriorReport
        Beside its page are ``maps.png``, ``calibration.png`` and ``calibration.csv`` (where
        something is known to hold draws against) and, of chains, ``diagnostics.png``.

    Raises
    ------
    InvalidInputError
        If there are fewer than 2 draws, or the task isn't that of the result.

    Notes
    -----
    Without ArviZ (the extra ``sampling``) the headline says that convergence wasn't checked.
    """
    level = _level(result)
    maps = sampling.uncertainty.maps(result, levels=(level,))
    known = task.clean is not None or task.has_held_out
    calibrations = sampling.uncertainty.calibration(result, task) if known else {}
    diagnosis, why_not = _diagnosed(result)
    chains = "iteration" in result.dims
    figures: dict[str, Figure] = {"maps": plotting.plot_uncertainty(task, maps)}
    if calibrations:
        figures["calibration"] = plotting.plot_calibration(calibrations)
        write_text(csv_table(_rows(calibrations)), folder.path / TABLE)
    if chains:
        figures["diagnostics"] = plotting.plot_chains(task, result, diagnosis)
    sound, first = _verdict(result, diagnosis, why_not, headline)
    lines = _lines(result, maps, calibrations, task)
    path = folder.path / PAGE
    stored = json.loads((folder.path / SETTINGS_FILE).read_text(encoding="utf-8"))
    template = resources.files("dipkernels.report").joinpath("posterior.html.jinja")
    snippet = _SNIPPET.format(path=str(folder.file("posterior"))) + _CHAINS_SNIPPET * chains
    html = (
        jinja2.Environment(autoescape=True)
        .from_string(template.read_text("utf-8"))
        .render(
            headline=first,
            sound=sound,
            lines=lines,
            words=words,
            **_title(result, task, stored["settings"]),
            target=_target(result),
            figures=[_embedded(name, figure, folder.path) for name, figure in figures.items()],
            scores=[
                tuple(text.format(level=f"{level:.0%}") for text in (title, meaning))
                for _, title, meaning, _ in _SCORES
            ],
            cells=[_cells(name, found, level) for name, found in calibrations.items()],
            diagnostics="" if diagnosis is None else sampling.summary(result, diagnosis),
            snippet=snippet,
            settings=stored["settings"],
            provenance={k: v for k, v in stored.items() if k != "settings"},
        )
    )
    write_text(html, path)
    return PosteriorReport(path, first, tuple(lines))


# An interval of S draws that has both ends inside of their range needs S >= 2 / (1 - level) - 1:
# of a wider one nearly every value would seem to be inside.
def _level(result: xr.Dataset) -> float:
    found = require_draws(result)  # none of chains that diverged
    draws = found.sizes["chain"] * found.sizes["draw"]
    return next((p for p in LEVELS if round(draws * (1 - p) - (1 + p), 9) >= 0), LEVELS[-1])


# Diagnostics of chains, or why there are none.
def _diagnosed(result: xr.Dataset) -> tuple[xr.Dataset | None, str]:
    if "iteration" not in result.dims:
        return None, ""
    if result.sizes["draw"] < LEAST_DRAWS:
        return None, f"{result.sizes['draw']} draws of each chain are too few to tell"
    try:
        return sampling.diagnose(result, pixels=DIAGNOSED), ""
    except MissingExtraError as error:
        return None, str(error)


def _verdict(
    result: xr.Dataset, diagnosis: xr.Dataset | None, why_not: str, headline: str | None
) -> tuple[bool, str]:
    if headline is not None:
        sound, first = not headline.upper().startswith("NOT"), headline
    elif diagnosis is not None:
        found = sampling.verdict(diagnosis)
        sound, first = found.converged, str(found)
        if sound and str(result.attrs.get("target", "")).startswith("none"):
            sound, first = False, f"Not a posterior: no density is known that was sampled. {first}"
    else:
        sound, first = False, f"CONVERGENCE NOT CHECKED: {why_not}."
    if result.attrs.get("status") == "interrupted":
        asked = result.attrs.get("iterations", "?")
        done = f"INTERRUPTED after {result.sizes.get('iteration', 0)} of {asked} iterations. "
        return False, done + first
    return sound, first


def _lines(
    result: xr.Dataset, maps: xr.Dataset, calibrations: dict[str, xr.Dataset], task: Task
) -> list[str]:
    lines, level = [], float(maps["level"][0])
    if level < LEVELS[0]:
        lines.append(
            f"Only {maps.attrs['draws']} draws: intervals are of {level:.0%}, since so few can't "
            f"tell those of {LEVELS[0]:.0%}."
        )
    if task.clean is not None:
        region = task.regions[task.score_region].expand(task.shape).cpu().numpy()
        clean = (task.clean / task.peak).cpu().numpy()[region]
        draws = result["draws"].values.reshape(-1, *task.shape)[:, region]
        draws = draws[np.isfinite(draws).all(axis=1)]
        single = decibels(np.square(draws - clean).mean(axis=1)).mean()
        together = float(decibels(np.square(maps["mean"].values[region] - clean).mean()))
        lines.append(
            f"Mean of the draws {together:.2f} dB to the truth "
            f"over the {region_words(task)}; single draws {single:.2f} dB on average."
        )
    for name, found in calibrations.items():
        against = {"truth": "the truth", "held_out": "held-out pixels"}[name]
        noise = _noise_words(found) if name == "held_out" else ""
        share = float(found["coverage"].sel(level=level))
        lines.append(
            f"Against {against}{noise}: {level:.0%} intervals hold {share:.0%} of "
            f"{found.attrs['values']} values; errors are {float(found['z_rms']):.2f} times the "
            "deviation."
        )
    if not calibrations:
        lines.append("Nothing is known to hold the spread against: no truth, no held-out pixels.")
    return [*lines, spread_note()]


# The intervals of a new measurement are wider than those of the image, if its noise is known.
def _noise_words(found: xr.Dataset) -> str:
    if found.attrs["noise_sigma"]:
        return " (with the noise of the measurement)"
    return (
        " (without noise of the measurement, since none is stated: if it has some, they say less)"
    )


def _title(result: xr.Dataset, task: Task, settings: dict[str, Any]) -> dict[str, Any]:
    channels, *spatial = task.shape
    sides = "\u00d7".join(map(str, spatial))
    return {
        "prior": result.attrs.get("prior", "network"),
        "method": result.attrs.get("method", "sampled"),
        "task": task.name,
        "image": settings.get("image", "an image"),
        "shape": f"{sides} pixels, {channels} channel{'' if channels == 1 else 's'}",
        "seed": settings.get("seed", result.attrs.get("seed", 0)),
        "device": settings.get("device", "cpu"),
    }


def _target(result: xr.Dataset) -> list[tuple[str, str]]:
    found = []
    for name, words, pattern in _TARGET:
        value = result.attrs.get(name)
        if value is None or (name == "noise_sigma" and "target" not in result.attrs):
            continue
        several = [value] if isinstance(value, str) else np.unique(value).tolist()
        text = ", ".join(format(each, pattern) for each in several)
        found.append((words, text))
    return found


def _rows(calibrations: dict[str, xr.Dataset]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for against, found in calibrations.items():
        for name, values in found.data_vars.items():
            (dim,) = values.dims or ("",)
            places = found[dim].values if dim else [""]
            for place, value in zip(places, np.atleast_1d(values.values), strict=True):
                row = {"against": against, "quantity": name, "over": dim, "at": place}
                rows.append(row | {"value": float(value)})
    return rows


def _cells(name: str, found: xr.Dataset, level: float) -> list[str]:
    cells = [{"truth": "the truth", "held_out": "held-out pixels"}[name]]
    for score, _, _, pattern in _SCORES:
        if score == "values":
            cells.append(format(int(found.attrs["values"]), pattern))
            continue
        value = found[score].sel(level=level) if score == "coverage" else found[score]
        cells.append(format(float(value), pattern))
    return cells


def _embedded(name: str, figure: Figure, folder: Path) -> dict[str, str]:
    path = folder / f"{name}.png"
    plotting.save_figure(figure, path)
    title, caption = CAPTIONS[name]
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return {"name": name, "title": title, "caption": caption, "data": data}


CAPTIONS = {
    "maps": (
        "Maps",
        "What is known, the mean of all draws, and how far they spread. Deviation and error are "
        "on one scale: where the error is brighter than the deviation, the draws are too sure. "
        "These are of the image itself, without the noise of a measurement.",
    ),
    "calibration": (
        "Can the spread be trusted?",
        "Left: an interval of a level should hold that share of the values; below the line the "
        "draws are too sure. Middle: removing the values of the largest deviation first should "
        "lower the error of the rest, as far as removing those of the largest error does. Right: "
        "values sorted into tenths by their deviation; on the line, the deviation has the size of "
        "the error. The noise of held-out pixels is counted in where it's stated.",
    ),
    "diagnostics": (
        "Have the chains converged?",
        "Traces should look like noise around a common level, in all chains. A misfit well below "
        "the dotted line means that noise is being fitted. R-hat compares chains: it is 1 if "
        "they agree. Effective draws say how many independent ones the draws are worth.",
    ),
}
