"""What moves on the page of a posterior: draws of chains, traces with a mark, maps beside them."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dipkernels.plotting.posterior import psnr_of, region_words
from dipkernels.plotting.style import styles
from dipkernels.reports import charts
from dipkernels.reports.charts import Curve, network_lines
from dipkernels.reports.frames import Frames, plane, sheets
from dipkernels.reports.interactive import (
    PARTS,
    REFERENCES,
    Chart,
    drawing_words,
    panes_fields,
    power_chart,
    powers,
    scale_of,
)
from dipkernels.sampling.summaries import require_draws
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES

if TYPE_CHECKING:
    from bokeh.plotting import figure

FRAMES = 40  # draws of each chain that are shown
MOST = 0.995  # of the values of a map lie between black and white
MEAN, DEVIATION, ERROR = "mean", "deviation", "error"
MAPS = {
    MEAN: "mean of the draws",
    DEVIATION: "standard deviation",
    ERROR: "|mean - clean image|",
}
SCORE = (
    "Score of every image",
    "{} of every image of the chains. The dashed upright line is the draw of the slider. Grey: "
    "burn-in, of which no draw is taken.",
)
AVERAGE = (
    "Score of the mean so far",
    "{} of the mean of all images of a chain since its burn-in. Where it still moves, more "
    "iterations would change the mean.",
)
MISFIT = (
    "Misfit of every image",
    "Mean squared misfit of the measured pixels over the variance of the noise: 1 for the truth, "
    "less where noise is fitted. Chains that agree have traces around one level.",
)
LOSS = (
    "Misfit of every image",
    "Mean misfit of the measured pixels. Chains that agree have traces around one level.",
)
POWER = (
    "Error by spatial frequency",
    "Of the draw at the slider: how much of the {} there is at each spatial frequency, averaged "
    "over rings. Dashed grey: the measured image, if it has all pixels.",
)


def maps_beside(
    mean: np.ndarray, deviation: np.ndarray, task: Task
) -> tuple[dict[str, np.ndarray], dict[str, tuple[float, float]], dict[str, str]]:
    """Lay out a mean with its maps and what is known: images, black and white, what is said.

    Deviation and error, root mean squares over channels, share black and white.
    """  # noqa: DOC201
    shown, notes = {MEAN: mean, DEVIATION: deviation}, {}
    for name, tensor in (("clean", task.clean), ("measured", task.measurement)):
        if tensor is not None and tensor.shape == task.shape:
            shown[name] = (tensor / task.data_range).cpu().double().numpy()
    if "measured" in shown and not bool(task.counted.all()):
        shown["mask"] = task.counted.cpu().numpy().astype(float)
    if "clean" in shown:
        shown[ERROR] = np.abs(mean - shown["clean"])
        score = float(psnr_of(task, mean))
        notes[MEAN] = f"{score:.2f} dB to clean, over the {region_words(task)}"
    spread = [name for name in (DEVIATION, ERROR) if name in shown]
    if len(task.shape) > 2:
        for name in spread:
            shown[name] = np.sqrt(np.square(shown[name]).mean(axis=0, keepdims=True))
    top = max(float(np.quantile(shown[name], MOST)) for name in spread) or 1.0
    for name in spread:
        average = float(np.sqrt(np.square(shown[name]).mean()))
        notes[name] = f"black 0, white {top:.3g} or more; root mean square {average:.3g}"
    images = {name: plane(image).astype(np.float32) for name, image in shown.items()}
    return images, dict.fromkeys(spread, (0.0, top)), notes


def titles_of(images: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Name the maps and images that can be chosen."""
    return {name: text for name, text in (MAPS | REFERENCES).items() if name in images}


