"""Both PSNRs against iterations, of a SkipNet, a ViT and a Swin: see README.md beside this file."""

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure

from dipkernels.images.metrics import decibels
from dipkernels.plotting.style import panels, save_figure, shared_legend, show_image
from dipkernels.stopping.published import DeltaMSE
from experiments.harness import open_folder, parse, settings
from experiments.report_figures import draw_psnrs, share_scale
from experiments.report_fits import (
    Setting,
    Unit,
    corruption_power,
    end_of,
    mean_squared,
    over_seeds,
    run_fits,
    write_rows,
)

THRESHOLDS = (4.0, 2.0, 1.0, 0.5)  # m of the report's criterion, in units of the noise's power
THINNED = 10  # iterations from one row of curves.csv to the next
Fits = Mapping[Unit, xr.Dataset]


def main(arguments: list[str] | None = None) -> None:
    """Fit what isn't fitted yet, then write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    setting = settings(__file__, options.preset, Setting)
    folder = open_folder(__file__, options, setting).path
    fits = run_fits(setting, options)
    write_rows(folder / "results.csv", [row_of(unit, result) for unit, result in fits.items()])
    write_rows(folder / "criterion.csv", criterion_rows(fits))
    write_rows(folder / "curves.csv", curve_rows(fits))
    save_figure(plot_curves(fits), folder / "curves.png")
    save_figure(plot_images(fits, seed=0), folder / "images.png")


def row_of(unit: Unit, result: xr.Dataset) -> dict[str, Any]:
    """Describe one fit; without a truth, by its end alone."""
    row: dict[str, Any] = {"image": unit.measured.label, "network": unit.network, "seed": unit.seed}
    if "psnr_clean" in result:
        return row | end_of(result)
    columns = dict.fromkeys(COLUMNS_WITH_TRUTH, "")
    noisy = result.psnr_noisy.values
    return row | columns | {"final_noisy_psnr": float(noisy[-1]),
                            "rollbacks": int(result.rollbacks)}  # fmt: skip


COLUMNS_WITH_TRUTH = (
    "corrupted_psnr", "peak_psnr", "peak_iteration", "noisy_psnr_at_peak", "gap_at_peak",
    "share_at_peak", "ssim_at_peak", "final_psnr", "final_noisy_psnr", "final_gap", "final_share",
    "final_ssim", "crossing", "matched_psnr", "average_peak_psnr", "rollbacks",
)  # fmt: skip


def criterion_rows(fits: Fits) -> list[dict[str, Any]]:
    """Apply the report's criterion, as printed (error > m) and turned round (error <= m).

    Differences are in units of the noise's power: 1 means that nothing of the noise is fitted.
    """
    rows: list[dict[str, Any]] = []
    for unit, result in fits.items():
        if unit.measured.kind != "denoise":
            continue
        power = corruption_power(result)
        noisy = mean_squared(result.psnr_noisy.values)
        difference = noisy - mean_squared(result.psnr_clean.sel(region="whole").values)
        for m in THRESHOLDS:
            printed = DeltaMSE(m * power).decide(result)
            near = np.where(noisy <= m * power, difference, -np.inf)
            best = int(near.argmax())
            reached = bool(np.isfinite(near[best]))
            rows.append({
                "image": unit.measured.label, "network": unit.network, "seed": unit.seed, "m": m,
                "printed": printed.value / power,
                "printed_iteration": printed.chosen,
                "turned_round": float(near[best]) / power if reached else "",
                "turned_round_iteration": best if reached else "",
                "peak_psnr": float(result.peak_psnr),
            })  # fmt: skip
    return rows


def curve_rows(fits: Fits) -> list[dict[str, Any]]:
    """Means and standard deviations over seeds, thinned."""
    rows: list[dict[str, Any]] = []
    for network, label in dict.fromkeys((u.network, u.measured.label) for u in fits):
        chosen = over_seeds(fits, network, label)
        clean = [r.psnr_clean.sel(region="whole").values for r in chosen if "psnr_clean" in r]
        noisy = [r.psnr_noisy.values for r in chosen]
        for i in range(0, len(noisy[0]), THINNED):
            row: dict[str, Any] = {"image": label, "network": network, "iteration": i}
            for name, curves in (("clean", clean), ("noisy", noisy)):
                at = [curve[i] for curve in curves]
                row[f"psnr_{name}"] = round(float(np.mean(at)), 2) if at else ""
                spread = round(float(np.std(at, ddof=1)), 2) if len(at) > 1 else ""
                row[f"psnr_{name}_sd"] = spread
            rows.append(row)
    return rows


def plot_curves(fits: Fits) -> Figure:
    """Draw both PSNRs, a row a measurement, a column a network."""
    networks = list(dict.fromkeys(unit.network for unit in fits))
    labels = list(dict.fromkeys(unit.measured.label for unit in fits))
    figure, axes = panels(len(labels) * len(networks), columns=len(networks), width=2.7, height=2.0)
    for i, label in enumerate(labels):
        row = axes[i * len(networks) : (i + 1) * len(networks)]
        for panel, network in zip(row, networks, strict=True):
            chosen = over_seeds(fits, network, label)
            if not chosen:
                panel.set_axis_off()
                continue
            draw_psnrs(panel, chosen)
            panel.set_title(f"{label}, {network}", fontsize=8)
            if "psnr_clean" in chosen[0]:
                level = float(decibels(corruption_power(chosen[0])))
                panel.axhline(level, color="0.5", lw=1, ls="--", label="the measured image")
        share_scale(row)
        row[0].set_ylabel("PSNR (dB)")
    shared_legend(figure, axes[0])
    return figure


def plot_images(fits: Fits, seed: int) -> Figure:
    """Draw what was measured, and each network's output at its peak and at the end."""
    networks = list(dict.fromkeys(unit.network for unit in fits))
    labels = list(dict.fromkeys(unit.measured.label for unit in fits))
    columns = 2 + 2 * len(networks)
    figure, axes = panels(len(labels) * columns, columns=columns, width=1.15, height=1.3)
    for i, label in enumerate(labels):
        row = axes[i * columns : (i + 1) * columns]
        for panel in row:
            panel.set_axis_off()
        some = {
            u.network: r for u, r in fits.items() if (u.measured.label, u.seed) == (label, seed)
        }
        if not some:  # not yet, after an interruption
            continue
        first = next(iter(some.values()))
        knows = "clean" in first
        if knows:
            show_image(row[0], first.clean.values, f"{label}\nclean")
            level = float(decibels(corruption_power(first)))
            show_image(row[1], first.measurement.values, f"measured\n{level:.1f} dB")
        else:
            show_image(row[1], first.measurement.values, f"{label}\nno truth")
        for j, (network, result) in enumerate(some.items()):
            middle, end = row[2 + 2 * j : 4 + 2 * j]
            last = len(result.psnr_noisy) - 1
            if knows:
                score = result.psnr_clean.sel(region="whole").values
                title = f"{network}, at {int(result.peak_iteration)}\n{score.max():.1f} dB"
                show_image(middle, result.best.values, title)
                show_image(end, result.final.values, f"at {last}\n{score[-1]:.1f} dB")
            else:
                shown = int(result.shown.values[len(result.shown) // 2])
                show_image(middle, result.output.sel(shown=shown).values, f"{network}\nat {shown}")
                show_image(end, result.final.values, f"at {last}")
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()
    main()
