"""Inpainting by five networks, scored over the whole image and over hole and known pixels apart.

python experiments/inpainting_table/run.py --preset cpu
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for experiments.harness

from dipkernels import fit, images, networks, tasks
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from experiments import harness
from experiments.compact import compact, restored
from experiments.inpainting_table.report import write_report

PATCHED = ("vit", "vit-conv3", "conv3-vit")
MADE = ("text", "region")  # masks that are no files
Unit = tuple[str, str, int]  # problem, network, seed


@dataclass(frozen=True)
class Settings:
    """What is fitted.

    Attributes
    ----------
    size : int or None
        Pixels a side; None is each file's own size.
    seeds : tuple of int
        Of the initialisations.
    learning_rate : float
        Adam's, the same for all networks, as in the report's code.
    problems, networks : dict
        By name; see ``config.yaml``.
    """

    size: int | None
    seeds: tuple[int, ...]
    learning_rate: float
    problems: dict[str, dict[str, Any]]
    networks: dict[str, dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    """Fit what isn't fitted yet, then write tables and figures of all that is there."""
    options = harness.parse(__file__, __doc__, arguments)
    chosen = harness.settings(__file__, options.preset, Settings)
    folder = harness.open_folder(__file__, options, chosen)
    problems = {name: make_task(problem, chosen.size) for name, problem in chosen.problems.items()}
    units = [
        (problem, network, seed)
        for seed in chosen.seeds
        for problem in chosen.problems
        for network in chosen.networks
    ]
    for unit, _ in harness.each_missing(units, folder, stage):
        run_unit(folder, unit, problems[unit[0]], chosen, options.device)
    results = {
        unit: restored(result)
        for unit in units
        if (result := folder.stored(stage(unit))) is not None
    }
    published = {
        name: make_task(problem, None)
        for name, problem in chosen.problems.items()
        if chosen.size is not None and problem["mask"] not in MADE
    }
    with harness.alone(folder, "report"):
        write_report(options.output, problems, published, results)


def stage(unit: Unit) -> str:
    """Name of a unit's file."""
    problem, network, seed = (re.sub(r"\W+", "_", str(part)) for part in unit)
    return f"{problem}-{network}-{seed}"


def run_unit(
    folder: RunFolder, unit: Unit, task: Task, chosen: Settings, device: torch.device
) -> xr.Dataset:
    """Fit one network to one problem from one seed, and store what the report reads.

    Those are the curves, the errors at the end, and of the first seed the last output as a picture.
    """
    problem, network, seed = unit
    what, name = chosen.networks[network], stage(unit)
    patch = {"patch_size": chosen.problems[problem]["patch"]} if what["prior"] in PATCHED else {}
    prior = networks.create(what["prior"], image_size=task.shape[1:], **what["options"], **patch)
    prior = prior.to(device=device)
    pictures = ["final"] if seed == min(chosen.seeds) else []

    def compute() -> xr.Dataset:
        result = fit(
            prior,
            task,
            learning_rate=chosen.learning_rate,
            iterations=what["iterations"],
            input_noise=chosen.problems[problem]["input_noise"],
            seed=seed,
            checkpoint=folder.checkpoint(name),
        )
        return compact(harness.reduced(result, ["psnr_clean", "mse"], pictures=pictures))

    return folder.stage(name, compute)


def make_task(problem: dict[str, Any], size: int | None) -> Task:
    """Make the task of a problem: all of the image is the truth, as the report scores it."""
    image = images.load(problem["image"], size=size)
    shape = tuple(image.shape[1:])
    if problem["mask"] == "text":
        mask = tasks.text_mask(shape, font_size=8)
    elif problem["mask"] == "region":
        mask = tasks.region_mask(shape)
    else:
        mask = read_mask(problem["mask"], size)
    down, right = problem.get("move", (0.0, 0.0))
    shift = (round(down * shape[0]), round(right * shape[1]))
    return tasks.inpaint(image, mask.roll(shift, dims=(0, 1)))


def read_mask(name: str, size: int | None) -> Tensor:
    """Read a mask and hide as large a share of the small image as of the file's.

    A pixel of the small image is covered in part: the most covered ones are hidden. A fixed
    threshold of one half would lose thin letters.
    """
    whole = images.load_mask(name)
    if size is None:
        return whole
    open_share = images.load(name, size=size).mean(dim=0)
    hidden = max(1, round((1 - whole.double().mean().item()) * open_share.numel()))
    mask = torch.ones(open_share.numel(), dtype=torch.bool)
    mask[open_share.flatten().argsort(stable=True)[:hidden]] = False
    return mask.reshape(open_share.shape)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
