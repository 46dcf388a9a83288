"""The tables of the poster on SGLD, at reduced size. See README.md beside this file."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from dipkernels import images, tasks
from dipkernels.images import luma
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from experiments.harness import alone, each_missing, open_folder, parse, settings
from experiments.sgld_tables.report import write_report
from experiments.sgld_verdict.arms import ARMS, Network, denoising, run_arm
from experiments.sgld_verdict.curves import kept_of_arm


@dataclass(frozen=True)
class Preset:
    """See ``config.yaml``; lengths are of each arm, read-outs of all but the recipe."""

    denoise: tuple[str, ...]
    inpaint: tuple[str, ...]
    size: int
    width: int
    scales: int
    code_channels: int
    seeds: int
    denoise_lengths: dict[str, int]
    inpaint_lengths: dict[str, int]
    denoise_readouts: dict[str, int]
    inpaint_readouts: dict[str, int]
    burn_in: int
    thin: int

    def lengths(self, task: str) -> dict[str, int]:
        """List the iterations of the arms of a task."""
        return self.denoise_lengths if task == "denoise" else self.inpaint_lengths

    def readouts(self, task: str) -> dict[str, int]:
        """List where the arms of a task are stopped."""
        return self.denoise_readouts if task == "denoise" else self.inpaint_readouts

    def units(self) -> list[tuple[str, str, str, int]]:
        """Task, image, arm and seed of every run, seed by seed."""
        return [
            (task, image, arm, seed)
            for seed in range(self.seeds)
            for task in ("denoise", "inpaint")
            for image in (self.denoise if task == "denoise" else self.inpaint)
            for arm in self.lengths(task)
        ]


def label(task: str, image: str, arm: str, seed: int) -> str:
    """Name of a stored result."""
    return f"{task}-{Path(image).stem}-{arm}-{seed}"


def make_task(name: str, image: str, size: int) -> Task:
    """Make a noisy colour image, or a grey one with half of its pixels missing."""
    if name == "denoise":
        return denoising(image, size)
    clean = images.load(image, size=size)
    clean = luma(clean) if clean.shape[0] == 3 else clean
    return tasks.inpaint(clean, tasks.bernoulli_mask((size, size)))


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't finished, and write the table."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    folder = open_folder(__file__, options, preset)
    for unit, name in each_missing(preset.units(), folder, lambda unit: label(*unit)):
        folder.stage(name, partial(compute, *unit, preset, options.device), classic=True)
    with alone(folder, "report"):
        print(report(preset, folder))


def compute(
    name: str, image: str, arm: str, seed: int, preset: Preset, device: torch.device
) -> xr.Dataset:
    """Run one arm on one image."""
    task = make_task(name, image, preset.size)
    network = Network(preset.size, preset.width, preset.scales, preset.code_channels)
    prior = network.prior(task.shape[0], device)
    count = preset.lengths(name)[arm]
    run = run_arm(prior, task, ARMS[arm], seed, count, preset.burn_in, preset.thin)
    return kept_of_arm(run, list(preset.readouts(name).values()))


def report(preset: Preset, folder: RunFolder) -> str:
    """Write the tables and the figure of what has been stored."""
    found = {unit: folder.stored(label(*unit)) for unit in preset.units()}
    runs = {unit: run for unit, run in found.items() if run is not None}
    readouts = {task: preset.readouts(task) for task in ("denoise", "inpaint")}
    return write_report(runs, readouts, folder.path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
