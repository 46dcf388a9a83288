"""Where the stopping rules stop on the curve that they can't see."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.stopping import stopping_panel
from dipkernels.plotting.style import colours, panels, shared_legend

_MARKERS = "osD^vP*X<>hd"


def plot_stopping(result: xr.Dataset, panel: xr.Dataset | None = None) -> Figure:
    """Draw PSNR to the clean image against iterations, with one mark for every rule.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.fit` returns, perhaps over ``image`` and ``seed``.
    panel : xarray.Dataset, optional
        What `dipkernels.fitting.stopping.stopping_panel` makes of it; by default with its default
        rules.

    Returns
    -------
    Figure
        One panel an image, with a curve and marks for each seed; rules that aren't applicable are
        left out. Hollow marks know the clean image.

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
    shared_legend(figure, axes[0])
    return figure


def _draw(axis: Axes, scores: xr.DataArray, judged: xr.Dataset) -> None:
    curves = np.atleast_2d(scores.transpose(..., "iteration").values)
    axis.plot(curves.T, color="0.6", lw=0.9)
    names = [str(name) for name in judged["rule"].values]
    for place, (name, colour) in enumerate(colours(names).items()):
        rule = judged.isel(rule=place)
        if not rule["applicable"].any():
            continue
        axis.plot(
            np.atleast_1d(rule["chosen"].values),
            np.atleast_1d(rule["psnr"].values),
            _MARKERS[place % len(_MARKERS)],
            color=colour,
            mfc="none" if rule["needs_truth"] else colour,
            ms=6,
            label=name,
        )
