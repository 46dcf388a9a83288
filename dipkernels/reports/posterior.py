"""The page of a posterior: verdict first, then target, maps, calibration and diagnostics."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels import plotting, sampling
from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_note
from dipkernels.errors import MissingExtraError
from dipkernels.plotting.posterior import psnr_of, region_words
from dipkernels.reports.citing import reopening
from dipkernels.reports.draws import draws_fields
from dipkernels.reports.interactive import cells_of, head_of
from dipkernels.reports.pages import drawn, lead_of, write_page
from dipkernels.reports.table import Column, Row, csv_table, plain
from dipkernels.sampling.diagnostics import LEAST_DRAWS
from dipkernels.sampling.summaries import require_draws
from dipkernels.storage.netcdf import write_text
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

PAGE, TABLE = "index.html", "calibration.csv"
DIAGNOSED = 4096  # entries of the image, at most; ArviZ takes some seconds for them
LEVELS = (0.9, 0.8, 0.5)  # of the intervals: the first for which the draws suffice

NOISE_IN = " (with the noise of the measurement)"
NOISE_OUT = (
    " (without noise of the measurement, since none is stated: if it has some, they say less)"
)
AGAINST = {"truth": "the truth", "held_out": "held-out pixels"}

# Attribute, words, pattern.
_TARGET = (
    ("target", "density", "s"),
    ("weight_prior", "prior on the weights", "s"),
    ("noise_sigma", "standard deviation of the noise (white = 1)", ".4g"),
    ("temperature", "temperature (1 is Bayes' rule)", "g"),
    ("step_size", "step", ".4g"),
    ("schedule", "schedule of the step", "s"),
    ("friction", "friction", "g"),
    ("learning_rate", "learning rate", "g"),
    ("input_noise", "standard deviation of the input noise", ".4g"),
    ("weight_noise", "standard deviation of the noise on kernels, after each step", ".4g"),
    ("weight_decay", "weight decay", ".4g"),
    ("chains", "chains", "d"),
    ("members", "fits", "d"),
    ("iterations", "iterations", "d"),
    ("requested_iterations", "iterations of each fit", "d"),
    ("burn_in", "of which burn-in", "d"),
    ("thin", "iterations from draw to draw", "d"),
    ("error", "relative error of the solves, at most", ".2g"),
)

_REOPENED = """result = run.stages["posterior"]  # an xarray.Dataset; white is 1
print(result.draws.dims, result.attrs["method"])
uncertainty = dipkernels.sampling.uncertainty
maps = uncertainty.maps(result, levels=(0.5, 0.9))  # mean, std, lower, upper"""
_OF_CHAINS = """
print(dipkernels.sampling.summary(result))  # the diagnostics, by ArviZ
arviz_data = dipkernels.sampling.to_inference_data(result)"""

_DESCRIBED = {
    "maps": (
        "Maps",
        "The known images, the mean of all draws, and their spread. Standard deviation and error "
        "share a scale: where the error is brighter than the standard deviation, the draws are "
        "overconfident. All maps describe the image itself, without measurement noise.",
    ),
    "calibration": (
        "Can the spread be trusted?",
        "Left: an interval of a level should hold that share of the values; below the line the "
        "draws are overconfident. Middle: removing the values of the largest standard deviation "
        "first should lower the error of the rest, as far as removing those of the largest error "
        "does. Right: values sorted into tenths by their standard deviation; on the line, it "
        "equals the error. The noise of held-out pixels is included if it is stated.",
    ),
    "diagnostics": (
        "Have the chains converged?",
        "Traces should look like noise around a common level, in all chains. A misfit well below "
        "the dotted line means that noise is being fitted. R-hat compares chains and is 1 if they "
        "agree. The effective sample size is the number of independent draws that are worth as "
        "much.",
    ),
}


def _columns(level: float) -> Sequence[Column]:
    return (
        plain("against", "against", "s", "What the draws are compared with."),
        plain("values", "values", "d", "Number of predicted values."),
        plain("RMS error", "rmse", ".4f",
              "Root mean square error of the mean of the draws; white = 1."),
        plain("standard deviation", "sharpness", ".4f",
              "Mean of the predicted standard deviations; white = 1."),
        plain("error / standard deviation", "z_rms", ".2f",
              "Root mean square: 1 if standard deviations have the right size, more if they are "
              "too small."),
        plain(f"{level:.0%} intervals hold", "coverage", ".0%",
              f"Share of the values in their interval: {level:.0%} if it is calibrated."),
        plain("calibration error", "calibration_error", ".3f",
              "Mean distance of the coverage curve from the diagonal; 0 is best."),
        plain("sparsification error", "ause", ".3f",
              "Area between the two sparsification curves; 0 if standard deviations sort values "
              "as errors do."),
        plain("NLL", "nll", ".2f",
              "Mean negative log-likelihood of a Gaussian, in nats per value."),
    )  # fmt: skip


