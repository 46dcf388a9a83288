"""Curves: what was fitted against iterations, what was predicted, and both together."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.plotting.style import colours, panels, shared_legend
from dipkernels.theory import resolved_stretch

Datasets = Mapping[str, xr.Dataset]


def plot_fits(fits: Datasets, predictions: Datasets | None = None) -> Figure:
    """Draw PSNR to the clean and to the noisy image against iterations, one panel a fit.

    Parameters
    ----------
    fits : mapping of str to Dataset
        Results of `dipkernels.fit` by name.
    predictions : mapping of str to Dataset, optional
        Their predicted peaks are drawn as bands.

    Returns
    -------
    Figure
        On one scale of PSNR.
    """
    figure, axes = panels(len(fits))
    low = min(float(fit.psnr_clean.min()) for fit in fits.values())
    high = max(float(fit.peak_psnr) for fit in fits.values())
    for panel, (name, fit) in zip(axes, fits.items(), strict=True):
        score = fit.sel(region=fit.score_region)
        iteration = fit.iteration.values
        panel.plot(iteration, score.psnr_clean, color="#0072B2", label="to clean")
        panel.plot(
            iteration, score.psnr_average_clean, color="#0072B2", ls=":", label="average, to clean"
        )
        panel.plot(iteration, fit.psnr_noisy, color="#D55E00", label="to measured", alpha=0.8)
        panel.plot(fit.peak_iteration, fit.peak_psnr, "o", color="#0072B2", ms=4)
        if predictions and name in predictions:
            _peak_band(panel, predictions[name])
        panel.set_ylim(low - 0.5, high + 3)
        panel.set_title(f"{name}: peak {fit.peak_psnr:.2f} dB at {fit.peak_iteration}")
        panel.set_xlabel("iteration")
    axes[0].set_ylabel("PSNR (dB)")
    shared_legend(figure, axes[0])
    return figure


def _peak_band(panel: Axes, prediction: xr.Dataset) -> None:
    panel.axhline(prediction.peak_psnr, color="#009E73", lw=1, ls="--", label="predicted peak")
    if prediction.peak_resolved:
        band = prediction.peak_psnr_lower, prediction.peak_psnr_upper
        panel.axhspan(*band, color="#009E73", alpha=0.15, lw=0)
    else:
        panel.annotate(
            "at least", (0.99, prediction.peak_psnr), xycoords=("axes fraction", "data"),
            color="#009E73", fontsize=7, ha="right", va="bottom",
        )  # fmt: skip


def plot_descent(fits: Datasets, predictions: Datasets) -> Figure:
    """Draw gradient descent, measured and predicted at the same iterations, one panel a prior.

    Parameters
    ----------
    fits : mapping of str to Dataset
        Fits by gradient descent.
    predictions : mapping of str to Dataset
        As `dipkernels.compare.predict` makes them.

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
        panel.plot(fit.iteration.values + 1, measured, color="#0072B2", label="measured")
        panel.plot(iteration, score.descent_psnr, color="#009E73", ls="--", label="predicted")
        panel.fill_between(
            iteration,
            score.descent_psnr_lower,
            np.minimum(score.descent_psnr_upper, 60),
            color="#009E73",
            alpha=0.15,
            lw=0,
        )
        shown_range = np.concatenate([measured.values, score.descent_psnr.values])
        panel.set_ylim(shown_range.min() - 0.3, shown_range.max() + 0.5)
        panel.set_xscale("log")
        panel.set_title(name)
        panel.set_xlabel("iteration + 1")
    axes[0].set_ylabel("PSNR to clean (dB)")
    shared_legend(figure, axes[0])
    return figure


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
        panel.fill_between(
            time,
            score.psnr_lower,
            np.minimum(score.psnr_upper, 60),
            color=colour[name],
            alpha=0.12,
            lw=0,
        )
        top = max(top, prediction.peak_psnr)
    panel.set_ylim(min(float(p.psnr.min()) for p in predictions.values()) - 0.5, top + 3)
    panel.set_xscale("log")
    panel.set_xlabel("time x largest eigenvalue (iterations of gradient descent)")
    panel.set_ylabel("expected PSNR to clean (dB)")
    panel.legend(fontsize=7, ncols=2, loc="upper left", frameon=False)
    return figure


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
        A point on the diagonal is a right prediction; bars are the numerical band. An arrow
        starts at what an unresolved peak certainly reaches.
    """
    shown = [name for name in adam if name in predictions]
    figure, (panel,) = panels(1, width=4.6, height=4.0)
    colour = colours(list(adam))
    values = []
    for name in shown:
        p, measured = predictions[name], float(adam[name].peak_psnr)
        if p.peak_resolved:
            error = [[p.peak_psnr - p.peak_psnr_lower], [p.peak_psnr_upper - p.peak_psnr]]
            panel.errorbar(
                p.peak_psnr, measured, xerr=error, fmt="o", color=colour[name], capsize=2
            )
        else:  # the peak lies somewhere to the right
            panel.annotate(
                "", (p.peak_psnr + 1.2, measured), (p.peak_psnr, measured),
                arrowprops={"arrowstyle": "->", "color": colour[name], "lw": 1.5},
            )  # fmt: skip
            panel.plot(p.peak_psnr, measured, "|", color=colour[name], ms=9, mew=2)
        panel.annotate(
            name, (p.peak_psnr, measured), xytext=(-6, 0), textcoords="offset points",
            fontsize=8, ha="right", va="center",
        )  # fmt: skip
        values += [p.peak_psnr, measured]
    limits = (min(values, default=0) - 3, max(values, default=1) + 1.5)
    panel.plot(limits, limits, color="0.6", lw=1, zorder=0)
    panel.set_xlim(*limits)
    panel.set_ylim(*limits)
    panel.set_xlabel("peak predicted from the kernel at initialisation (dB)")
    panel.set_ylabel("peak measured under Adam (dB)")
    return figure
