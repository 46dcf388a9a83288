"""What is known of networks before they learn: their scores, and the covariance of their images."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.spectra import frequency_axis
from dipkernels.plotting.style import (
    MEASURED,
    NOISY,
    band,
    figure_of,
    heat_map,
    one_panel,
    panels,
    show,
)

_DRAWN = 3  # draws that are shown
REJECTED = 1.645  # normal score of a p-value of 5 %


@checked
def plot_scores(scores: Mapping[str, xr.Dataset], *, ax: Axes | None = None) -> Figure:
    """Draw predicted peaks of several networks, the highest on top.

    Parameters
    ----------
    scores : mapping of str to Dataset
        As `dipkernels.score` returns.
    ax : Axes, optional
        Where to; by default a figure of its own.

    Returns
    -------
    Figure
        Of each network the mean score with its band, and a dot for each seed. A hollow mark is a
        peak that wasn't resolved.

    Raises
    ------
    InvalidInputError
        If there is none, or one isn't of `score`.
    """
    if not scores or not all("degrees_of_freedom" in found for found in scores.values()):
        raise InvalidInputError("expected at least one result of dipkernels.score, by name")
    order = sorted(scores, key=lambda name: float(scores[name].score))
    panel = one_panel(ax)
    for place, name in enumerate(order):
        found = scores[name]
        low, high = (float(found[f"psnr_{end}"].mean()) for end in ("lower", "upper"))
        value, resolved = float(found.score), bool(found.resolved.all())
        panel.plot([low, high], [place, place], color=MEASURED, lw=3, alpha=0.3)
        panel.plot(value, place, "o", color=MEASURED, mfc=MEASURED if resolved else "white")
        seeds = found.psnr.mean("image").values
        if len(seeds) > 1:
            panel.plot(seeds, np.full(len(seeds), place), ".", color=NOISY, ms=4)
    panel.set_yticks(range(len(order)), order)
    panel.set_ylim(-0.6, len(order) - 0.4)
    panel.set_xlabel("predicted peak PSNR (dB)")
    return figure_of(panel)


@checked
def plot_covariance(found: xr.Dataset) -> Figure:
    """Draw what a network makes before it learns, and the covariance of it.

    Parameters
    ----------
    found : Dataset
        As `dipkernels.kernels.covariance` returns; where it also has ``draws``, ``radial_kernel``
        and ``power``, as ``dipkernels covariance`` stores them, these are drawn, too.

    Returns
    -------
    Figure
        Draws; covariance over the lag, of signals as a curve; its average over lags of equal
        length and the power spectrum, with two standard errors; tests of its symmetries as normal
        scores: beyond the dashed line a test rejects at 5 %.

    Raises
    ------
    InvalidInputError
        If it has no kernel over lags alone.
    """
    if "kernel" not in found or not all(str(d).startswith("lag_") for d in found.kernel.dims):
        raise InvalidInputError(
            "expected a result of dipkernels.kernels.covariance, its channels averaged"
        )
    count = min(_DRAWN, found.sizes.get("draw", 0))
    parts = [name for name in ("radial_kernel", "power") if name in found]
    tested = "z" in found
    figure, axes = panels(count + 1 + len(parts) + tested, columns=4, width=2.9)
    for axis, number in zip(axes, range(count), strict=False):
        show(axis, _stretched(found.draws.values[number]), f"draw {number + 1}, stretched")
    rest = axes[count:]
    _draw_lags(rest[0], found)
    for axis, name in zip(rest[1:], parts, strict=False):
        _draw_curve(axis, found, name)
    if tested:
        _draw_tests(rest[-1], found)
    return figure


# To its own range: many networks draw images of little contrast.
def _stretched(image: np.ndarray) -> np.ndarray:
    low, high = float(image.min()), float(image.max())
    return np.asarray((image - low) / ((high - low) or 1.0)) if image.ndim > 2 else image


def _draw_lags(axis: Axes, found: xr.Dataset) -> None:
    kernel = found.kernel
    if kernel.ndim > 1:
        heat_map(axis, kernel.values, "covariance over the lag", "", limits=(None, None))
        return
    error = 2 * found.kernel_standard_error.values
    band(axis, kernel.lag_x, kernel - error, kernel + error, MEASURED)
    axis.plot(kernel.lag_x, kernel, color=MEASURED)
    axis.set_title("covariance", fontsize=8)
    axis.set_xlabel("lag (pixels)")


def _draw_curve(axis: Axes, found: xr.Dataset, name: str) -> None:
    if name == "power":  # that of frequency 0 has no place on a logarithmic axis
        found = found.isel(frequency=found.frequency.values > 0)
    curve, error = found[name], 2 * found[f"{name}_standard_error"].values
    x = curve[curve.dims[0]].values
    band(axis, x, curve.values - error, curve.values + error, MEASURED)
    axis.plot(x, curve.values, color=MEASURED)
    if name == "power":
        axis.set_title("power", fontsize=8)
        axis.set_yscale("log")
        frequency_axis(axis)
        low, high = float(curve.min()), float(curve.max())
        axis.set_ylim(max(low / 2, high * 1e-8), high * 2)
    else:
        axis.set_title("covariance by length of the lag", fontsize=8)
        axis.set_xlabel("lag (pixels)")


def _draw_tests(axis: Axes, found: xr.Dataset) -> None:
    scores = np.clip(found.z.values.astype(float), -1, 9)
    axis.barh(range(len(scores)), scores, color=MEASURED, height=0.6)
    axis.axvline(REJECTED, color=NOISY, lw=1, ls="--")
    axis.set_yticks(range(len(scores)), [str(name) for name in found.test.values], fontsize=7)
    axis.invert_yaxis()
    axis.set_title("tests of symmetries and of Gaussianity", fontsize=8)
    axis.set(xlabel="normal score (dashed: rejected at 5 %)", xlim=(-1, 9))