@checked(nan=True)
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


@checked
def posterior_page(
    folder: RunFolder,
    result: xr.Dataset,
    task: Task,
    *,
    words: str,
    headline: str | None = None,
    formats: Sequence[str] = ("png",),
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
    formats : sequence of str
        Of the figures beside the page, which holds PNG: ``"pdf"``, ``"svg"``.

    Returns
    -------
    PosteriorReport
        Beside its page are ``maps.png``, ``calibration.png`` and ``calibration.csv`` (where
        the draws can be compared with something) and, of chains, ``diagnostics.png``.

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
    figures: dict[str, Figure] = {"maps": plotting.plot_uncertainty(task, maps)}
    if calibrations:
        figures["calibration"] = plotting.plot_calibration(calibrations)
        write_text(csv_table(_rows(calibrations)), folder.path / TABLE)
    if "iteration" in result.dims:
        figures["diagnostics"] = plotting.plot_chains(task, result, diagnosis)
    sound, first = _verdict(result, diagnosis, why_not, headline)
    lines = _lines(result, maps, calibrations, task)
    page = write_page(
        folder,
        PAGE,
        "posterior",
        title=f"posterior of {(folder.settings or {}).get('image', 'an image')}"
        f" by {result.attrs.get('prior', 'network')}",
        verdict=first,
        sound=sound,
        question="How certain is the image?",
        lead=f"{result.attrs.get('prior', 'network')}, method "
        f"{result.attrs.get('method', 'sampled')}: {lead_of(folder, task)}",
        lines=lines,
        words=words,
        target=_target(result),
        figures=[
            {**each, "title": _DESCRIBED[each["name"]][0], "words": _DESCRIBED[each["name"]][1]}
            for each in drawn(figures, folder.path, formats)
        ],
        further=[_calibrated(calibrations, level)] if calibrations else [],
        **draws_fields(result, task, maps),
        diagnostics="" if diagnosis is None else sampling.summary(result, diagnosis),
        python=reopening(folder.path, _REOPENED + _OF_CHAINS * ("iteration" in result.dims)),
    )
    return PosteriorReport(page, first, tuple(lines))


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
            sound, first = (
                False,
                f"Not a posterior: the method has no known target distribution. {first}",
            )
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
        draws = psnr_of(task, result["draws"].values.reshape(-1, *task.shape))
        single = draws[np.isfinite(draws)].mean()
        lines.append(
            f"Mean of the draws {psnr_of(task, maps['mean'].values):.2f} dB to the truth "
            f"over the {region_words(task)}; single draws {single:.2f} dB on average."
        )
    for name, found in calibrations.items():
        noise = ""
        if name == "held_out":  # intervals of a new measurement are wider than those of the image
            noise = NOISE_IN if found.attrs["noise_sigma"] else NOISE_OUT
        share = float(found["coverage"].sel(level=level))
        lines.append(
            f"Against {AGAINST[name]}{noise}: {level:.0%} intervals hold {share:.0%} of "
            f"{found.attrs['values']} values; errors are {float(found['z_rms']):.2f} times the "
            "standard deviation."
        )
    if task.has_held_out:
        lines.append(_conformal(sampling.conformal.intervals(result, task, levels=(level,)), level))
    if not calibrations:
        lines.append(
            "The spread can't be checked: there is no clean image and there are no held-out pixels."
        )
    return [*lines, spread_note()]


def _conformal(found: xr.Dataset, level: float) -> str:
    factor, gaussian = float(found["factor"][0]), float(found["gaussian"][0])
    pixels = found.attrs["pixels"]
    if not np.isfinite(factor):
        return f"{pixels} held-out pixels are too few for conformal intervals of {level:.0%}."
    return (
        f"Conformal intervals: +- {factor:.2f} standard deviations hold {level:.0%} of new "
        f"measurements, by {pixels} held-out pixels; {gaussian:.2f} would if the draws were right "
        "and Gaussian."
    )


def _target(result: xr.Dataset) -> list[tuple[str, str]]:
    found = []
    for name, words, pattern in _TARGET:
        value = result.attrs.get(name)
        # of a law of errors with no level of its own it's 0
        if value is None or (name == "noise_sigma" and not (value and "target" in result.attrs)):
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


def _calibrated(calibrations: dict[str, xr.Dataset], level: float) -> dict[str, object]:
    columns, rows = _columns(level), []
    for name, found in calibrations.items():
        at_level = found.sel(level=level)
        row: Row = {c.key: float(at_level[c.key]) for c in columns if c.key in found}
        row |= {"against": AGAINST[name], "values": int(found.attrs["values"])}
        rows.append({"cells": cells_of(columns, row)})
    head = {"id": "calibration", "title": "Scores of the spread", "columns": head_of(columns)}
    return head | {"rows": rows, "explained": True}
