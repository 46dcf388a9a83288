"""Spectra of kernels and images: densities, responses, powers; responses by layer; bands."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.style import band, colours, over_seeds, panels, shared_legend
from dipkernels.spectra import band_edges

Datasets = Mapping[str, xr.Dataset]
MOST_LAYERS = 8  # that can be told apart; what is left is summed


@checked
def plot_spectra(spectra: Datasets, *, reference: xr.Dataset | None = None) -> Figure:
    """Draw responses of any kernels, or powers of images, on the same axes.

    Parameters
    ----------
    spectra : mapping of str to Dataset
        As `dipkernels.spectra.frequency_response`, `radial_power` or `prior_spectrum` return.
    reference : Dataset, optional
        A spectrum drawn in grey, such as `dipkernels.spectra.natural_spectrum`.

    Returns
    -------
    Figure
        Logarithmic axes, without the constant image, relative to the lowest ring. Bars are two
        standard errors, where they are known; the dotted line is half.
    """
    figure, (panel,) = panels(1, width=6.5, height=3.6)
    colour = colours(list(spectra))
    for name, spectrum in spectra.items():
        draw_spectrum(panel, spectrum, label=name, colour=colour[name], ms=4, lw=1.3)
    if reference is not None:
        draw_spectrum(panel, reference, label="photographs", colour="0.6", ms=4, lw=1.3)
    panel.axhline(0.5, color="0.6", lw=0.8, ls=":")
    frequency_axis(panel)
    panel.set(yscale="log", ylabel="relative to lowest ring")
    panel.legend(fontsize=7, ncols=2, frameon=False, loc="lower left")
    return figure


def draw_spectrum(
    panel: Axes, spectrum: xr.Dataset, *, label: str, colour: str, **style: Any
) -> None:
    """Draw one spectrum relative to its lowest ring."""
    name = next((n for n in ("response", "power") if n in spectrum), None)
    if name is None or spectrum[name].dims != ("frequency",):
        raise InvalidInputError(
            f"'{label}' has no response or power over frequency alone; got "
            f"{[str(n) for n in spectrum.data_vars]}: select a layer"
        )
    varying = spectrum.isel(frequency=spectrum.frequency.values > 0)
    first = float(varying[name][0])
    relative = varying[name].values / first
    errors = "response_standard_error" if "response_standard_error" in varying else "standard_error"
    bars = 2 * varying[errors].fillna(0).values / first
    panel.errorbar(
        varying.frequency.values,
        relative,
        # on a logarithmic axis a bar can't reach 0
        yerr=[np.minimum(bars, 0.9 * relative), bars],
        color=colour,
        label=label,
        marker=".",
        capsize=1.5,
        **style,
    )


def frequency_axis(panel: Axes) -> None:
    """Make the x axis a logarithmic one of frequencies, with few plain numbers."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("spatial frequency (cycles/pixel)")


@checked
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
        error = 2 * kernel.standard_error.fillna(0)
        low = np.maximum(kernel.density - error, 1e-3)
        band(panel, x, low, kernel.density + error, colour[name])
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_ylim(0.3, 3 * max(float(kernel.density.max()) for kernel in kernels.values()))
    panel.set_xlabel("eigenvalue / largest")
    panel.set_ylabel("eigenvalues per decade")
    panel.legend(fontsize=7, ncols=2, frameon=False)
    return figure


@checked
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
        draw_spectrum(panel, kernel, label=name, colour=colour[name])
        half = kernel.half_power_frequency
        if np.isfinite(half):
            panel.plot(half, 0.5, "o", mfc="white", mec=colour[name], ms=6, zorder=5)
    panel.axhline(0.5, color="0.6", lw=0.8, ls=":")
    panel.set_yscale("log")
    panel.set_xlabel("spatial frequency (cycles/pixel)")
    panel.set_ylabel("response / lowest ring")
    panel.legend(fontsize=7, ncols=2, frameon=False)
    return figure


@checked
def plot_layers(responses: Datasets) -> Figure:
    """Draw what each layer adds to the frequency response, one panel a network.

    Parameters
    ----------
    responses : mapping of str to Dataset
        `dipkernels.spectra.frequency_response` of the kernels of layers, ``ntk.by_layer()``.

    Returns
    -------
    Figure
        Areas that add up to the whole response at each frequency, as shares. The eight layers that
        are strongest somewhere are named, the others summed.

    Raises
    ------
    InvalidInputError
        If a response isn't over layers.
    """
    figure, axes = panels(len(responses), columns=2, width=4.6, height=3.0)
    for panel, (name, response) in zip(axes, responses.items(), strict=True):
        _draw_layers(panel, response)
        panel.set_title(name)
    axes[0].set_ylabel("share of the response")
    return figure


