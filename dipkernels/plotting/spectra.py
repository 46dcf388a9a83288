"""Spectra of kernels and images: densities, responses, powers; responses by layer; bands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import AXES
from dipkernels.plotting.style import (
    band,
    figure_of,
    one_panel,
    over_seeds,
    panels,
    shared_legend,
    styles,
)
from dipkernels.spectra import band_edges

Datasets = Mapping[str, xr.Dataset]
SINGLE = 1e-7  # of the largest eigenvalue: what rounding in float32 hides
LEAST = 0.3  # eigenvalues per decade that are shown
MOST_LAYERS = 8  # that can be told apart; what is left is summed


@checked
def plot_spectra(
    spectra: Datasets, *, reference: xr.Dataset | None = None, ax: Axes | None = None
) -> Figure:
    """Draw responses of any kernels, or powers of images, on the same axes.

    Parameters
    ----------
    spectra : mapping of str to Dataset
        As `dipkernels.spectra.frequency_response`, `radial_power` or `prior_spectrum` return.
    reference : Dataset, optional
        A spectrum drawn in grey, such as `dipkernels.spectra.natural_spectrum`.
    ax : Axes, optional
        What to draw on, by default a figure of its own.

    Returns
    -------
    Figure
        Logarithmic axes, without the constant image, relative to the lowest ring. Bars are two
        standard errors, where they are known; the dotted line is half.
    """
    panel = one_panel(ax)
    looks = styles(spectra)
    for name, spectrum in spectra.items():
        draw_spectrum(panel, spectrum, label=name, **looks[name], ms=4, lw=1.3)
    if reference is not None:
        draw_spectrum(panel, reference, label="photographs", color="0.6", ms=4, lw=1.3)
    panel.axhline(0.5, color="0.6", lw=0.8, ls=":")
    frequency_axis(panel)
    panel.set(yscale="log", ylabel="relative to lowest ring")
    panel.legend(fontsize=7, ncols=2, frameon=False, loc="lower left")
    return figure_of(panel)


def draw_spectrum(panel: Axes, spectrum: xr.Dataset, *, label: str, **style: Any) -> None:
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
        label=label,
        capsize=1.5,
        **{"marker": ".", **style},
    )


def frequency_axis(panel: Axes) -> None:
    """Make the x axis a logarithmic one of frequencies, with few plain numbers."""
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(FixedLocator([0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel("spatial frequency (cycles/pixel)")


@checked
def plot_densities(kernels: Datasets, *, ax: Axes | None = None) -> Figure:
    """Draw the number of eigenvalues per decade against the eigenvalue, relative to the largest.

    Parameters
    ----------
    kernels : mapping of str to Dataset
        As ``ntk.spectral_density()`` or a run's stage `kernel` makes them.
    ax : Axes, optional
        What to draw on, by default a figure of its own.

    Returns
    -------
    Figure
        Bands of two standard errors.

    Examples
    --------
    >>> from dipkernels import NTK, networks
    >>> prior = networks.create("deep-decoder", image_size=16, width=8)
    >>> ntk = NTK(prior, prior.init(seed=0))
    >>> figure = plot_densities({"deep-decoder": ntk.spectral_density(probes=2, steps=8)})
    """
    panel, looks, most, least = one_panel(ax), styles(kernels), 0.0, 1.0
    for name, kernel in kernels.items():
        largest = _largest(kernel)
        density, error = kernel.density.values, 2 * kernel.standard_error.fillna(0).values
        x = kernel.eigenvalue.values / largest
        panel.plot(x, density, label=name, **{**looks[name], "marker": ""})
        low = np.maximum(density - error, 1e-3)
        band(panel, x, low, density + error, looks[name]["color"])
        most = max(most, float(density.max()))
        least = min(least, float(x[density > LEAST].min(initial=1.0)))
    panel.set(xscale="log", yscale="log", xlim=(least / 2, 3), ylim=(LEAST, 3 * most))
    panel.set(xlabel="eigenvalue / largest", ylabel="eigenvalues per decade")
    panel.legend(fontsize=7, ncols=2, frameon=False)
    return figure_of(panel)


@checked
def plot_eigenvalues(kernels: Datasets, *, ax: Axes | None = None) -> Figure:
    """Draw the eigenvalues from the largest on, against their index, relative to the largest.

    Parameters
    ----------
    kernels : mapping of str to Dataset
        As ``ntk.spectral_density()`` or a run's stage `kernel` makes them.
    ax : Axes, optional
        What to draw on, by default a figure of its own.

    Returns
    -------
    Figure
        The curve goes through the nodes of all probes, the band from that of one probe to that of
        another. Dotted are those that the smallest nodes hold together: more steps tell them
        apart. Circles are leading eigenpairs, where the stage `kernel` measured them. Grey is what
        products in float32 can't tell from 0.

    Notes
    -----
    The index of a value is the number of eigenvalues above it, an integral of the density: exact
    for isolated eigenvalues, which steps of Lanczos find first, and a smooth count elsewhere.

    Examples
    --------
    >>> from dipkernels import NTK, networks
    >>> prior = networks.create("deep-decoder", image_size=16, width=8)
    >>> ntk = NTK(prior, prior.init(seed=0))
    >>> figure = plot_eigenvalues({"deep-decoder": ntk.spectral_density(probes=2, steps=8)})
    """
    panel, looks = one_panel(ax), styles(kernels)
    least = 1.0
    for name, kernel in kernels.items():
        found = counted(kernel)
        style = {**looks[name], "marker": ""}
        index, shown, last = found.index, found.relative, max(found.told - 1, 0)
        panel.plot(index[: found.told], shown[: found.told], label=name, **style)
        panel.plot(index[last:], shown[last:], color=style["color"], ls=(0, (1, 2)), lw=1)
        panel.fill_betweenx(shown, found.low, found.high, color=style["color"], alpha=0.15, lw=0)
        if "top_eigenvalue" in kernel:
            pairs = kernel.top_eigenvalue.values / _largest(kernel)
            panel.plot(
                np.arange(1, len(pairs) + 1), pairs, "o", mfc="white", mec=style["color"], ms=4
            )
        least = min(least, float(shown[found.some].min(initial=1.0)))
    panel.set(xscale="log", yscale="log", ylim=(least / 3, 2))
    panel.axhspan(least / 3, max(SINGLE, least / 3), color="0.9", lw=0, zorder=0)
    panel.set(xlabel="index of the eigenvalue", ylabel="eigenvalue / largest")
    panel.legend(fontsize=7, ncols=2, frameon=False, loc="lower left")
    return figure_of(panel)


@dataclass(frozen=True)
class Counted:
    """Eigenvalues relative to the largest, against how many are as large, from the largest on."""

    relative: np.ndarray
    index: np.ndarray  # the mean over the probes, at least 1
    low: np.ndarray  # of any probe
    high: np.ndarray
    told: int  # points before those that the smallest nodes hold together
    some: np.ndarray  # where a node is left


def counted(kernel: xr.Dataset) -> Counted:
    """Count eigenvalues above each of a grid of values."""
    relative = np.geomspace(1, 1e-9, 300)
    grid = relative * _largest(kernel)
    counts = np.array(
        [
            [weights[nodes >= value * (1 - 1e-9)].sum() for value in grid]
            for nodes, weights in zip(kernel.nodes.values, kernel.weights.values, strict=True)
        ]
    )
    count = counts.mean(axis=0)
    told = int((count <= count[-1] - _in_last_node(kernel)).sum())
    ends = (count, counts.min(axis=0), counts.max(axis=0))
    index, low, high = (np.maximum(edge, 1) for edge in ends)
    return Counted(relative, index, low, high, told, count < 0.999 * count[-1])


# How many eigenvalues are in the smallest node of a probe.
def _in_last_node(kernel: xr.Dataset) -> float:
    held = kernel.weights.values > 0
    nodes = np.where(held, kernel.nodes.values, np.inf)
    return float(np.take_along_axis(kernel.weights.values, nodes.argmin(axis=1)[:, None], 1).mean())


# As the stage of the kernel names it, or the density itself.
def _largest(kernel: xr.Dataset) -> float:
    found = kernel.attrs.get("largest_eigenvalue", kernel.attrs.get("largest"))
    if found is None or "density" not in kernel:
        raise InvalidInputError(
            "expected what ntk.spectral_density() returns, or the result of a run's stage "
            f"'kernel'; got {[str(n) for n in kernel.data_vars]}"
        )
    return float(found)


@checked
def plot_responses(kernels: Datasets, *, ax: Axes | None = None) -> Figure:
    """Draw how strongly each spatial frequency is fitted, relative to the lowest ring.

    Parameters
    ----------
    kernels : mapping of str to Dataset
        As `dipkernels.spectra.frequency_response` or a run's stage `kernel` makes them.
    ax : Axes, optional
        What to draw on, by default a figure of its own.

    Returns
    -------
    Figure
        As of `plot_spectra`, with a circle where half of the power is reached.

    Examples
    --------
    >>> from dipkernels import NTK, networks
    >>> from dipkernels.spectra import frequency_response
    >>> prior = networks.create("deep-decoder", image_size=16, width=8)
    >>> response = frequency_response(NTK(prior, prior.init(seed=0)))
    >>> figure = plot_responses({"deep-decoder": response})
    """
    figure = plot_spectra(kernels, ax=ax)
    panel = figure.axes[-1] if ax is None else ax
    looks = styles(kernels)
    for name, kernel in kernels.items():
        half = kernel.attrs.get("half_power_frequency", np.nan)
        if np.isfinite(half):
            panel.plot(half, 0.5, "o", mfc="white", mec=looks[name]["color"], ms=6, zorder=5)
    panel.set_ylabel("response / lowest ring")
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
    dims = max(1, sum(axis in result.dims for axis in AXES[max(AXES)]))
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
