"""Cheng et al.: correlations against lag."""

from collections.abc import Mapping

import xarray as xr
from matplotlib.figure import Figure

from dipkernels.plotting.style import PALETTE, panels


def plot_correlations(results: Mapping[str, Mapping[str, xr.Dataset]]) -> Figure:
    """Draw correlations against lag, measured, of infinite width and of the poster's formula."""
    figure, axes = panels(len(results), columns=2, width=3.6, height=2.7)
    for panel, (title, settings) in zip(axes, results.items(), strict=True):
        for colour, (name, result) in zip(PALETTE, settings.items(), strict=False):
            measured, limit, poster = result.correlation.values
            band = 2 * result.standard_error.values
            panel.plot(result.lag, measured, color=colour, label=name)
            panel.fill_between(
                result.lag, measured - band, measured + band, color=colour, alpha=0.2
            )
            panel.plot(result.lag, limit, color="black", lw=0.9, ls="--")
            panel.plot(result.lag, poster, color=colour, lw=1.2, ls=":")
        panel.set(xlabel="lag (pixels)", ylabel="K(lag) / K(0)", title=title)
        panel.legend(fontsize=7)
    return figure
