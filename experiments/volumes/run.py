"""Inpainting of a volume by networks of three dimensions, of planes, and by a Gaussian process."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels import fit, gp, networks, sampling, tasks
from dipkernels.networks import ImagePrior
from dipkernels.plotting import plot_posteriors, plot_uncertainty, save_figure
from dipkernels.stages.predictions import PREDICTION
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import Table, open_folder, parse, settings

SIGMA = 0.05
LENGTHSCALES = (1.0, 2.0, 4.0)  # pixels, of which the evidence chooses
FIELDS = ("method", "mask_seed", "peak_psnr", "peak_iteration", "end_psnr", "seconds")


@dataclass(frozen=True)
class Preset:
    """Size of the volume, of networks and fits."""

    size: tuple[int, int, int]
    known: float
    width: int
    iterations: int
    mask_seeds: tuple[int, ...]
    steps: int  # of the prediction, at most
    members: int  # of the ensemble
    draws: int
    probes: int  # of the evidence


def main(arguments: list[str] | None = None) -> None:
    """Compute the rows that the folder doesn't hold yet; draw the figures."""
    options = parse(__file__, __doc__, arguments)
    chosen, output = settings(__file__, options.preset, Preset), options.output
    open_folder(__file__, options, chosen)
    table = Table(output / "results.csv", FIELDS, FIELDS[:2])
    done = table.done()
    for seed in chosen.mask_seeds:
        task = problem(chosen, seed).to(device=options.device)
        for method, solve in METHODS.items():
            if (method, str(seed)) not in done:
                start = time.perf_counter()
                numbers = solve(chosen, task, seed)
                values = (method, str(seed), *numbers, f"{time.perf_counter() - start:.1f}")
                table.append([dict(zip(FIELDS, values, strict=True))])
                print(" ".join(values), flush=True)
    first = problem(chosen, chosen.mask_seeds[0]).to(device=options.device)
    if not (output / "process.png").exists():
        found = {"Matern 3/2": process(chosen, first).dataset(draws=chosen.draws)}
        save_figure(plot_posteriors(first.to(device="cpu"), found), output / "process.png")
    if not (output / "ensemble.png").exists():
        save_figure(ensemble(chosen, first, output), output / "ensemble.png")


def volume(size: tuple[int, int, int]) -> Tensor:
    """Make tubes that wind through the planes, a ball, and a slope of light."""
    axes = torch.meshgrid(*(torch.linspace(-1, 1, n).double() for n in size), indexing="ij")
    z, y, x = axes
    image = 0.2 + 0.1 * x
    for phase, radius in ((0.0, 0.16), (2.1, 0.12), (4.2, 0.2)):
        centre_y = 0.6 * torch.cos(1.5 * z + phase)
        centre_x = 0.6 * torch.sin(1.5 * z + phase)
        distance = ((y - centre_y) ** 2 + (x - centre_x) ** 2).sqrt()
        image = image + 0.5 * torch.sigmoid((radius - distance) / 0.04)
    ball = (z**2 + (y - 0.1) ** 2 + x**2).sqrt()
    return (image + 0.3 * torch.sigmoid((0.3 - ball) / 0.04))[None].clamp(0, 1).float()


def problem(chosen: Preset, seed: int) -> Task:
    """Few pixels of the volume, with noise."""
    mask = tasks.bernoulli_mask(chosen.size, known=chosen.known, seed=seed)
    return tasks.inpaint(volume(chosen.size), mask, noise_sigma=SIGMA, seed=seed)


def network(chosen: Preset, size: tuple[int, ...], task: Task, channels: int = 1) -> ImagePrior:
    """Make the same decoder for volumes, or for images."""
    made = networks.create(
        "conv-decoder", image_size=size, channels=channels, width=chosen.width, upsamplings=2
    )
    return made.to(device=task.measurement.device)


def told(hole: np.ndarray) -> tuple[str, str, str]:
    """Give the peak of a curve, where it is, and the end."""
    best = int(hole.argmax())
    return f"{hole[best]:.2f}", str(best), f"{hole[-1]:.2f}"


