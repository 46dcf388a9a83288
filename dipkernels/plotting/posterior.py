"""Posteriors: maps of uncertainty, their calibration, what chains did; Gaussian processes."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import pixel_axes
from dipkernels.plotting.style import (
    PALETTE,
    band,
    colours,
    heat_map,
    middle_slices,
    panels,
    show,
    show_image,
)
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES

UNITS = "white = 1"
NOT_COUNTED = mpl.colors.to_rgb("#56B4E9")
NAMES = {"truth": "the clean image", "held_out": "held-out pixels"}
POINTS = 2000  # of a trace, at most
MOST = 0.995  # of the values are within a scale of colours


@checked
def plot_uncertainty(task: Task, maps: xr.Dataset) -> Figure:
    """Draw the truth, the measurement, the posterior mean, and how sure it is.

    Parameters
    ----------
    task : Task
        That was sampled: an image, a volume, or a signal.
    maps : xarray.Dataset
        As `dipkernels.sampling.uncertainty.maps` makes them; the width is that of the widest level.

    Returns
    -------
    Figure
        Of an image, or the middle slices of a volume: panels, with root mean squares over channels
        of deviation and error, on one scale, and the mean width over channels. Of a signal: for
        each channel the mean with a band, and below it deviation and error.

    Raises
    ------
    InvalidInputError
        If the maps have another shape than the task.
    """
    if maps["mean"].shape != task.shape:
        raise InvalidInputError(
            f"the maps have shape {maps['mean'].shape}, the task {task.shape}: give the task that "
            "was sampled"
        )
    return _signals(task, maps) if len(task.shape) == 2 else _images(task, maps)


def _images(task: Task, maps: xr.Dataset) -> Figure:
    mean = maps["mean"].values
    clean = _scaled(task, "clean")
    pictures = {} if clean is None else {"truth": clean}
    measured = _scaled(task, "measurement")
    if measured is not None and measured.ndim == len(task.shape) and len(measured) in (1, 3):
        pictures["measured"] = measured
    title = "mean of the draws"
    if task.clean is not None:
        title += f"\n{psnr_of(task, mean):.2f} dB over the {region_words(task)}"
    pictures[title] = mean
    spread = {"standard deviation": _rms(maps["std"].values)}
    if clean is not None:
        spread["|mean - truth|"] = _rms(mean - clean)
    top = max(float(np.quantile(values, MOST)) for values in spread.values()) or 1.0
    level = float(maps["level"][-1])
    width = (maps["upper"] - maps["lower"]).isel(level=-1).values.mean(axis=0)

    count = len(pictures) + len(spread) + 1
    columns = min(3, len(pictures))
    figure, axes = panels(count, columns=max(columns, 3), width=2.7, height=2.3)
    for axis, (name, picture) in zip(axes, pictures.items(), strict=False):
        if name == "measured":
            _measured(axis, task, picture)
        else:
            show_image(axis, picture, name)
    rest = axes[len(pictures) :]
    for axis, (name, values) in zip(rest, spread.items(), strict=False):
        heat_map(axis, values, name, UNITS, limits=(0.0, top))
    widest = float(np.quantile(width, MOST)) or 1.0
    heat_map(rest[-1], width, f"width of the {level:.0%} interval", UNITS, limits=(0.0, widest))
    return figure


def _measured(axis: Axes, task: Task, picture: np.ndarray) -> None:
    counted = task.counted.cpu().numpy()
    # A mask of lines and columns only: what was measured may be no pixels at all.
    if counted.shape != picture.shape or counted.all():
        show_image(axis, picture, "measured")
        return
    if picture.ndim == 4:
        picture, counted = middle_slices(picture), middle_slices(counted)
    whole = counted.any(axis=0)
    colour = np.broadcast_to(picture, (3, *picture.shape[1:])).copy()
    colour[:, ~whole] = np.array(NOT_COUNTED)[:, None]
    show_image(axis, colour, "measured\n(blue: missing or held out)")


def _signals(task: Task, maps: xr.Dataset) -> Figure:
    channels, length = task.shape
    figure, axes = panels(2 * channels, columns=1, width=7.0, height=2.1)
    x = np.arange(length)
    measured, clean = _scaled(task, "measurement"), _scaled(task, "clean")
    counted = task.counted.cpu().numpy()
    level = float(maps["level"][-1])
    for channel in range(channels):
        upper, lower = axes[2 * channel : 2 * channel + 2]
        mean, std = (maps[name].values[channel] for name in ("mean", "std"))
        low, high = (maps[name].isel(level=-1).values[channel] for name in ("lower", "upper"))
        band(upper, x, low, high, PALETTE[0], 0.25, label=f"{level:.0%} interval")
        upper.plot(x, mean, color=PALETTE[0], label="mean of the draws")
        if clean is not None:
            upper.plot(x, clean[channel], color="black", lw=0.9, label="truth")
        if measured is not None and measured.shape == task.shape:
            seen = counted[channel]
            upper.plot(
                x[seen], measured[channel][seen], ".", color="0.55", ms=2.5, label="measured"
            )
        lower.plot(x, std, color=PALETTE[0], label="standard deviation")
        if clean is not None:
            error = np.abs(mean - clean[channel])
            lower.plot(x, error, color=PALETTE[4], lw=0.9, label="|mean - truth|")
        lower.set_ylim(bottom=0)
        of = f", channel {channel}" if channels > 1 else ""
        upper.set_ylabel(f"value{of}\n({UNITS})", fontsize=8)
        lower.set_ylabel(f"size{of}\n({UNITS})", fontsize=8)
        for axis in (upper, lower):
            axis.set_xlim(0, length - 1)
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7)
    axes[-1].set_xlabel("position (samples)", fontsize=8)
    return figure


@checked
def plot_calibration(calibrations: Mapping[str, xr.Dataset]) -> Figure:
    """Draw coverage, sparsification, and errors against the deviations that predicted them.

    Parameters
    ----------
    calibrations : mapping of str to Dataset
        As `dipkernels.sampling.uncertainty.calibration` gives them.

    Returns
    -------
    Figure
        One row for each.

    Raises
    ------
    InvalidInputError
        If there is none.
    """
    if not calibrations:
        raise InvalidInputError("plot_calibration needs at least one calibration, got none")
    figure, axes = panels(3 * len(calibrations), columns=3, width=3.1, height=2.7)
    for row, (name, found) in enumerate(calibrations.items()):
        coverage, sparse, binned = axes[3 * row : 3 * row + 3]
        against = NAMES.get(name, name)
        coverage.plot([0, 1], [0, 1], color="0.6", lw=0.9, label="ideal")
        coverage.plot(found["level"], found["coverage"], "o-", ms=3, label="found")
        coverage.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the interval")
        coverage.set_ylabel("share of values inside")
        coverage.set_title(f"{against}: coverage", fontsize=9)
        sparse.plot(found["removed"], found["oracle"], "--", color="0.5", label="by error (best)")
        sparse.plot(found["removed"], found["sparsification"], label="by deviation")
        sparse.axhline(1, color="0.6", lw=0.9, ls=":", label="at random")
        sparse.set(xlim=(0, 1), xlabel="share of values removed")
        sparse.set_ylim(bottom=0)
        sparse.set_ylabel("error of the rest\n(RMS, relative)")
        sparse.set_title(f"{against}: sparsification", fontsize=9)
        deviation, error = found["binned_deviation"].values, found["binned_error"].values
        top = 1.08 * max(deviation.max(), error.max()) or 1.0
        binned.plot([0, top], [0, top], color="0.6", lw=0.9, label="ideal")
        binned.plot(deviation, error, "o-", ms=3, label="tenths of the values")
        binned.set(xlim=(0, top), ylim=(0, top))
        binned.set_xlabel(f"predicted deviation (RMS, {UNITS})")
        binned.set_ylabel(f"error (RMS, {UNITS})")
        binned.set_title(f"{against}: error, deviation", fontsize=9)
        for axis in (coverage, sparse, binned):
            axis.legend(fontsize=7)
    return figure


@checked
def plot_chains(task: Task, result: xr.Dataset, diagnosis: xr.Dataset | None = None) -> Figure:
    """Draw what chains did, and where their draws agree.

    Parameters
    ----------
    task : Task
        That was sampled.
    result : xarray.Dataset
        As `dipkernels.sampling.sample` returns.
    diagnosis : xarray.Dataset, optional
        As `dipkernels.sampling.diagnose` returns; without, traces only. Where it doesn't hold all
        entries, a cell of the maps shows the worst of those in it.

    Returns
    -------
    Figure
        Traces of the misfit in units of the noise and of a score, from burn-in on their own colour
        by chain; maps of R-hat (if there is more than one chain) and of bulk effective sample size.

    Raises
    ------
    InvalidInputError
        If the result is not one of chains.
    """
    if "iteration" not in result.dims:
        raise InvalidInputError("plot_chains takes a result over iterations: draws have no traces")
    several = diagnosis is not None and diagnosis.attrs["chains"] > 1
    figure, axes = panels(2 + (diagnosis is not None) + several, columns=2, width=4.0, height=2.6)
    _trace_misfit(axes[0], task, result)
    _trace_score(axes[1], result)
    axes[0].legend(fontsize=7)
    if diagnosis is None:
        return figure
    known = diagnosis.isel(pixel=~diagnosis["constant"].values)
    if several:
        top = max(1.1, float(np.nanmax(known["rhat"].values, initial=1.0)))
        _diagnosed(axes[2], known, "rhat", task, worst=np.fmax, limits=(1.0, min(top, 2.0)))
    _diagnosed(axes[-1], known, "ess_bulk", task, worst=np.fmin, limits=(0.0, None))
    return figure


def _trace_misfit(axis: Axes, task: Task, result: xr.Dataset) -> None:
    loss = result["loss"] / task.measured_fraction
    sigma = float(result.attrs.get("noise_sigma", 0.0)) * task.data_range
    squares = task.law == SQUARES
    label = f"mean {'squared ' if squares else ''}misfit (measured pixels)"
    if sigma and squares:
        loss, label = loss / sigma**2, "mean squared misfit\nover the noise's variance"
        axis.axhline(1, color="0.5", lw=0.9, ls=":", label="of the truth")
    _traces(axis, result, loss)
    values = loss.values[np.isfinite(loss.values) & (loss.values > 0)]
    if len(values) and values.max() > 20 * values.min():
        axis.set_yscale("log")
    axis.set_ylabel(label, fontsize=8)


def _trace_score(axis: Axes, result: xr.Dataset) -> None:
    if "psnr_clean" in result:
        name, mean, label = "psnr_clean", "psnr_mean", "PSNR to the truth (dB)"
    elif "held_out" in result:
        name, mean, label = "held_out", "held_out_mean", f"held-out squared error ({UNITS})"
    else:
        axis.text(0.5, 0.5, "no truth, no held-out pixels:\nno score", ha="center", va="center")
        axis.set_axis_off()
        return
    _traces(axis, result, result[name], thin=True)
    for chain, colour in colours(result["chain"].values).items():
        axis.plot(result["iteration"], result[mean].sel(chain=chain), color=colour, lw=1.8)
    axis.plot([], [], color="0.3", lw=0.6, alpha=0.6, label="each image")
    axis.plot([], [], color="0.3", lw=1.8, label="mean after burn-in")
    axis.set_ylabel(label, fontsize=8)
    axis.legend(fontsize=7)


def _traces(axis: Axes, result: xr.Dataset, values: xr.DataArray, *, thin: bool = False) -> None:
    step = -(-result.sizes["iteration"] // POINTS)
    for number, (chain, colour) in enumerate(colours(result["chain"].values).items()):
        line = values.sel(chain=chain)[::step]
        look = {"alpha": 0.6} if thin else {"label": f"chain {number}"}
        axis.plot(line["iteration"], line, color=colour, lw=0.6, **look)
    burn_in = int(result.attrs.get("burn_in", 0))
    if 0 < burn_in < result.sizes["iteration"]:
        axis.axvspan(0, burn_in, color="0.93", lw=0, zorder=0)
        axis.set_title("grey: burn-in", fontsize=8)
    axis.set_xlim(0, result.sizes["iteration"] - 1)
    axis.set_xlabel("iteration", fontsize=8)


def _diagnosed(
    axis: Axes,
    diagnosis: xr.Dataset,
    name: str,
    task: Task,
    *,
    worst: np.ufunc,
    limits: tuple[float, float | None],
) -> None:
    values = diagnosis[name].values
    title = "R-hat (1.01 at most)"
    if name != "rhat":
        title = f"bulk effective draws (at least {100 * int(diagnosis.attrs['chains'])})"
    dims = pixel_axes(task.shape)[1:]
    places = [diagnosis[dim].values for dim in dims]
    if len(places) == 1:
        top = limits[1]
        above = top is not None and bool((values > top).any())
        axis.plot(
            places[0], values if top is None else np.minimum(values, top), ".", ms=3, clip_on=False
        )
        axis.set_ylim(bottom=limits[0], top=top)
        axis.set_xlabel("position (samples)", fontsize=8)
        title += f", {top:g}: or more" if above else ""
        axis.set_title(title, fontsize=8)
        return
    cell = _cell(len(values), task)
    side = tuple(-(-n // cell) for n in task.shape[1:])
    table = np.full(side, np.nan)
    worst.at(table, tuple(place // cell for place in places), values)
    cells = f", cells of {'x'.join([str(cell)] * len(side))} pixels" if cell > 1 else ""
    label, cmap = ("R-hat", "magma") if name == "rhat" else ("effective draws", "viridis")
    title += f"\nworst of the channels{cells}"
    heat_map(axis, table, title, label, limits=limits, cmap=cmap)


# Such that a cell holds some two of the entries that were diagnosed.
def _cell(entries: int, task: Task) -> int:
    pixels = int(np.prod(task.shape[1:]))
    if entries >= pixels:
        return 1
    return int(np.ceil((2 * pixels / max(entries, 1)) ** (1 / (len(task.shape) - 1))))


@checked
def plot_posteriors(task: Task, posteriors: Mapping[str, xr.Dataset]) -> Figure:
    """Draw a measurement, the posterior means of several processes, and one's deviation.

    Parameters
    ----------
    task : Task
        Titles give PSNR where it is scored, if it has a clean image.
    posteriors : mapping of str to Dataset
        As `gp.GPPosterior.dataset` makes them; the last one's standard deviation is shown.

    Returns
    -------
    Figure
        One row.

    Raises
    ------
    InvalidInputError
        If there is no posterior.
    """
    if not posteriors:
        raise InvalidInputError("plot_posteriors needs at least one posterior, got none")
    figure, axes = panels(len(posteriors) + 2, columns=len(posteriors) + 2, width=2.2, height=2.3)
    show(axes[0], task.measurement.cpu().numpy(), f"measured ({task.name})")
    where = "" if task.score_region == "whole" else f" ({task.score_region})"
    for axis, (name, found) in zip(axes[1:], posteriors.items(), strict=False):
        title = name
        if task.clean is not None:
            title += f"\n{psnr_of(task, found['mean'].values / task.data_range):.2f} dB{where}"
        show(axis, found["mean"].values, title)
    name, last = list(posteriors.items())[-1]
    deviation = last["standard_deviation"].mean("channel").values
    title = f"standard deviation,\n{name}"
    if deviation.ndim == 1:
        show(axes[-1], deviation, title)
    else:
        heat_map(axes[-1], deviation, title, "units of the image", shrink=0.75)
    return figure


def region_words(task: Task) -> str:
    """Say where a task is scored."""
    whole = "whole signal" if len(task.shape) == 2 else "whole image"
    return whole if task.score_region == "whole" else task.score_region


def _scaled(task: Task, name: str) -> np.ndarray | None:
    tensor = getattr(task, name)
    return None if tensor is None else (tensor / task.data_range).cpu().double().numpy()


def psnr_of(task: Task, images: np.ndarray) -> np.ndarray:
    """Score images in units of white, where a task is scored, in dB."""
    pixels = torch.tensor(images, dtype=torch.float64) * task.data_range
    return task.to(device="cpu", dtype=torch.float64).psnr(pixels).numpy()


def _rms(values: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.square(values).mean(axis=0)))