def draws_fields(result: xr.Dataset, task: Task, maps: xr.Dataset) -> dict[str, Any]:
    """Make the fields of the draws of a result, beside the maps of their mean and spread."""
    draws = require_draws(result)
    over = "draw_iteration" in result and "iteration" in result.dims
    word = "iteration" if over else "draw"
    at = np.arange(1, draws.sizes["draw"] + 1)
    if over:
        at = result.draw_iteration.values.astype(int)
    kept = charts.spaced(draws.sizes["draw"], FRAMES)
    single = draws.sizes["chain"] == 1 and not over
    names = {"draws" if single else f"chain {c}": i for i, c in enumerate(draws.chain.values)}
    images, ranges, notes = maps_beside(maps["mean"].values, maps["std"].values, task)
    frames = {
        name: Frames(
            [int(i) for i in at[kept]],
            np.stack([plane(each) for each in draws.values[chain, kept]]).astype(np.float32),
        )
        for name, chain in names.items()
    }
    found = sheets(frames, images, own=ranges)
    known = {name: image for name, image in images.items() if name in (*REFERENCES, "mask")}
    power, noise, radii = powers(found.kept, known)
    looks = styles(names)
    whole = result.sel(chain=draws.chain)
    scores = None if task.clean is None else _scores(draws, task)
    drawn = _traces(whole, task, looks) if over else _of_draws(scores, names, looks)
    if radii is not None:
        clean = "clean" in known
        drawn.append(power_chart(radii, power, looks, noise, clean=clean, words=POWER))
    numbers = {int(i): number for number, i in enumerate(at)}

    def said(name: str, frames: Frames) -> list[str]:
        place = [numbers[i] for i in frames.iterations]
        words = [f"draw {n + 1} of {len(numbers)}" for n in place] if over else [""] * len(place)
        if scores is None:
            return words
        values = [f"{scores[names[name], n]:.2f} dB to clean" for n in place]
        return [", ".join(filter(None, pair)) for pair in zip(words, values, strict=True)]

    return {
        **panes_fields(
            found,
            list(names),
            looks,
            drawn,
            word=word,
            said=said,
            chosen=[next(iter(names)), *(name for name in MAPS if name in images)],
            titles=titles_of(images),
            notes=notes,
            ranges=ranges,
            parts=PARTS,
            power=power,
            scale=scale_of(known),
            start=int(at[-1]),
        ),
        "moving": "Through the draws",
        "needs": "This part needs JavaScript: images of the chains, with traces.",
        "frames_note": _note(frames, found.kept, known, found.block),
    }


def _scores(draws: xr.DataArray, task: Task) -> np.ndarray:
    found = psnr_of(task, draws.values.reshape(-1, *task.shape))
    return np.asarray(found).reshape(draws.shape[:2])


def _traces(result: xr.Dataset, task: Task, looks: charts.Looks) -> list[Chart]:
    """Draw score, score of the mean, and misfit of every iteration."""
    found: list[Chart] = []
    score = next((name for name in ("psnr_clean", "held_out") if name in result), None)
    if score is not None:
        of = "PSNR to the clean image"
        axis = f"PSNR over the {region_words(task)} (dB)"
        if score == "held_out":
            of, axis = "Squared error on held-out pixels", "held-out squared error (white = 1)"
        mean = {"psnr_clean": "psnr_mean", "held_out": "held_out_mean"}[score]
        for name, (title, text), variable in (
            ("chart-score", SCORE, score),
            ("chart-mean", AVERAGE, mean),
        ):
            draw = partial(_trace, result, result[variable], looks, axis)
            found.append((name, (title, text.format(of)), draw))
    loss, words, axis = result["loss"] / task.measured_fraction, LOSS, "mean misfit"
    sigma = float(result.attrs.get("noise_sigma", 0.0)) * task.data_range
    if sigma and task.law == SQUARES:
        loss, words, axis = loss / sigma**2, MISFIT, "mean squared misfit / variance of the noise"
    values = loss.values[np.isfinite(loss.values) & (loss.values > 0)]
    wide = len(values) > 0 and values.max() > 20 * values.min()
    draw = partial(_trace, result, loss, looks, axis, **({"y_axis_type": "log"} if wide else {}))
    return [*found, ("chart-misfit", words, draw)]


def _trace(
    result: xr.Dataset, values: xr.DataArray, looks: charts.Looks, axis: str, **axes: Any
) -> "figure":
    at = charts.spaced(result.sizes["iteration"], charts.MOST)
    lines = {
        name: Curve(at, values.transpose("chain", "iteration").values[chain, at])
        for chain, name in enumerate(looks)
    }
    plot = network_lines(lines, looks, "iteration", axis, **axes)
    burn_in = int(result.attrs.get("burn_in", 0))
    if 0 < burn_in < result.sizes["iteration"]:
        charts.shaded(plot, right=float(burn_in))
    charts.mark(plot)
    return plot


def _of_draws(
    scores: np.ndarray | None, names: Mapping[str, int], looks: charts.Looks
) -> list[Chart]:
    """Draw the score of every draw, of methods that have no iterations."""
    if scores is None:
        return []

    def draw() -> "figure":
        at = 1 + charts.spaced(scores.shape[1], charts.MOST)
        lines = {name: Curve(at, scores[chain, at - 1]) for name, chain in names.items()}
        plot = network_lines(lines, looks, "draw", "PSNR (dB)")
        charts.mark(plot)
        return plot

    words = "PSNR to the clean image of every draw. The dashed upright line is that of the slider."
    return [("chart-score", ("Score of every draw", words), draw)]


def _note(
    frames: Mapping[str, Frames],
    kept: Mapping[str, Frames],
    known: Mapping[str, np.ndarray],
    block: int,
) -> str:
    most = max(len(each.iterations) for each in kept.values())
    said = [
        f"At most {most} draws of each chain are here, evenly spread, in 8 bits; arrow keys move "
        "the slider, too."
    ]
    if len(frames) > 1:
        said.append("Mean and standard deviation are of all chains together.")
    said += drawing_words(known, block)
    return " ".join(said)
