"""Figures of an audit: what was measured of a fit beside what its kernel predicts."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.plotting.style import PALETTE, panels

_SHOWN = 4  # lines of modes and of rings, at most
_COLUMNS = 4


@checked
def plot_audit(found: xr.Dataset) -> Figure:
    """Draw an audit: one row an optimiser, measured solid and predicted dashed.

    Parameters
    ----------
    found : xarray.Dataset
        From `dipkernels.audit`.

    Returns
    -------
    Figure
        In each row: PSNR to the clean image; root mean square misfit of some leading eigenvectors
        and of all others; root mean square error to the clean image in some frequency rings; and
        the kernel's frequency response at the checks, with its relative change and alignment.
        Iterations on a logarithmic scale, shifted by one.

    Raises
    ------
    InvalidInputError
        If it isn't an audit.
    """
    if "mode_energy" not in found:
        raise InvalidInputError("this dataset is no audit: it has no mode_energy")
    names = [str(name) for name in found.optimiser.values]
    figure, axes = panels(_COLUMNS * len(names), columns=_COLUMNS, height=2.8)
    for row, name in enumerate(names):
        one = found.sel(optimiser=name)
        first, second, third, fourth = axes[_COLUMNS * row : _COLUMNS * (row + 1)]
        _psnr(first, one, name)
        modes = _some(len(one.mode) - 1)
        labels = [f"mode {one.mode.values[i]}" for i in modes] + ["the rest"]
        _energies(second, one.mode_energy.sel(target="measurement"), [*modes, -1], labels)
        second.set_ylabel("misfit to measurement (RMS)")
        rings = _some(len(one.frequency))
        labels = [f"{float(one.frequency[i]):.2f} cycles/pixel" for i in rings]
        _energies(third, one.ring_energy.sel(target="clean"), rings, labels)
        third.set_ylabel("error to clean (RMS)")
        _response(fourth, one)
    styles = [
        Line2D([], [], color="0.3", ls=line, label=label)
        for line, label in (("-", "measured"), ("--", "predicted from the start"))
    ]
    figure.legend(handles=styles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _psnr(panel: Axes, one: xr.Dataset, name: str) -> None:
    iteration = one.iteration.values + 1
    panel.plot(iteration, one.psnr.sel(source="measured"), color=PALETTE[0])
    panel.plot(iteration, one.psnr.sel(source="predicted"), color=PALETTE[0], ls="--")
    panel.plot(one.measured_peak_iteration + 1, one.measured_peak_psnr, "o", color=PALETTE[0], ms=4)
    lowest = float(one.psnr.sel(source="measured").min())
    highest = max(float(one.measured_peak_psnr), float(one.predicted_peak_psnr))
    panel.set_ylim(lowest - 0.5, highest + 0.7)
    panel.set_xscale("log")
    panel.set_xlabel("iteration + 1")
    panel.set_ylabel("PSNR to clean (dB)")
    change = float(one.measured_peak_psnr - one.predicted_peak_psnr)
    panel.set_title(f"{name}\npeak {change:+.2f} dB to prediction", fontsize=8)


def _energies(panel: Axes, energy: xr.DataArray, rows: list[int], labels: list[str]) -> None:
    iteration = energy.iteration.values + 1
    for colour, row, label in zip(PALETTE, rows, labels, strict=False):
        for source, line in (("measured", "-"), ("predicted", "--")):
            values = np.sqrt(energy.sel(source=source).values[:, row])
            shown = label if source == "measured" else None
            panel.plot(iteration, values, color=colour, ls=line, label=shown, lw=1.2)
    top = float(np.sqrt(energy.sel(source="measured").values[:, rows].max()))
    panel.set_ylim(top * 10**-3.2, top * 20)  # room for the legend
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("iteration + 1")
    panel.legend(fontsize=6, loc="upper center", ncols=2, handlelength=1.2, frameon=False)


def _response(panel: Axes, one: xr.Dataset) -> None:
    frequency = one.frequency.values
    for index, check in enumerate(one.check.values):
        at = one.sel(check=check)
        label = "at the start"
        if check:
            change, align = float(at.relative_change), float(at.alignment)
            label = f"at {check}: change {change:.2f}, alignment {align:.2f}"
        panel.errorbar(
            frequency,
            at.response.values,
            yerr=at.response_standard_error.values,
            color=PALETTE[index % len(PALETTE)],
            label=label,
            lw=1.2,
            marker=".",
            ms=4,
        )
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.set_ylim(low, high * (high / low) ** 0.35)  # room for the legend
    panel.set_xlabel("frequency (cycles/pixel)")
    panel.set_ylabel("kernel's response")
    panel.legend(fontsize=6, loc="upper right", handlelength=1.2, frameon=False)


# Indices of at most `_SHOWN` of so many, the first and the last among them.
def _some(count: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(_SHOWN, count))})
