"""Outputs over a fit, and the patch grid in them: see README.md beside this file."""

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.images.metrics import decibels
from dipkernels.plotting.style import (
    colours,
    panels,
    save_figure,
    shared_legend,
    show_image,
)
from experiments.harness import open_folder, parse, settings
from experiments.report_fits import Setting, Unit, over_seeds, run_fits, write_rows
from experiments.report_grid import border_ratio, grid_of

MEASURES = {
    "border_ratio": "steps across borders\n/ steps inside patches",
    "error_border_ratio": "the same of the\ndifference from the clean",
    "comb": "comb at the patches'\nharmonics",
    "roughness": "squared steps\n/ those of the clean",
}
Fits = Mapping[Unit, xr.Dataset]
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Fit what isn't fitted yet, then write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    setting = settings(__file__, options.preset, Setting)
    folder = open_folder(__file__, options, setting).path
    fits = run_fits(setting, options)
    write_rows(folder / "grid.csv", grid_rows(fits, setting.period))
    write_rows(folder / "references.csv", reference_rows(fits, setting.period))
    save_figure(plot_grid(fits, setting.period), folder / "grid.png")
    save_figure(plot_outputs(fits, seed=0), folder / "outputs.png")


def measures(result: xr.Dataset, period: int) -> dict[str, np.ndarray]:
    """Say what was measured of the outputs.

    ``roughness``: mean squared step from pixel to pixel over that of the clean image.
    ``whiteness``: the same over twice the output's variance: 1 for white noise, 0 for what is
    smooth, whatever the contrast. ``gain``: PSNR to the clean image over the measured image's.
    """
    at = result.measured_iteration.values
    step = result.mean_step.values
    clean = float(_reference(result, "clean", period)["steps"].mean())
    score = result.psnr_clean.sel(region="whole").values[at]
    error = float(((result.measurement - result.clean) ** 2).mean())
    corrupted = float(decibels(error))
    return {
        "border_ratio": result.border_ratio.values,
        "error_border_ratio": result.error_border_ratio.values,
        "comb": result.comb.values,
        "comb_p_value": result.comb_p_value.values,
        "roughness": step / clean,
        "whiteness": step / (2 * result.variance.values),
        "gain": score - corrupted,
    }


def _reference(result: xr.Dataset, name: str, period: int) -> dict[str, Any]:
    picture = torch.from_numpy(result[name].values)
    return grid_of(picture, torch.zeros_like(picture), period)


def grid_rows(fits: Fits, period: int) -> list[Row]:
    """Means and standard deviations over seeds of every measure."""
    rows: list[Row] = []
    for network, label in dict.fromkeys((u.network, u.measured.label) for u in fits):
        chosen = over_seeds(fits, network, label)
        found = [measures(result, period) for result in chosen]
        for i, iteration in enumerate(chosen[0].measured_iteration.values):
            row: Row = {"image": label, "network": network, "iteration": int(iteration)}
            for name in found[0]:
                values = [each[name][i] for each in found]
                row[name] = round(float(np.mean(values)), 4)
                spread = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else ""
                row[f"{name}_sd"] = spread
            rows.append(row)
    return rows


def reference_rows(fits: Fits, period: int) -> list[Row]:
    """Measure the clean and the measured images in the same way; they have no patches."""
    rows: list[Row] = []
    for label, result in {unit.measured.label: result for unit, result in fits.items()}.items():
        clean = float(_reference(result, "clean", period)["steps"].mean())
        for name in ("clean", "measurement"):
            found = _reference(result, name, period)
            rows.append({
                "image": label,
                "which": name,
                "border_ratio": float(border_ratio(found["steps"])),
                "comb": found["comb"],
                "comb_p_value": found["comb_p_value"],
                "roughness": float(found["steps"].mean()) / clean,
                "whiteness": float(found["steps"].mean()) / (2 * found["variance"]),
            })  # fmt: skip
    return rows


def plot_grid(fits: Fits, period: int) -> Figure:
    """Draw the measures against iterations, a row an image, a colour a network."""
    networks = list(dict.fromkeys(unit.network for unit in fits))
    labels = list(dict.fromkeys(unit.measured.label for unit in fits))
    figure, axes = panels(len(labels) * len(MEASURES), columns=len(MEASURES), width=2.9, height=2.2)
    colour = colours(networks)
    for i, label in enumerate(labels):
        row = axes[i * len(MEASURES) : (i + 1) * len(MEASURES)]
        for panel, (name, title) in zip(row, MEASURES.items(), strict=True):
            for network in networks:
                chosen = over_seeds(fits, network, label)
                values = np.array([measures(result, period)[name] for result in chosen])
                at = chosen[0].measured_iteration.values
                _draw_measure(panel, at, values, colour[network])
            _draw_reference(panel, over_seeds(fits, networks[0], label)[0], name, period)
            panel.set_xscale("symlog", linthresh=10)
            panel.set_xlim(left=0)
            if name in ("comb", "roughness"):
                panel.set_yscale("log")
            panel.set_title(f"{label}: {title}", fontsize=8)
            panel.set_xlabel("iteration")
    lines = axes[0].get_lines()
    for line, name in zip(lines, [*networks, "clean image"], strict=False):
        line.set_label(name)
    shared_legend(figure, axes[0])
    return figure


def _draw_measure(panel: Axes, at: np.ndarray, values: np.ndarray, colour: str) -> None:
    panel.fill_between(at, values.min(0), values.max(0), color=colour, alpha=0.2, lw=0)
    panel.plot(at, values.mean(0), color=colour)


def _draw_reference(panel: Axes, result: xr.Dataset, name: str, period: int) -> None:
    clean = _reference(result, "clean", period)
    level = {
        "border_ratio": float(border_ratio(clean["steps"])),
        "comb": clean["comb"],
        "roughness": 1.0,
    }
    if name in level:
        panel.axhline(level[name], color="0.5", lw=1, ls="--")


def plot_outputs(fits: Fits, seed: int) -> Figure:
    """Draw outputs, a row a network and image, a column an iteration, the last the peak."""
    chosen = {(u.measured.label, u.network): r for u, r in fits.items() if u.seed == seed}
    shown = sorted({int(i) for result in chosen.values() for i in result.shown.values})
    columns = len(shown) + 2
    figure, axes = panels(len(chosen) * columns, columns=columns, width=1.15, height=1.3)
    for k, ((label, network), result) in enumerate(sorted(chosen.items())):
        row = axes[k * columns : (k + 1) * columns]
        score = result.psnr_clean.sel(region="whole").values
        for panel in row:
            panel.set_axis_off()
        for panel, iteration in zip(row, shown, strict=False):
            if iteration not in result.shown.values:
                continue  # this network's fit is shorter
            head = f"{label}, {network}\n" if iteration == shown[0] else ""
            title = f"{head}{iteration}: {score[iteration]:.1f} dB"
            show_image(panel, result.output.sel(shown=iteration).values, title)
        top = int(result.peak_iteration)
        show_image(row[-2], result.best.values, f"peak, {top}: {score[top]:.1f} dB")
        show_image(row[-1], result.measurement.values, "measured")
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()
    main()
