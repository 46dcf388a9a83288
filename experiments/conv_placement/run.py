"""A ViT with convolutions before or after it, tied or not: see README.md beside this file."""

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

from dipkernels.plotting.style import colours, panels, save_figure, shared_legend
from experiments.harness import open_folder, parse, settings
from experiments.report_figures import draw_psnrs, share_scale
from experiments.report_fits import (
    Setting,
    Unit,
    end_of,
    noise_share,
    over_seeds,
    run_fits,
    write_rows,
)

BASE = "vit"  # what gains are counted from, at the same seed and on the same noise
MEASURES = (
    "peak_psnr", "peak_iteration", "gap_at_peak", "peak_gain", "common_psnr", "common_gap",
    "common_share", "common_gain", "matched_psnr", "final_psnr", "final_gap", "crossing",
)  # fmt: skip
Fits = Mapping[Unit, xr.Dataset]
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Fit what isn't fitted yet, then write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    setting = settings(__file__, options.preset, Setting)
    folder = open_folder(__file__, options, setting).path
    # No outputs are drawn here; those of the fits that denoising_curves shares are drawn there.
    fits = with_base(run_fits(setting, options, drawn=(BASE,)))
    rows = result_rows(fits, setting.iterations)
    write_rows(folder / "results.csv", rows)
    write_rows(folder / "summary.csv", summary_rows(rows))
    save_figure(plot_curves(fits), folder / "curves.png")
    save_figure(plot_gains(rows, setting.iterations), folder / "gains.png")


def with_base(fits: Fits) -> Fits:
    """Leave out fits whose seed has no ViT yet, after an interruption."""
    known = {(u.measured, u.seed) for u in fits if u.network == BASE}
    return {u: result for u, result in fits.items() if (u.measured, u.seed) in known}


def result_rows(fits: Fits, common: int) -> list[Row]:
    """Describe every fit, with what it gains over the ViT of its seed.

    All are compared at one iteration, which all reach; some go on after it.
    """
    rows: list[Row] = []
    for unit, result in fits.items():
        row = {"image": unit.measured.label, "network": unit.network, "seed": unit.seed}
        clean = float(result.psnr_clean.sel(region="whole").values[common])
        at = {"common_psnr": clean, "common_gap": clean - float(result.psnr_noisy.values[common])}
        at["common_share"] = float(noise_share(result)[common])
        rows.append(row | end_of(result) | at)
    base = {(row["image"], row["seed"]): row for row in rows if row["network"] == BASE}
    for row in rows:
        plain = base[row["image"], row["seed"]]
        row["peak_gain"] = row["peak_psnr"] - plain["peak_psnr"]
        row["common_gain"] = row["common_psnr"] - plain["common_psnr"]
    return rows


def summary_rows(rows: list[Row]) -> list[Row]:
    """Means and standard deviations over seeds, by image and network."""
    lines: list[Row] = []
    for image, network in dict.fromkeys((row["image"], row["network"]) for row in rows):
        chosen = [r for r in rows if (r["image"], r["network"]) == (image, network)]
        line: Row = {"image": image, "network": network, "seeds": len(chosen)}
        for name in MEASURES:
            values = np.array([row[name] for row in chosen], dtype=float)
            if name == "crossing":  # -1 stands for a gap that is still positive at the end
                line["gap_positive_at_end"] = int((values < 0).sum())
                line["crossing_median"] = float(np.median(np.where(values < 0, np.inf, values)))
                continue
            line[name] = float(values.mean())
            line[f"{name}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else ""
        lines.append(line)
    return lines


def plot_curves(fits: Fits) -> Figure:
    """Draw both PSNRs, a row an image, a column a network."""
    networks = list(dict.fromkeys(unit.network for unit in fits))
    labels = list(dict.fromkeys(unit.measured.label for unit in fits))
    figure, axes = panels(len(labels) * len(networks), columns=len(networks), width=1.9, height=2.1)
    for i, label in enumerate(labels):
        row = axes[i * len(networks) : (i + 1) * len(networks)]
        for panel, network in zip(row, networks, strict=True):
            draw_psnrs(panel, over_seeds(fits, network, label))
            panel.set_title(f"{label}\n{network}", fontsize=8)
        share_scale(row)
        row[0].set_ylabel("PSNR (dB)")
    shared_legend(figure, axes[0])
    return figure


def plot_gains(rows: list[Row], common: int) -> Figure:
    """Draw peaks and later outputs over the ViT's, and the gap there; a dot a seed."""
    images = list(dict.fromkeys(row["image"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    shown = (
        ("peak_gain", "peak over the ViT's (dB)"),
        ("common_gain", f"at {common}, over the ViT's (dB)"),
        ("common_gap", f"gap at {common} (dB)"),
    )
    figure, axes = panels(len(shown), columns=3, width=3.3, height=0.35 * len(networks) + 0.9)
    colour = colours(images)
    for panel, (name, label) in zip(axes, shown, strict=True):
        for k, image in enumerate(images):
            for j, network in enumerate(networks):
                chosen = [r for r in rows if (r["image"], r["network"]) == (image, network)]
                height = j + 0.3 * (k - (len(images) - 1) / 2)
                values = [row[name] for row in chosen]
                panel.plot(values, [height] * len(values), "o", color=colour[image], ms=4,
                           alpha=0.7, label=image if j == 0 else None)  # fmt: skip
        panel.axvline(0, color="0.5", lw=1)
        panel.set_yticks(range(len(networks)), networks if panel is axes[0] else [], fontsize=8)
        panel.invert_yaxis()
        panel.set_xlabel(label)
    shared_legend(figure, axes[0])
    return figure


if __name__ == "__main__":
    torch.set_num_threads(1)
    gc.freeze()
    main()
