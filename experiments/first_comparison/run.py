"""Six networks fitted to one image, and what their kernels predict: `dipkernels compare`."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from dipkernels import compare, images, tasks
from dipkernels.reports import format_table, write_report
from dipkernels.stages.comparison import ComparisonSettings, Effort, make_priors
from dipkernels.storage.netcdf import save
from dipkernels.storage.runs import RunFolder

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import packed, parse, reduced, settings

# What page and table read of a fit, beside attributes; the images of the first seed alone.
CURVES = ("psnr_clean", "psnr_average_clean", "psnr_noisy", "peak_psnr", "peak_iteration", "status")
PICTURES = ("initial", "best", "final", "clean", "measurement")
EIGENVECTORS = 6  # that are drawn
SIDE = 96  # most rows and columns of a picture; a panel has about 190 pixels
REDUCED = "reduced"  # marks a result, so that it is done once


@dataclass(frozen=True)
class Preset:
    """One size of the experiment."""

    image: str
    size: int
    seeds: int  # fitted with Adam
    efforts: dict[str, dict[str, int | float | None]]


def main(arguments: list[str] | None = None) -> None:
    """Run what hasn't been run yet, and write the report of what there is."""
    given = parse(__file__, __doc__, arguments)
    preset = settings(__file__, given.preset, Preset)
    task = tasks.denoise(images.load(preset.image, size=preset.size))
    chosen = ComparisonSettings(
        preset.image,
        device=str(given.device),
        seeds=preset.seeds,
        efforts={name: Effort(**each) for name, each in preset.efforts.items()},  # type: ignore[arg-type]
    )
    priors = make_priors(preset.efforts, task, device=given.device)
    # as of `dipkernels compare`, whose page is made from it
    folder = RunFolder.open(given.output, chosen.record(task, priors))
    try:
        rows = compare(
            priors,
            task,
            folder,
            chosen,
            progress=True,
            report=lambda row: reduce_stages(folder, str(row["prior"])),
        )
        print(format_table(rows, task))
    finally:
        print(f"report: {write_report(folder, list(priors), task)}")


def reduce_stages(folder: RunFolder, prior: str) -> None:
    """Leave of a prior's results what the page reads: 100 MB of images become 1 MB in `paper`."""
    for stage, reduce in REDUCTIONS.items():
        name = f"{prior}/{stage}"
        found = folder.stored(name)
        if found is not None and REDUCED not in found.attrs:
            kept = reduce(found).assign_attrs({REDUCED: "to what first_comparison's page reads"})
            save(kept, folder.file(name))


def reduce_fit(fit: xr.Dataset) -> xr.Dataset:
    """Keep curves of all seeds, and the images of the first, to be looked at."""
    first = fit.isel(seed=0, drop=True) if "seed" in fit.dims else fit
    pictures = reduced(first, (), pictures=PICTURES, side=SIDE)
    return reduced(fit, CURVES).merge(pictures, combine_attrs="override")


def reduce_descent(fit: xr.Dataset) -> xr.Dataset:
    """Keep the curve."""
    return reduced(fit, ("psnr_clean",))


def reduce_kernel(kernel: xr.Dataset) -> xr.Dataset:
    """Keep the eigenvectors that are drawn, each over its largest entry."""
    drawn = kernel.isel(rank=slice(EIGENVECTORS))
    largest = np.abs(drawn.eigenvector).max(("channel", "y", "x"))
    shown = packed(drawn.eigenvector / largest, -1, 1, side=SIDE)
    return drawn.drop_vars("eigenvector").assign(eigenvector=shown)


REDUCTIONS: dict[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "fit_adam": reduce_fit,
    "kernel": reduce_kernel,
    "fit_gradient_descent": reduce_descent,
}


if __name__ == "__main__":
    main()
