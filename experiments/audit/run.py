"""Gradient descent and Adam against the kernel at initialisation, network by network."""

import csv
import gc
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels import audit, images, networks, tasks
from dipkernels.plotting import plot_audit, save_figure
from dipkernels.plotting.style import PALETTE, panels

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import open_folder, parse, settings

FINISHED = "audit.nc"  # what `audit` stores last, and reads first


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    size: int
    channels: int
    image: str
    seeds: int
    iterations: int
    steps: int
    probes: int
    networks: tuple[str, ...]
    options: dict[str, dict[str, object]]  # where they aren't the registered ones
    rates: dict[str, float]  # Adam's, where not the published ones


def main(arguments: list[str] | None = None) -> None:
    """Run what hasn't been run yet, and draw."""
    given = parse(__file__, __doc__, arguments)
    gc.freeze()  # what is imported by now needn't be searched for garbage by every kernel
    preset = settings(__file__, given.preset, Preset)
    open_folder(__file__, given, preset)
    clean = images.load(preset.image, size=preset.size)
    clean = clean.mean(dim=0, keepdim=True) if preset.channels == 1 else clean
    rows = []
    for seed in range(preset.seeds):  # seed by seed, so that a part is whole for all networks
        for name in preset.networks:
            before, folder = time.perf_counter(), given.output / "audits" / f"{name}-{seed}"
            prior = networks.create(
                name,
                image_size=preset.size,
                channels=preset.channels,
                **preset.options.get(name, {}),
            ).to(device=given.device)
            found = audit(
                prior,
                tasks.denoise(clean, seed=seed),
                seed=seed,
                iterations=preset.iterations,
                learning_rates={"adam": preset.rates[name]} if name in preset.rates else None,
                checks=sorted({preset.iterations // 10, preset.iterations} - {0}),
                modes=6,
                steps=preset.steps,
                probes=preset.probes,
                freeze=min(20, preset.iterations // 2),
                folder=folder,
                progress=True,
            )
            forget_parts(folder)
            rows += [summarise(found.sel(optimiser=o), name, seed) for o in found.optimiser.values]
            if seed == 0:
                save_figure(plot_audit(found), given.output / f"audit_{name}.png")
            print(f"{name} {seed}: {time.perf_counter() - before:.0f} s", flush=True)
            write(rows, given.output / "summary.csv")
            save_figure(plot_summary(rows), given.output / "summary.png")


def forget_parts(folder: Path) -> None:
    """Remove what a finished audit was made of: 1 GB of images in `paper`, that nobody reads."""
    for path in folder.rglob("*.nc"):
        if path.name != FINISHED:
            path.unlink()


@dataclass(frozen=True)
class Row:
    """One fit and what was predicted of it, in dB unless said otherwise."""

    network: str
    seed: int
    optimiser: str
    measured_peak: float
    peak_iteration: int
    predicted_peak: float  # over the same iterations: plain kernel, or Adam's frozen metric
    predicted_iteration: int
    predicted_at_measured_peak: float
    rms_gap: float  # of the curves, up to the measured peak, over evenly spaced log iterations
    largest_gap: float
    flow_peak: float  # of the plain kernel's flow, at any time
    flow_resolved: int
    flow_iteration: float  # in iterations of gradient descent at half of its limit of stability
    unresolved: float  # largest rms of what Lanczos may lack, in image units
    change: float  # of the kernel at the last check, relative
    change_error: float
    alignment: float
    alignment_error: float


def summarise(one: xr.Dataset, network: str, seed: int) -> Row:
    """Take the numbers of one optimiser out of an audit."""
    measured, predicted = (one.psnr.sel(source=source) for source in ("measured", "predicted"))
    iteration = one.iteration.values
    peak = int(one.measured_peak_iteration)
    until = (iteration <= max(peak, 1)) & (iteration > 0)
    gap = (predicted - measured).values[until]
    last = one.isel(check=-1)
    return Row(
        network,
        seed,
        str(one.optimiser.values),
        float(one.measured_peak_psnr),
        peak,
        float(one.predicted_peak_psnr),
        int(one.predicted_peak_iteration),
        float(np.interp(np.log1p(peak), np.log1p(iteration), predicted.values)),
        float(np.sqrt(np.mean(np.square(gap)))),
        float(one.largest_gap),
        one.flow_peak_psnr,
        one.flow_peak_resolved,
        one.flow_peak_time * one.largest_eigenvalue,
        float(one.unresolved.max()),
        float(last.relative_change),
        float(last.relative_change_standard_error),
        float(last.alignment),
        float(last.alignment_standard_error),
    )


def write(rows: Iterable[Row], path: Path) -> None:
    """Write a table, four digits after the point."""
    lines = [
        {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in asdict(row).items()}
        for row in rows
    ]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def plot_summary(rows: list[Row]) -> Figure:
    """Draw measured peaks less predicted ones, a dot a seed; open ones are at most there."""
    names = list(dict.fromkeys(row.network for row in rows))
    shown = (
        ("gradient descent - kernel, same iterations", "gradient-descent", "predicted_peak"),
        ("Adam - kernel in Adam's frozen metric", "adam", "predicted_peak"),
        ("Adam - kernel, its flow's peak", "adam", "flow_peak"),
    )
    figure, (panel,) = panels(1, width=7.0, height=3.4)
    for place, (label, optimiser, column) in enumerate(shown):
        for index, name in enumerate(names):
            chosen = [r for r in rows if r.network == name and r.optimiser == optimiser]
            gaps = [row.measured_peak - getattr(row, column) for row in chosen]
            x = index + 0.22 * (place - 1)
            for row, gap in zip(chosen, gaps, strict=True):
                told = column != "flow_peak" or row.flow_resolved
                panel.plot(x, gap, "o" if told else "v", color=PALETTE[place], ms=5,
                           mfc=PALETTE[place] if told else "white")  # fmt: skip
            panel.plot([], [], "o", color=PALETTE[place], label=label if index == 0 else None)
            if len(gaps) > 1:
                panel.plot([x - 0.08, x + 0.08], [np.mean(gaps)] * 2, color=PALETTE[place], lw=2)
    panel.plot(
        [], [], "v", color="0.3", mfc="white", label="at most: the flow's peak isn't resolved"
    )
    panel.axhline(0, color="0.4", lw=0.8)
    panel.set_xticks(range(len(names)), names)
    panel.set_ylabel("measured - predicted peak (dB)")
    panel.legend(fontsize=7, loc="best", frameon=False)
    return figure


if __name__ == "__main__":
    main()
