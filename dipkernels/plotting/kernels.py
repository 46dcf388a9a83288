"""Kernels: spectral densities and frequency responses, all priors on the same axes."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels.plotting.style import colours, panels

Datasets = Mapping[str, xr.Dataset]


def plot_densities(kernels: Datasets) -> Figure:
    """Draw the number of eigenvalues per decade against the eigenvalue, relative to the largest.

    Parameters
    ----------
    kernels : mapping of str to Dataset
        As `dipkernels.stages.kernel.measure_kernel` makes them.

    Returns
    -------
    Figure
        Bands of two standard errors.
    """
    figure, (panel,) = panels(1, width=6.5, height=3.4)
    colour = colours(list(kernels))
    for name, kernel in kernels.items():
        x = kernel.eigenvalue.values / kernel.largest_eigenvalue
        panel.plot(x, kernel.density, color=colour[name], label=name)
        band = 2 * kernel.standard_error.fillna(0)
        panel.fill_between(
            x,
            np.maximum(kernel.density - band, 1e-3),
            kernel.density + band,
            color=colour[name],
            alpha=0.15,
            lw=0,
        )
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(0.3, 3 * max(float(kernel.density.max()) for kernel in kernels.values()))
    panel.set_xlabel("eigenvalue / largest")
    panel.set_ylabel("eigenvalues per decade")
    panel.legend(fontsize=7, ncols=2, frameon=False)
    return figure


def plot_responses(kernels: Datasets) -> Figure:
    """Draw how strongly each spatial frequency is fitted, relative to the lowest ring.

    Parameters
    ----------
    kernels : mapping of str to Dataset
        With `dipkernels.spectra.frequency_response` in them.

    Returns
    -------
    Figure
        Without the constant image; half-power frequencies are marked.
    """
    figure, (panel,) = panels(1, width=6.5, height=3.4)
    colour = colours(list(kernels))
    for name, kernel in kernels.items():
        varying = kernel.isel(frequency=kernel.frequency.values > 0)
        reference = float(varying.response[0])
        response = varying.response / reference
        error = 2 * varying.response_standard_error / reference
        panel.errorbar(
            varying.frequency,
            response,
            # on a logarithmic axis a bar can't reach 0
            yerr=[np.minimum(error, 0.9 * response), error],
            color=colour[name],
            label=name,
            marker=".",
            capsize=1.5,
        )
        half = kernel.half_power_frequency
        if np.isfinite(half):
            panel.plot(half, 0.5, "o", mfc="white", mec=colour[name], ms=6, zorder=5)
    panel.axhline(0.5, color="0.6", lw=0.8, ls=":")
    panel.set_yscale("log")
    panel.set_xlabel("spatial frequency (cycles/pixel)")
    panel.set_ylabel("response / lowest ring")
    panel.legend(fontsize=7, ncols=2, frameon=False)
    return figure
