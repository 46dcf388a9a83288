"""Images: what was fitted, and the leading eigenvectors of the kernels."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels.base.checks import checked
from dipkernels.plotting.style import by_image, panels, show

Datasets = Mapping[str, xr.Dataset]


@checked
def plot_images(fits: Datasets) -> Figure:
    """Draw the clean and measured images, then every prior's image at initialisation, peak and end.

    Parameters
    ----------
    fits : mapping of str to Dataset
        Results of `dipkernels.fit` on one task. Of several seeds the first is shown, of several
        images each; signals are drawn as curves, volumes as their three middle slices.

    Returns
    -------
    Figure
        One column a prior; without a clean image, the running average stands for the peak.
    """
    shown = [(name, fit.isel(seed=0, missing_dims="ignore")) for name, fit in by_image(fits)]
    columns = len(shown) + 1
    figure, axes = panels(3 * columns, columns=columns, width=1.5, height=1.65)
    first = shown[0][1]
    if "clean" in first:
        show(axes[0], first.clean.values, "clean")
    else:
        axes[0].set_axis_off()
    show(axes[columns], first.measurement.values, "measured")
    axes[2 * columns].set_axis_off()
    for column, (name, fit) in enumerate(shown, start=1):
        show(axes[column], fit.initial.values, f"{name}\nat initialisation")
        if "psnr_clean" in fit:
            last = fit.psnr_clean.sel(region=fit.score_region).values[-1]
            label, end = f"peak, {float(fit.peak_psnr):.1f} dB", f"end, {last:.1f} dB"
        else:
            label, end = "average", "end"
        middle = fit.average if label == "average" else fit.best
        show(axes[columns + column], middle.values, label)
        show(axes[2 * columns + column], fit.final.values, end)
    return figure


@checked
def plot_eigenvectors(kernels: Datasets, *, count: int = 6) -> Figure:
    """Draw the leading eigenvectors of each kernel: the images that the network learns first.

    Parameters
    ----------
    kernels : mapping of str to Dataset
        With ``eigenvector`` over ``rank``.
    count : int
        Of eigenvectors per kernel.

    Returns
    -------
    Figure
        One row a prior; grey is 0. Signals and volumes as in `plot_images`.
    """
    count = min(count, *(kernel.sizes["rank"] for kernel in kernels.values()))
    figure, axes = panels(count * len(kernels), columns=count, width=1.4, height=1.55)
    for row, (name, kernel) in enumerate(kernels.items()):
        for rank in range(count):
            vector = kernel.eigenvector.values[rank]
            value = float(kernel.top_eigenvalue[rank]) / kernel.largest_eigenvalue
            label = f"{name}\n{value:.2g}" if rank == 0 else f"{value:.2g}"
            show(axes[row * count + rank], 0.5 + 0.5 * vector / np.abs(vector).max(), label)
    return figure