def whole(chosen: Preset, task: Task, seed: int) -> tuple[str, str, str]:
    """Fit the network of three dimensions."""
    prior = network(chosen, chosen.size, task)
    result = fit(prior, task, iterations=chosen.iterations, seed=seed)
    return told(result.psnr_clean.sel(region="hole").values)


def given(clean: Tensor, mask: Tensor, measured: Tensor) -> Task:
    """Make a task of a part of what was measured."""
    return tasks.inpaint(clean, mask, measurement=measured, noise_sigma=SIGMA)


def by_planes(chosen: Preset, task: Task, seed: int) -> tuple[str, str, str]:
    """Fit a network of two dimensions to each plane."""
    assert task.clean is not None
    planes = [
        given(task.clean[:, z], task.mask[z], task.measurement[:, z]) for z in range(chosen.size[0])
    ]
    prior = network(chosen, chosen.size[1:], task)
    result = fit(prior, planes, iterations=chosen.iterations, seed=seed)
    missing = (~task.mask).flatten(1).sum(dim=1).cpu().numpy()[:, None]
    errors = 10 ** (-result.psnr_clean.sel(region="hole").values / 10)
    return told(-10 * np.log10((missing * errors).sum(axis=0) / missing.sum()))


def as_channels(chosen: Preset, task: Task, seed: int) -> tuple[str, str, str]:
    """Fit one network of two dimensions, whose channels are the planes."""
    assert task.clean is not None
    stacked = given(task.clean[0], task.mask, task.measurement[0])
    prior = network(chosen, chosen.size[1:], task, channels=chosen.size[0])
    result = fit(prior, stacked, iterations=chosen.iterations, seed=seed)
    return told(result.psnr_clean.sel(region="hole").values)


def predicted(chosen: Preset, task: Task, seed: int) -> tuple[str, str, str]:
    """Predict the peak of gradient flow from the kernel of the network of three dimensions."""
    prior = network(chosen, chosen.size, task)
    found = PREDICTION.run(Subject(prior, task, seed=seed), steps=chosen.steps)
    low, high = found.attrs["peak_psnr_lower"], found.attrs["peak_psnr_upper"]
    return f"{found.attrs['peak_psnr']:.2f}", "", f"[{low:.2f} {high:.2f}]"


def process(chosen: Preset, task: Task) -> gp.GPPosterior:
    """Condition the Matern process, of a few length-scales, that has the most evidence."""
    seen = task.measurement[task.measured]
    variance = max(float(seen.var()) - SIGMA**2, SIGMA**2)
    posteriors = [
        gp.GaussianProcess(gp.matern(scale, variance), float(seen.mean())).posterior(
            task, tolerance=1e-5
        )
        for scale in LENGTHSCALES
    ]
    evidence = [
        each.log_evidence("lanczos", probes=chosen.probes, steps=24).value.value
        for each in posteriors
    ]
    return posteriors[int(np.argmax(evidence))]


def by_process(chosen: Preset, task: Task, seed: int) -> tuple[str, str, str]:
    """Score the mean of the process."""
    del seed
    score = f"{float(task.psnr(process(chosen, task).mean.float(), 'hole')):.2f}"
    return score, "", score


def ensemble(chosen: Preset, task: Task, output: Path) -> object:
    """Draw where fits from several starts disagree, and write whether that is where they err."""
    found = sampling.deep_ensemble(
        network(chosen, chosen.size, task), task, members=chosen.members, picture="average",
        iterations=chosen.iterations,
    )  # fmt: skip
    judged: xr.Dataset = sampling.uncertainty.calibration(found, task)["truth"]
    row = {name: f"{float(judged[name]):.4f}" for name in ("rmse", "sharpness", "z_rms")}
    Table(output / "ensemble.csv", tuple(row), ()).append([row])
    maps = sampling.uncertainty.maps(found, levels=(0.8,))
    return plot_uncertainty(task.to(device="cpu"), maps)


METHODS: dict[str, Callable[[Preset, Task, int], tuple[str, str, str]]] = {
    "3D network": whole,
    "2D network, plane by plane": by_planes,
    "2D network, planes as channels": as_channels,
    "prediction of the 3D network": predicted,
    "Matern 3/2": by_process,
}


if __name__ == "__main__":
    main()
