"""Images: what was fitted, and the leading eigenvectors of the kernels."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels.plotting.style import panels, show_image

Datasets = Mapping[str, xr.Dataset]


def plot_images(fits: Datasets) -> Figure:
    """Draw the clean and measured images, then every prior's image at initialisation, peak and end.

    Parameters
    ----------
    fits : mapping of str to Dataset
        Results of `dipkernels.fit` on one task.

    Returns
    -------
    Figure
        One column a prior.
    """
    columns = len(fits) + 1
    figure, axes = panels(3 * columns, columns=columns, width=1.5, height=1.65)
    first = next(iter(fits.values()))
    show_image(axes[0], first.clean.values, "clean")
    show_image(axes[columns], first.measurement.values, "measured")
    axes[2 * columns].set_axis_off()
    for column, (name, fit) in enumerate(fits.items(), start=1):
        last = fit.psnr_clean.sel(region=fit.score_region).values[-1]
        show_image(axes[column], fit.initial.values, f"{name}\nat initialisation")
        show_image(axes[columns + column], fit.best.values, f"peak, {fit.peak_psnr:.1f} dB")
        show_image(axes[2 * columns + column], fit.final.values, f"end, {last:.1f} dB")
    return figure


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
        One row a prior; grey is 0.
    """
    count = min(count, *(kernel.sizes["rank"] for kernel in kernels.values()))
    figure, axes = panels(count * len(kernels), columns=count, width=1.4, height=1.55)
    for row, (name, kernel) in enumerate(kernels.items()):
        for rank in range(count):
            vector = kernel.eigenvector.values[rank]
            value = float(kernel.top_eigenvalue[rank]) / kernel.largest_eigenvalue
            label = f"{name}\n{value:.2g}" if rank == 0 else f"{value:.2g}"
            show_image(axes[row * count + rank], 0.5 + 0.5 * vector / np.abs(vector).max(), label)
    return figure
