"""The fingerprint card: one figure a prior, the same axes for all."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D

from dipkernels.base.checks import checked
from dipkernels.fingerprints import fingerprint_row
from dipkernels.plotting import card_panels as panels

SIZE = (11.4, 6.5)

_RC: Any = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": panels.SOFT,
    "axes.labelcolor": panels.SOFT,
    "axes.labelsize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.7,
    "grid.color": panels.LINE,
    "grid.linewidth": 0.5,
    "xtick.color": panels.SOFT,
    "ytick.color": panels.SOFT,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.6,
    "text.color": panels.INK,
}


@checked
def plot_fingerprint(card: xr.Dataset) -> Figure:
    """Draw the card of one prior.

    Parameters
    ----------
    card : xarray.Dataset
        From `dipkernels.fingerprints.fingerprint`.

    Returns
    -------
    Figure
        11.4 by 6.5 inches. Layout and axes are the same for every prior; spectra are relative to
        their lowest ring, samples stretched to three standard deviations, the filter's colours on
        a square-root scale, and the constant image is left out throughout. Curves that leave their
        panel are marked by a triangle at its edge.
    """
    with mpl.rc_context(_RC):
        figure = Figure(figsize=SIZE, facecolor="white")
        grid = GridSpec(
            2, 4, figure, left=0.05, right=0.988, top=0.79, bottom=0.075, wspace=0.36, hspace=0.43
        )
        _head(figure, card)
        panels.draw_samples(figure, grid[0, 0], card)
        layout: tuple[tuple[tuple[int, int], str, Callable[[Axes, xr.Dataset], None]], ...] = (
            ((0, 1), "effective filter at a pixel", panels.draw_filter),
            ((0, 2), "spectrum of samples", panels.draw_spectrum),
            ((0, 3), "response of the kernel", panels.draw_response),
            ((1, 0), "response by layer", panels.draw_layers),
            ((1, 1), "shift correlation and combs", panels.draw_shift),
            ((1, 2), "kernels over the lag", panels.draw_lags),
            ((1, 3), "predicted and measured", panels.draw_curves),
        )
        for place, title, draw in layout:
            axes = figure.add_subplot(grid[place])
            draw(axes, card)
            axes.set_title(
                title, loc="left", fontsize=9, fontweight="bold", color=panels.INK, pad=5
            )
    return figure


def _head(figure: Figure, card: xr.Dataset) -> None:
    row = fingerprint_row(card)
    name = str(card.attrs["card"])
    font = min(20.0, 20 * 14 / len(name))  # that a long name keeps clear of the numbers
    figure.text(0.018, 0.952, name, fontsize=font, fontweight="bold", va="center")
    size = " x ".join(str(n) for n in np.atleast_1d(card.attrs["shape"])[1:])
    channels = int(np.atleast_1d(card.attrs["shape"])[0])
    figure.text(
        0.019,
        0.902,
        f"{card.attrs['parameters']:,} parameters\n{size} pixels, {channels} "
        f"channel{'s' * (channels > 1)}, seed {card.attrs['seed']}",
        fontsize=8,
        color=panels.SOFT,
        va="top",
        linespacing=1.35,
    )
    left, step = 0.265, 0.1235
    for i, (value, what, detail) in enumerate(_key_numbers(row)):
        x = left + i * step
        figure.add_artist(Line2D([x - 0.008] * 2, [0.862, 0.972], color=panels.LINE, lw=1))
        figure.text(
            x, 0.950, value, fontsize=14.5, fontweight="bold", va="center", color=panels.INK
        )
        figure.text(x, 0.912, what, fontsize=8, va="center", color=panels.INK)
        figure.text(x, 0.880, detail, fontsize=7.5, va="center", color=panels.SOFT)


def _key_numbers(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    half, comb = row["half_power_frequency"], row["comb"]
    predicted = f"{row['predicted_peak_psnr']:.1f} dB"
    resolved = bool(row["predicted_peak_resolved"])
    about = bool(row.get("predicted_peak_extrapolated"))
    rising = row["peak_iteration"] == row["iterations"]
    return [
        (
            f"{half:.3f}" if math.isfinite(half) else "none",
            "half-power",
            "cycles/pixel, kernel",
        ),
        (panels.number(row["sample_roll_off"], ".1f"), "roll-off", "exponent, samples"),
        (
            panels.strength(comb),
            f"comb, {row['comb_period']} px" if _stands_out(row) else "no comb",
            f"± {panels.strength(row['comb_standard_error'])}, kernel"
            if math.isfinite(comb)
            else "too small",
        ),
        (
            panels.number(row["shift_variance"], ".2f"),
            "shift variance",
            f"± {row['shift_variance_standard_error']:.2g}, kernel",
        ),
        (
            predicted if resolved else f"{'~' if about else '>'} {predicted}",
            "predicted peak",
            "gradient flow" if resolved else "extrapolated" if about else "not resolved",
        ),
        (
            f"{row['peak_psnr']:.1f} dB",
            "measured peak",
            f"Adam, it. {row['peak_iteration']}" + (", rising" if rising else ""),
        ),
    ]


def _stands_out(row: Mapping[str, Any]) -> bool:
    return bool(row["comb"] - 2 * row["comb_standard_error"] > 1)