def _draw_layers(panel: Axes, response: xr.Dataset) -> None:
    """Draw the shares of layers in a frequency response."""
    if "response" not in response or response["response"].dims != ("layer", "frequency"):
        raise InvalidInputError(
            "expected a response over layer and frequency, as frequency_response(ntk.by_layer(), "
            f"shape) makes it; got {[str(n) for n in response.data_vars]}"
        )
    varying = response["response"].isel(frequency=response.frequency.values > 0)
    shares = (varying / varying.sum("layer")).values
    names = [str(layer) for layer in response.layer.values]
    strongest = np.sort(np.argsort(shares.max(axis=1))[::-1][:MOST_LAYERS])
    others = np.setdiff1d(np.arange(len(names)), strongest)
    rows, labels = list(shares[strongest]), [names[i] for i in strongest]
    # early layers dark, late ones light
    tints = [colormaps["viridis"](x) for x in np.linspace(0, 0.95, len(rows))]
    if len(others):
        rows.append(shares[others].sum(axis=0))
        labels.append(f"{len(others)} others")
        tints.append((0.8, 0.8, 0.8, 1.0))
    panel.stackplot(varying.frequency.values, rows, labels=labels, colors=tints, lw=0)
    frequency_axis(panel)
    panel.set(xlim=(float(varying.frequency[0]), float(varying.frequency[-1])), ylim=(0, 1))
    panel.grid(visible=False)
    handles, texts = panel.get_legend_handles_labels()
    panel.legend(
        handles[::-1], texts[::-1], fontsize=6, loc="center left", bbox_to_anchor=(1.0, 0.5),
        frameon=False,
    )  # fmt: skip


@checked
def plot_bands(result: xr.Dataset) -> Figure:
    """Draw the frequency bands that a fit recorded, against iterations.

    Parameters
    ----------
    result : xarray.Dataset
        Of `dipkernels.fit` with ``monitors=["frequency-bands"]``, ``["clean-bands"]``, or both.
        Several seeds are drawn as their mean and range.

    Returns
    -------
    Figure
        A panel for each of: correspondence with the measured image, gain and relative error against
        the clean one.

    Raises
    ------
    InvalidInputError
        If the fit recorded none, or is of several images.
    """
    kinds = {
        "band": "|output| / |measured|",
        "band_gain": "gain against clean",
        "band_error": "relative error against clean",
    }
    shown = {kind: label for kind, label in kinds.items() if f"{kind}_1" in result}
    if not shown or "image" in result.dims:
        raise InvalidInputError(
            "expected a fit of one image with monitors=['frequency-bands'] or ['clean-bands']; "
            "select an image of several"
        )
    figure, axes = panels(len(shown), width=3.1 if len(shown) > 1 else 4.6)
    dims = 1 + ("y" in result.dims)
    for panel, (kind, label) in zip(axes, shown.items(), strict=True):
        edges = band_edges(dims=dims, corners=kind != "band")
        _draw_bands(panel, result, kind, edges)
        panel.set(title=label, xlabel="iteration + 1", xscale="log")
        if "peak_iteration" in result.attrs:
            panel.axvline(
                result.peak_iteration + 1, color="0.5", lw=0.8, ls="--", label="PSNR peak"
            )
        if kind == "band_error":
            panel.set_yscale("log")
    if len(axes) > 1:
        shared_legend(figure, axes[0])
    else:
        axes[0].legend(fontsize=6, frameon=False)
    return figure


def _draw_bands(panel: Axes, result: xr.Dataset, kind: str, edges: np.ndarray) -> None:
    count = len(edges) - 1
    for number in range(count):
        curve = result[f"{kind}_{number + 1}"]
        tint = colormaps["viridis"](0.9 * number / (count - 1))
        unit = " cycles/pixel" * (number == 0)
        label = f"{edges[number]:.1f}-{edges[number + 1]:.1f}{unit}"
        if number == count - 1:
            label = f"above {edges[number]:.1f}"
        steps = curve.iteration.values + 1
        over_seeds(panel, steps, curve, shade=0.2, color=tint, label=label, lw=1.2)
