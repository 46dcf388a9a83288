"""Curves: what was fitted against iterations, what was predicted, and both together."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.base.checks import checked
from dipkernels.fitting import Peak, peak
from dipkernels.plotting.style import (
    MEASURED,
    NOISY,
    THEORY,
    band,
    by_image,
    colours,
    over_seeds,
    panels,
    shared_legend,
)  # fmt: skip
from dipkernels.theory.curves import resolved_stretch

Datasets = Mapping[str, xr.Dataset]
MOST = 60.0  # dB; bounds may be infinite


@checked
def plot_fits(fits: Datasets, predictions: Datasets | None = None) -> Figure:
    """Draw PSNR to the clean and to the measured image against iterations, one panel a fit.

    Parameters
    ----------
    fits : mapping of str to Dataset
        Results of `dipkernels.fit` by name. Several seeds are drawn as their mean and range,
        several images as panels of their own.
    predictions : mapping of str to Dataset, optional
        Their predicted peaks are drawn as bands.

    Returns
    -------
    Figure
        On one scale of PSNR. Without a clean image, only the PSNR to the measurement is drawn.
    """
    shown = by_image(fits)
    figure, axes = panels(len(shown), width=3.1 if len(shown) > 1 else 5.0)
    for panel, (name, fit) in zip(axes, shown, strict=True):
        x = fit.iteration.values
        if "psnr_clean" in fit:
            score = fit.sel(region=fit.score_region)
            average, label = score.psnr_average_clean, "average, to clean"
            over_seeds(panel, x, score.psnr_clean, label="to clean", color=MEASURED)
            over_seeds(panel, x, average, ls=":", label=label, color=MEASURED)
        over_seeds(panel, x, fit.psnr_noisy, color=NOISY, label="to measured", alpha=0.8)
        if "psnr_clean" in fit:
            panel.plot(fit.peak_iteration, fit.peak_psnr, "o", color=MEASURED, ms=4)
            name = f"{name}: peak {_short(peak(fit))}"
        if predictions and name.partition(":")[0] in predictions:
            _peak_band(panel, predictions[name.partition(":")[0]])
        panel.set_title(name.replace(": ", "\n"), fontsize=9)
        panel.set_xlabel("iteration")
    _one_scale(axes, [fit for _, fit in shown])
    axes[0].set_ylabel("PSNR (dB)")
    shared_legend(figure, axes[0])
    return figure


def _short(found: Peak) -> str:
    spread = f" ± {found.spread:.2f}" if found.seeds > 1 else ""
    return f"{found.psnr:.2f}{spread} dB at {found.iteration:.0f}"


# All panels show PSNRs from the lowest to a little above the highest peak.
def _one_scale(axes: list[Axes], fits: list[xr.Dataset]) -> None:
    known = [fit for fit in fits if "psnr_clean" in fit]
    if not known:
        return
    low = min(float(fit.psnr_clean.min()) for fit in known)
    high = max(float(np.max(fit.peak_psnr)) for fit in known)
    for panel in axes:
        panel.set_ylim(low - 0.5, high + 3)


def _peak_band(panel: Axes, prediction: xr.Dataset) -> None:
    panel.axhline(prediction.peak_psnr, color=THEORY, lw=1, ls="--", label="predicted peak")
    if prediction.peak_resolved or prediction.attrs.get("peak_extrapolated"):
        ends = prediction.peak_psnr_lower, prediction.peak_psnr_upper
        panel.axhspan(*ends, color=THEORY, alpha=0.15, lw=0)
    else:
        panel.annotate(
            "at least", (0.99, prediction.peak_psnr), xycoords=("axes fraction", "data"),
            color=THEORY, fontsize=7, ha="right", va="bottom",
        )  # fmt: skip


@checked
def plot_descent(fits: Datasets, predictions: Datasets) -> Figure:
    """Draw gradient descent, measured and predicted at the same iterations, one panel a prior.

    Parameters
    ----------
    fits : mapping of str to Dataset
        Fits by gradient descent.
    predictions : mapping of str to Dataset
        As the stage of that name makes them in `dipkernels.compare`.

    Returns
    -------
    Figure
        Iterations on a logarithmic scale, shifted by one.
    """
    shown = [name for name in fits if name in predictions]
    figure, axes = panels(max(1, len(shown)))
    for panel, name in zip(axes, shown, strict=False):
        fit, prediction = fits[name], predictions[name]
        score = prediction.sel(region=prediction.score_region)
        iteration = prediction.iteration.values + 1
        measured = fit.psnr_clean.sel(region=fit.score_region)
        panel.plot(fit.iteration.values + 1, measured, color=MEASURED, label="measured")
        panel.plot(iteration, score.descent_psnr, color=THEORY, ls="--", label="predicted")
        high = np.minimum(score.descent_psnr_upper, MOST)
        band(panel, iteration, score.descent_psnr_lower, high, THEORY)
        shown_range = np.concatenate([measured.values, score.descent_psnr.values])
        panel.set_ylim(shown_range.min() - 0.3, shown_range.max() + 0.5)
        panel.set_xscale("log")
        panel.set_title(name)
        panel.set_xlabel("iteration + 1")
    axes[0].set_ylabel("PSNR to clean (dB)")
    shared_legend(figure, axes[0])
    return figure


@checked
def plot_predictions(predictions: Datasets) -> Figure:
    """Draw the predicted PSNR of gradient flow against time, all priors together.

    Parameters
    ----------
    predictions : mapping of str to Dataset
        Learning curves.

    Returns
    -------
    Figure
        Time in units of one over the largest eigenvalue. Lines end where the numerics no longer
        tell the curve to 1 dB; the bands go on.
    """
    figure, (panel,) = panels(1, width=6.5, height=3.6)
    colour = colours(list(predictions))
    top = 0.0
    for name, prediction in predictions.items():
        score = prediction.sel(region=prediction.score_region)
        time = prediction.time.values * prediction.largest_eigenvalue
        told = resolved_stretch(prediction, prediction.score_region)
        panel.plot(time[:told], score.psnr[:told], color=colour[name], label=name)
        high = np.minimum(score.psnr_upper, MOST)
        band(panel, time, score.psnr_lower, high, colour[name], 0.12)
        top = max(top, prediction.peak_psnr)
    panel.set_ylim(min(float(p.psnr.min()) for p in predictions.values()) - 0.5, top + 3)
    panel.set_xscale("log")
    panel.set_xlabel("time x largest eigenvalue (iterations of gradient descent)")
    panel.set_ylabel("expected PSNR to clean (dB)")
    panel.legend(fontsize=7, ncols=2, loc="upper left", frameon=False)
    return figure


@checked
def plot_predicted_against_measured(adam: Datasets, predictions: Datasets) -> Figure:
    """Draw the measured peak under Adam against the peak that the kernel predicts.

    Parameters
    ----------
    adam : mapping of str to Dataset
        Fits with Adam.
    predictions : mapping of str to Dataset
        Learning curves.

    Returns
    -------
    Figure
        A point on the diagonal is a right prediction. Bars are the numerical band, and the
        deviation over seeds. An arrow starts at what an unresolved peak certainly reaches.
    """
    shown = [name for name in adam if name in predictions]
    figure, (panel,) = panels(1, width=4.6, height=4.0)
    colour = colours(list(adam))
    values = []
    for name in shown:
        p, highest = predictions[name], peak(adam[name])
        measured, deviation = highest.psnr, highest.spread if highest.seeds > 1 else 0.0
        if p.peak_resolved or p.attrs.get("peak_extrapolated"):
            error = [[p.peak_psnr - p.peak_psnr_lower], [p.peak_psnr_upper - p.peak_psnr]]
            panel.errorbar(
                p.peak_psnr, measured, deviation, error,
                fmt="o", color=colour[name], capsize=2, ms=5, label=name,
            )  # fmt: skip
        else:  # the peak lies somewhere to the right
            panel.annotate(
                "", (p.peak_psnr + 1.2, measured), (p.peak_psnr, measured),
                arrowprops={"arrowstyle": "->", "color": colour[name], "lw": 1.5},
            )  # fmt: skip
            panel.plot(p.peak_psnr, measured, "|", color=colour[name], ms=9, mew=2, label=name)
        values += [p.peak_psnr, measured]
    limits = (min(values, default=0) - 3, max(values, default=1) + 1.5)
    panel.plot(limits, limits, color="0.6", lw=1, zorder=0)
    panel.set_xlim(*limits)
    panel.set_ylim(*limits)
    panel.set_xlabel("peak predicted from the kernel at initialisation (dB)")
    panel.set_ylabel("peak measured under Adam (dB)")
    if shown:
        panel.legend(fontsize=8, loc="lower right", frameon=False)
    return figure
