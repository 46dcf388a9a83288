"""Super-resolution and flash/no-flash by a CNN and a transformer, stopped as training images say.

python experiments/super_resolution_and_flash/run.py --preset cpu
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xarray as xr
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for experiments.harness

from dipkernels import fit, networks, tasks
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from experiments import harness
from experiments.compact import compact, restored
from experiments.super_resolution_and_flash.calibration import REGION, calibrate, chosen_weights
from experiments.super_resolution_and_flash.problems import lit_pair, load, super_resolution
from experiments.super_resolution_and_flash.report import write_report


@dataclass(frozen=True)
class Settings:
    """What is fitted.

    Attributes
    ----------
    scaled, size : int
        Pixels a side: of the scaled images, and of the windows in their middle that are used.
    factor : int
        Of super-resolution.
    noise_sigma : float
        Of the photographs without flash that have a truth; white is 1.
    train_seeds : tuple of int
        Of the initialisations that calibrate; a task's ``test_seeds`` are others.
    tasks : dict
        By name; see ``config.yaml``.
    """

    scaled: int
    size: int
    factor: int
    noise_sigma: float
    train_seeds: tuple[int, ...]
    tasks: dict[str, dict[str, Any]]


class Unit(NamedTuple):
    """One fit."""

    task: str
    network: str
    weight: float  # of total variation
    image: str
    seed: int

    @property
    def stage(self) -> str:
        """Name of its file."""
        return "-".join(re.sub(r"[^\w.]+", "_", str(part)) for part in self)


def main(arguments: list[str] | None = None) -> None:
    """Fit the training images, calibrate, fit the test images, and report."""
    options = harness.parse(__file__, __doc__, arguments)
    chosen = harness.settings(__file__, options.preset, Settings)
    folder = harness.open_folder(__file__, options, chosen)
    problems = make_problems(chosen)
    train = list(train_units(chosen))
    trained = run_units(folder, train, problems, chosen, options.device, {})
    table = calibrate(trained)
    weights = chosen_weights(table)
    stops = {
        (row.task, row.network, row.weight): int(row.iteration)
        for row in table[table.rule == "median"].itertuples()
    }
    test = list(test_units(chosen, weights))
    tested = run_units(folder, test, problems, chosen, options.device, stops)
    with harness.alone(folder, "report"):
        write_report(options.output, problems, table, trained, tested)


def train_units(chosen: Settings) -> Iterator[Unit]:
    """List the fits that calibrate: every weight, every training image."""
    for task, what in chosen.tasks.items():
        for seed in chosen.train_seeds:
            for network, how in what["networks"].items():
                for weight in how.get("weights", what["weights"]):
                    for image in what["train"]:
                        yield Unit(task, network, weight, image, seed)


def test_units(chosen: Settings, weights: dict[tuple[str, str], list[float]]) -> Iterator[Unit]:
    """List the fits that are judged: without total variation, and with the calibrated weight."""
    for task, what in chosen.tasks.items():
        for seed in what["test_seeds"]:
            first = seed == what["test_seeds"][0]
            for image in (*what["test"], *(what["pairs"] if first else ())):
                for network in what["networks"]:
                    for weight in weights[task, network]:
                        yield Unit(task, network, weight, image, seed)


def make_problems(chosen: Settings) -> dict[tuple[str, str], Task]:
    """Make all tasks, by task and image."""

    def image(name: str) -> Tensor:
        return load(name, chosen.scaled, chosen.size)

    problems = {}
    for task, what in chosen.tasks.items():
        for name in (*what["train"], *what["test"]):
            if task == "super-resolution":
                problems[task, name] = super_resolution(image(name), chosen.factor)
            else:
                problems[task, name] = lit_pair(image(name), chosen.noise_sigma)
        for name, pair in what["pairs"].items():
            problems[task, name] = tasks.flash_no_flash(*map(image, pair))
    return problems


def run_units(
    folder: RunFolder,
    units: list[Unit],
    problems: dict[tuple[str, str], Task],
    chosen: Settings,
    device: torch.device,
    stops: dict[tuple[str, str, float], int],
) -> dict[Unit, xr.Dataset]:
    """Fit what isn't fitted yet."""
    for unit, name in harness.each_missing(units, folder, lambda unit: unit.stage):
        compute = functools.partial(run_unit, unit, problems, chosen, device, stops)
        folder.stage(name, lambda: compact(compute()))  # noqa: B023
    return {unit: restored(folder.stage(unit.stage, dict)) for unit in units}


def run_unit(
    unit: Unit,
    problems: dict[tuple[str, str], Task],
    chosen: Settings,
    device: torch.device,
    stops: dict[tuple[str, str, float], int],
) -> xr.Dataset:
    """Fit, and keep what the report reads.

    That is the curve over what is scored, and of a test image's first seed the output at the
    calibrated iteration, subsampled for drawing, with the PSNR that it has as a whole.
    """
    task, what = problems[unit.task, unit.image], chosen.tasks[unit.task]
    network = what["networks"][unit.network]
    code = {}
    if network.get("code") == "flash":
        code = {"code": task.guide}
    elif task.guide is not None:
        task = dataclasses.replace(task, guide=None)
    prior = networks.create(
        network["prior"], image_size=tuple(task.shape[1:]), **network["options"], **code
    ).to(device=device)
    stop = stops.get((unit.task, unit.network, unit.weight))
    kept: list[Tensor] = []

    def keep(iteration: int, image: Tensor, _: object) -> None:
        if iteration == stop:
            kept.append(image.cpu().clone())

    penalty = {"total_variation_weight": unit.weight} if unit.weight else {}
    result = fit(
        prior,
        task,
        learning_rate=network["learning_rate"],
        iterations=network.get("iterations", what["iterations"]),
        input_noise=what["input_noise"],
        seed=unit.seed,
        callback=keep,
        **penalty,
    )
    if "psnr_clean" in result:
        result = result.sel(region=[REGION[unit.task]])
    if kept and unit.seed == what["test_seeds"][0]:
        result = result.assign(at_stop=(("channel", "y", "x"), kept[0].numpy()))
        if task.clean is not None:
            result.attrs["psnr_at_stop"] = float(task.psnr(kept[0], REGION[unit.task]))
    return harness.reduced(result, ["psnr_clean"], pictures=["at_stop"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
