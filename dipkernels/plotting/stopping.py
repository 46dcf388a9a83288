"""Where the stopping rules stop on the curve that they can't see."""

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.style import colours, panels
from dipkernels.stopping import stopping_panel

_MARKERS = "osD^vP*X<>hd"


@checked
def plot_stopping(result: xr.Dataset, panel: xr.Dataset | None = None) -> Figure:
    """Draw PSNR to the clean image against iterations, with one mark for every rule.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.fit` returns, perhaps over ``image`` and ``seed``.
    panel : xarray.Dataset, optional
        What `dipkernels.stopping.stopping_panel` makes of it; by default with its default
        rules.

    Returns
    -------
    Figure
        One panel an image, with a curve and marks for each seed; rules that aren't applicable are
        left out. Black hollow marks know the clean image.

    Raises
    ------
    InvalidInputError
        If the clean image isn't known.
    """
    judged = stopping_panel(result) if panel is None else panel
    name = "psnr_average_clean" if judged.attrs["average"] else "psnr_clean"
    if name not in result:
        raise InvalidInputError(
            f"the result has no '{name}': without the clean image there is no curve to draw"
        )
    scores = result[name]
    if "region" in scores.dims:
        scores = scores.sel(region=result.attrs.get("score_region", "whole"), drop=True)
    count = result.sizes.get("image", 1)
    images = scores["image"].values if "image" in scores.coords else range(count)
    figure, axes = panels(count, width=4.2, height=3.0)
    for place, (axis, image) in enumerate(zip(axes, images, strict=True)):
        several = "image" in scores.dims
        _draw(
            axis,
            scores.isel(image=place) if several else scores,
            judged.isel(image=place) if several else judged,
        )
        axis.set_xlabel("iteration")
        if several:
            axis.set_title(f"image {image}")
    axes[0].set_ylabel("PSNR to clean (dB)" + (", average" if judged.attrs["average"] else ""))
    handles, labels = _all_labels(axes)
    figure.legend(handles, labels, loc="outside right upper", fontsize=8, frameon=False)
    return figure


# A rule may be applicable to one image only.
def _all_labels(axes: list[Axes]) -> tuple[list[Artist], list[str]]:
    found: dict[str, Artist] = {}
    for axis in axes:
        handles, labels = axis.get_legend_handles_labels()
        found = dict(zip(labels, handles, strict=True)) | found
    return list(found.values()), list(found)


def _draw(axis: Axes, scores: xr.DataArray, judged: xr.Dataset) -> None:
    curves = np.atleast_2d(scores.transpose(..., "iteration").values)
    axis.plot(curves.T, color="0.6", lw=0.9)
    names = [str(name) for name in judged["rule"].values]
    usable = judged["rule"].values[~judged["needs_truth"].values]
    colour = colours([str(name) for name in usable])
    for place, name in enumerate(names):
        rule = judged.isel(rule=place)
        if not rule["applicable"].any():
            continue
        filled = name in colour
        axis.plot(
            np.atleast_1d(rule["chosen"].values),
            np.atleast_1d(rule["psnr"].values),
            _MARKERS[place % len(_MARKERS)],
            color=colour[name] if filled else "black",
            mfc=colour[name] if filled else "none",
            ms=6 if filled else 9,
            mec="white" if filled else "black",
            zorder=3 if filled else 4,
            clip_on=False,
            label=name,
        )
