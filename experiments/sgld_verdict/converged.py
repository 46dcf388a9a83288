"""Does the chain plateau where SGD overfits, once it has converged? See README.md."""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from dipkernels import fit, networks
from dipkernels.plotting.style import PALETTE, panels, save_figure, shared_legend
from dipkernels.priors.prior import ImagePrior
from dipkernels.sampling import WeightPosterior, diagnose, sample, uncertainty, verdict
from dipkernels.sampling.diagnostics import require_arviz
from dipkernels.tasks import Task
from experiments.harness import alone, each_missing, open_folder, parse, settings
from experiments.sgld_verdict.arms import LEARNING_RATE, denoising
from experiments.sgld_verdict.chains import STARTS, starts
from experiments.sgld_verdict.curves import binned, doubling
from experiments.sgld_verdict.report import write
from experiments.sgld_verdict.run import Preset, label, start_of

FITS = {"sgd": 0.0, "sgd+input": 1 / 30}  # noise on the code
CHAINS = "chains"
COLUMNS = (
    "image", "arm", "seed", "peak", "peak_at", "end", "last_doubling", "average_peak",
    "average_end", "rhat_99", "rhat_psnr", "rhat_total_variation", "coverage_90", "converged",
)  # fmt: skip
Unit = tuple[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Fit and sample what isn't there, and write ``converged.csv`` and its figure."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    require_arviz()
    tasks = {image: denoising(image, preset.converged_size) for image in preset.images}
    folder = open_folder(__file__, options, preset)
    units = [(image, arm) for image in preset.images for arm in (*FITS, CHAINS)]
    for unit, name in each_missing(units, folder, lambda unit: label(*unit) + "-converged"):
        task = tasks[unit[0]]
        prior = networks.create(
            "conv-decoder",
            image_size=task.shape[1:],
            channels=task.shape[0],
            width=preset.converged_width,
            upsamplings=3,
        ).to(device=options.device)
        begin = start_of(f"{Path(unit[0]).stem}-converged", folder)
        compute = partial(run_unit, unit, prior, task, preset, begin)
        folder.stage(name, compute, classic=True)
        begin.unlink(missing_ok=True)
    with alone(folder, "report"):
        found = {unit: folder.stored(label(*unit) + "-converged") for unit in units}
        there = {unit: result for unit, result in found.items() if result is not None}
        rows = [row for unit, result in there.items() for row in rows_of(unit, result)]
        write(folder.path / "converged.csv", COLUMNS, rows)
        draw(preset, there, folder.path / "converged.png")
    for row in rows:
        print(f"{row['image']:28s} {row['arm']:18s} {row['seed']} end {row['end']:.2f} dB")


def run_unit(unit: Unit, prior: ImagePrior, task: Task, preset: Preset, begin: Path) -> xr.Dataset:
    """Fit all seeds, or run the package's default chains from fits on both sides of the peak."""
    if unit[1] != CHAINS:
        count, seeds = preset.evaluations, range(preset.seeds)
        noise = FITS[unit[1]]
        rate = {"learning_rate": LEARNING_RATE, "iterations": count, "seed": seeds}
        result = fit(prior, task, input_noise=noise, snapshots=0, **rate)  # type: ignore[arg-type]
        scores = result[["psnr_clean", "psnr_average_clean"]].sel(region="whole", drop=True)
        return scores.rename(psnr_clean="iterate", psnr_average_clean="average")
    counts = (preset.stopped_at, preset.overfitted_at)
    result = sample(
        WeightPosterior(prior, task),
        start=starts(prior, task, preset.seeds, counts, begin),
        iterations=preset.converged_iterations,
        chains=len(STARTS) * preset.seeds,
    )
    table = diagnose(result, pixels=None)
    truth = task.clean
    assert truth is not None
    draws = result.draws.values.reshape(-1, truth.numel())
    calibrated = uncertainty.calibrate(draws, truth.cpu().numpy().ravel())
    kept = result[["psnr_clean", "psnr_mean"]].rename(psnr_clean="iterate", psnr_mean="average")
    summaries = table["summary_rhat"]
    return kept.assign_attrs(
        rhat_99=float(table["rhat"].quantile(0.99)),
        rhat_psnr=float(summaries.sel(summary="psnr")),
        rhat_total_variation=float(summaries.sel(summary="total_variation")),
        coverage_90=float(calibrated.coverage.interp(level=0.9)),
        converged=str(verdict(table).converged),
        step_size=float(result.attrs["step_size"]),
    )


def rows_of(unit: Unit, result: xr.Dataset) -> list[dict[str, Any]]:
    """Condense each fit, or each chain."""
    image, arm = unit
    rows = []
    for number in range(result["iterate"].shape[0]):
        iterate, average = (result[name].values[number] for name in ("iterate", "average"))
        centres, means = binned(iterate)
        seeds = result.sizes.get("chain", 0) // len(STARTS)
        start = f" {STARTS[number // seeds]}" if arm == CHAINS else ""
        rows.append(
            {
                "image": image,
                "arm": arm + start,
                "seed": number % seeds if seeds else number,
                "peak": np.nanmax(means),
                "peak_at": centres[np.nanargmax(means)],
                "end": means[-1],
                "last_doubling": doubling(centres, means),
                "average_peak": np.nanmax(average),
                "average_end": average[np.isfinite(average)][-1],
                **{key: result.attrs.get(key, "") for key in COLUMNS[9:]},
            }
        )
    return rows


def draw(preset: Preset, found: dict[Unit, xr.Dataset], path: Path) -> None:
    """Draw the PSNR of fits and chains of each image."""
    images = [image for image in preset.images if any(of == image for of, _ in found)]
    if not images:
        return
    figure, axes = panels(len(images), columns=3, width=3.4, height=2.9)
    for panel, image in zip(axes, images, strict=False):
        for number, arm in enumerate((*FITS, CHAINS)):
            result = found.get((image, arm))
            for line in range(0 if result is None else result["iterate"].shape[0]):
                assert result is not None
                late = arm == CHAINS and line >= result.sizes["chain"] // 2
                x, y = binned(result["iterate"].values[line])
                said = f"{arm}, from overfitted fits" if late else arm
                style = {"color": PALETTE[number], "ls": "--" if late else "-", "lw": 1.1}
                first = line == 0 or (late and line == result.sizes["chain"] // 2)
                panel.plot(x, y, label=said if first else None, **style)
        panel.set_title(Path(image).stem)
        panel.set_xscale("log")
        panel.set_xlabel("iteration")
        panel.set_ylabel("PSNR of the iterate (dB)")
    shared_legend(figure, axes[0])
    save_figure(figure, path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
