"""Heckel & Soltanolkotabi: spectra of dual kernels, speed of fits, Jacobians."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels.plotting.style import PALETTE, colours, panels, shared_legend


def plot_dual_spectra(spectra: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Draw eigenvalues of dual kernels, strongest first, a panel for each family of filters."""
    figure, axes = panels(len(spectra), columns=2, width=3.6, height=2.8)
    for panel, (family, curves) in zip(axes, spectra.items(), strict=True):
        for colour, (name, values) in zip(PALETTE, curves.items(), strict=False):
            panel.plot(np.sort(values)[::-1], color=colour, label=name)
        panel.set(yscale="log", xlabel="number of eigenvalue", ylabel="eigenvalue", title=family)
        panel.legend(fontsize=7)
    return figure


def plot_fitting_speed(results: Mapping[str, xr.Dataset], targets: Sequence[str]) -> Figure:
    """Draw predicted and measured misfits of image and noise, a panel for each network."""
    figure, axes = panels(len(results), columns=3, width=2.9, height=2.4)
    for panel, (name, result) in zip(axes, results.items(), strict=True):
        at = np.maximum(result.iteration.values, 0.5)
        for colour, target in zip(PALETTE, targets, strict=False):
            one = result.sel(target=target)
            panel.plot(at, one.measured, color=colour, label=target)
            panel.plot(at, one.misfit, color=colour, ls="--", lw=1)
            panel.fill_between(
                at, one.misfit_lower, one.misfit_upper, color=colour, alpha=0.2, lw=0
            )
        panel.set_xscale("log")
        panel.set_xlabel("iteration (0 at the left edge)")
        panel.set_ylabel("|f - y|² / |f₀ - y|²")
        panel.set_ylim(bottom=0)
        panel.set_title(name)
    shared_legend(figure, axes[0])
    return figure


def plot_jacobian_norms(results: Mapping[str, xr.Dataset]) -> Figure:
    """Draw the distribution of the norms over random networks, a panel for each kind of network."""
    figure, axes = panels(len(results), columns=2, width=3.6, height=2.4)
    for panel, (name, result) in zip(axes, results.items(), strict=True):
        labels = [str(image) for image in result.image.values]
        for row, (label, colour) in enumerate(colours(labels).items()):
            norms = result.norm.sel(image=label).values
            spread = np.linspace(-0.25, 0.25, len(norms))
            panel.plot(norms, row + spread, ".", color=colour, ms=4, alpha=0.6)
            panel.plot([np.median(norms)] * 2, [row - 0.35, row + 0.35], color="black", lw=1.2)
        panel.set_yticks(range(len(labels)), labels, fontsize=8)
        panel.invert_yaxis()
        panel.set_xlim(0, 1.05 * float(result.norm.quantile(0.98)))
        panel.set_xlabel("|Jᵀ y|, 98 % of all networks")
        panel.set_title(name)
    return figure


def plot_singular_vectors(result: xr.Dataset) -> Figure:
    """Draw left singular vectors over a fit, of the right Jacobian and of the accumulated one."""
    ranks, times = result["rank"].values, result.iteration.values
    figure, axes = panels(2 * len(ranks), columns=len(ranks), width=2.3, height=1.9)
    for index, panel in enumerate(axes):
        variant, rank = divmod(index, len(ranks))
        vectors = result.vector.values[variant, :, rank]
        for colour, time, vector in zip(PALETTE, times, vectors, strict=False):
            sign = np.sign(vector @ vectors[0]) or 1.0
            panel.plot(sign * vector, color=colour, lw=0.9, label=f"iteration {time}")
        panel.set_title(f"{result.variant.values[variant]}, vector {ranks[rank]}", fontsize=8)
        panel.set_yticks([])
        panel.tick_params(labelsize=6)
        panel.set_xlabel("pixel", fontsize=8)
    shared_legend(figure, axes[0])
    return figure
