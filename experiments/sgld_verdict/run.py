"""Does SGLD plateau where SGD overfits? See README.md beside this file."""

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import xarray as xr

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for the files beside this one

from dipkernels.priors.prior import ImagePrior
from dipkernels.sampling.diagnostics import require_arviz
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from experiments.harness import alone, each_missing, open_folder, parse, settings
from experiments.sgld_verdict.arms import ARMS, Network, denoising, run_arm
from experiments.sgld_verdict.chains import STARTS, Sampler, run_sampler, starts
from experiments.sgld_verdict.curves import kept_of_arm, kept_of_chains
from experiments.sgld_verdict.report import write_report

Run = tuple[str, str, int]
Chains = tuple[str, str]
Cases = dict[str, tuple[ImagePrior, Task]]


@dataclass(frozen=True)
class Preset:
    """See ``config.yaml``."""

    images: tuple[str, ...]
    size: int
    width: int
    scales: int
    code_channels: int
    seeds: int
    evaluations: int
    arms: tuple[str, ...]
    ablations: tuple[str, ...]
    burn_in: int
    thin: int
    readouts: tuple[int, int, int]
    stopped_at: int
    overfitted_at: int
    samplers: tuple[str, ...]
    samplers_first_image: tuple[str, ...]
    diagnosed_pixels: int
    longer: int

    @property
    def network(self) -> Network:
        """Of all runs."""
        return Network(self.size, self.width, self.scales, self.code_channels)

    def runs(self) -> list[Run]:
        """Image, arm and seed of every run of an arm, seed by seed; ablations last."""
        main = [(i, a, s) for s in range(self.seeds) for i in self.images for a in self.arms]
        first = self.images[0]
        return main + [(first, a, s) for s in range(self.seeds) for a in self.ablations]

    def spent(self, start: str) -> int:
        """Count the gradients of the fit that a chain starts from."""
        return {"stopped": self.stopped_at, "overfitted": self.overfitted_at}.get(start, 0)

    def of_chains(self, sampler: str) -> list[tuple[str, int]]:
        """Start and seed of the chains that a sampler runs together."""
        if Sampler.parse(sampler).fitted:
            return [(start, seed) for start in STARTS for seed in range(self.seeds)]
        return [("initialisation", seed) for seed in range(len(STARTS) * self.seeds)]

    def chains(self) -> list[Chains]:
        """Image and sampler of all chains that are run together."""
        main = [(image, name) for image in self.images for name in self.samplers]
        return main + [(self.images[0], name) for name in self.samplers_first_image]

    def units(self) -> list[Run | Chains]:
        """All of them, what matters most first: one seed of each arm, then chains."""
        runs, chains = self.runs(), self.chains()
        head = len(self.images) * len(self.arms)
        return [*runs[:head], *chains, *runs[head:]]


def label(image: str, name: str, seed: int | None = None) -> str:
    """Name of a stored result."""
    words = f"{Path(image).stem}-{name}" + ("" if seed is None else f"-{seed}")
    return words.replace(", ", "_").replace(" ", "_").replace("/", "_by_")


def main(arguments: list[str] | None = None) -> None:
    """Run what isn't finished, and write tables and figures."""
    options = parse(__file__, __doc__, arguments)
    preset = settings(__file__, options.preset, Preset)
    for name in (*preset.samplers, *preset.samplers_first_image):
        Sampler.parse(name)  # a wrong name is found now
    require_arviz()  # now, not when chains have run for minutes
    # First, so that images which aren't found leave no folder.
    cases = {image: case(image, preset, options.device) for image in preset.images}
    folder = open_folder(__file__, options, preset)
    for unit, name in each_missing(preset.units(), folder, lambda unit: label(*unit)):
        folder.stage(name, partial(compute, unit, cases, preset, folder), classic=True)
        drop_starts(unit[0], preset, folder)
    with alone(folder, "report"):
        print(write_report(preset, folder, label))


def case(image: str, preset: Preset, device: torch.device) -> tuple[ImagePrior, Task]:
    """Make the network and the noisy image."""
    task = denoising(image, preset.size)
    return preset.network.prior(task.shape[0], device), task


def compute(unit: Run | Chains, cases: Cases, preset: Preset, folder: RunFolder) -> xr.Dataset:
    """Run an arm, or chains, whose starts are fitted where they aren't there yet."""
    image, name = unit[:2]
    if len(unit) == 3:
        count = preset.evaluations
        run = run_arm(*cases[image], ARMS[name], unit[2], count, preset.burn_in, preset.thin)
        return kept_of_arm(run, preset.readouts)
    return run_chains(image, name, *cases[image], preset, folder)


def run_chains(
    image: str,
    sampler: str,
    prior: ImagePrior,
    task: Task,
    preset: Preset,
    folder: RunFolder,
) -> xr.Dataset:
    """Run a chain from each start; all count until they and their starts took as many gradients."""
    counts = (preset.stopped_at, preset.overfitted_at)
    path = start_of(image, folder)
    with alone(folder, path.name):
        begin = starts(prior, task, preset.seeds, counts, path)
    count, pixels = preset.evaluations, preset.diagnosed_pixels
    run = run_sampler(prior, task, sampler, begin, count, pixels)
    lengths = [count - preset.spent(start) for start, _ in preset.of_chains(sampler)]
    return kept_of_chains(run, lengths)


def start_of(image: str, folder: RunFolder) -> Path:
    """File of the parameters that chains start from."""
    return folder.path / f"{Path(image).stem}-start.safetensors"


def drop_starts(image: str, preset: Preset, folder: RunFolder) -> None:
    """Remove them once no chain is left that needs them."""
    of = [name for about, name in preset.chains() if about == image]
    if all(folder.file(label(image, name)).exists() for name in of):
        start_of(image, folder).unlink(missing_ok=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
