"""Inpainting by the Gaussian process of an infinitely wide deep image prior, against an RBF's."""

import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from dipkernels import gp, images, kernels, networks, tasks
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.plotting import plot_posteriors, save_figure
from dipkernels.storage.netcdf import load, save

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import Table, open_folder, parse, settings

PUBLISHED = gp.rbf(math.exp(0.67132), 0.03068)
ORDINARY = {
    "RBF, fitted": gp.rbf(1.0),
    "Matern 3/2, fitted": gp.matern(1.0),
    "Matern 1/2, fitted": gp.matern(1.0, smoothness=0.5),
}
PUBLISHED_SIGMA = math.exp(-5.40 / 2)
FIELDS = (
    "image", "side", "mask_seed", "kernel", "relative_noise", "psnr", "psnr_pasted", "solver",
    "iterations", "relative_error", "seconds",
)  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Sides, networks, draws."""

    side: int
    large: int  # 0: none
    width: int  # of the network whose limit is taken
    measured_width: int
    channels: int
    samples: int
    mask_seeds: tuple[int, ...]
    draws: int
    relative_noise: tuple[float, ...]  # to the prior's deviation; the published run had none
    evidence: str  # how the RBF's is computed
    drawn_pixels: int  # grids on which normalisations are averaged over draws


@dataclass(frozen=True)
class Unit:
    """One posterior."""

    image: str
    mask_seed: int
    kernel: str
    process: gp.GaussianProcess
    task: tasks.Task
    sigma: float
    relative: float

    @property
    def key(self) -> tuple[str, ...]:
        """Of its row."""
        return (self.image, str(self.task.shape[1]), str(self.mask_seed), self.kernel,
                f"{self.relative:g}")  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Compute all posteriors that the folder doesn't hold yet; draw the figure."""
    options = parse(__file__, __doc__, arguments)
    chosen, output = settings(__file__, options.preset, Preset), options.output
    open_folder(__file__, options, chosen)
    table = Table(output / "results.csv", FIELDS, FIELDS[:5])
    found = dip_kernels(chosen, output, options.device)
    done = table.done()
    for unit in units(chosen, found, {key[:4] for key in done}, options.device):
        if unit.key not in done:
            row = solved(unit)
            print(" ".join(f"{k}={v}" for k, v in row.items()), flush=True)
            table.append([row])
    draw(chosen, found, options.device, output / "posteriors.png")


def dip_kernels(chosen: Preset, output: Path, device: torch.device) -> dict[str, StationaryKernel]:
    """Covariances of the network in the literature: of its limit, and measured when narrower."""
    twice, found = 2 * chosen.side, {}
    path = output / "infinite_width.npy"
    if not path.exists():
        start = time.perf_counter()
        prior = networks.create("wide-skip", image_size=twice, channels=1, width=chosen.width)
        prior = prior.to(device=device)
        limit = kernels.infinite_width(
            prior, code="noise", max_period=None, drawn_pixels=chosen.drawn_pixels
        ).kernel
        np.save(path, limit.covariance_table.cpu().numpy())
        print(f"infinite width: {time.perf_counter() - start:.0f} s", flush=True)
    table = torch.from_numpy(np.load(path))
    phased = StationaryKernel(table, torch.zeros_like(table), table.new_zeros(table.shape[:2]))
    found["infinite width, stationary"] = phased.phase_averaged()
    found["infinite width, period 4"] = phased
    path = output / "covariance.nc"
    if not path.exists():
        start = time.perf_counter()
        prior = networks.create(
            "wide-skip", image_size=twice, channels=chosen.channels, width=chosen.measured_width
        ).to(device=device)
        measured = kernels.covariance(
            prior, chosen.samples, codes="noise", max_lag=chosen.side, period=4, tests=False,
            progress=True,
        )  # fmt: skip
        save(measured[["kernel", "phase_kernel"]].drop_attrs(), path)
        print(f"measured: {time.perf_counter() - start:.0f} s", flush=True)
    measured = load(path)
    for name, phases in (("measured, stationary", False), ("measured, period 4", True)):
        found[name] = gp.from_covariance(measured, phases=phases).kernel
    return found


def problems(chosen: Preset) -> Iterator[tuple[str, int, tasks.Task]]:
    """Yield the literature's problem, where it is at hand, and `camera` with random masks."""
    file = Path(os.environ.get("DIPKERNELS_DATA", "")) / "inpainting" / "gp_cameraman64.npz"
    if file.is_file() and chosen.side == 64:
        with np.load(file) as arrays:
            clean = torch.from_numpy(arrays["img_np"]).double()
            yield (
                "cameraman",
                -1,
                tasks.inpaint(clean, torch.from_numpy(arrays["img_mask_np"][0] > 0.5)),
            )
    for seed in chosen.mask_seeds:
        yield "camera", seed, camera(chosen.side, seed)


def camera(side: int, seed: int) -> tasks.Task:
    """Half of the pixels of the bundled image."""
    clean = images.load("camera", size=side).double()
    return tasks.inpaint(clean, tasks.bernoulli_mask((side, side), known=0.5, seed=seed))


def units(
    chosen: Preset,
    found: dict[str, StationaryKernel],
    stored: set[tuple[str, ...]],
    device: torch.device,
) -> Iterator[Unit]:
    """Yield all posteriors, but for fitted ones that are stored: fits are dear."""
    for image, seed, problem in problems(chosen):
        task = problem.to(device=device)
        for name, kernel in ORDINARY.items():
            if (image, str(task.shape[1]), str(seed), name) in stored:
                continue
            scales = gp.fit_hyperparameters(task, kernel, method=chosen.evidence)
            process = scales.process
            relative = scales.noise_sigma / process.kernel.outputscale**0.5
            yield Unit(image, seed, name, process, task, scales.noise_sigma, relative)
            if name == "RBF, fitted":
                yield published(image, seed, task, process.mean)
        for name, kernel in found.items():
            deviation = float(kernel.variances.mean().sqrt())
            for relative in chosen.relative_noise:
                process = gp.GaussianProcess(kernel)
                yield Unit(image, seed, name, process, task, relative * deviation, relative)
    if chosen.large:
        task = camera(chosen.large, 0).to(device=device)
        yield published("camera", 0, task, float(task.measurement[task.measured].mean()))
        kernel = extended(found["infinite width, stationary"], chosen.large)
        sigma = 3e-2 * float(kernel.variances.mean().sqrt())
        process = gp.GaussianProcess(kernel)
        yield Unit("camera", 0, "infinite width, stationary", process, task, sigma, 3e-2)


def published(image: str, seed: int, task: tasks.Task, mean: float) -> Unit:
    """Take the literature's scales; its constant mean isn't stated, so one is given."""
    process = gp.GaussianProcess(PUBLISHED, mean)
    relative = PUBLISHED_SIGMA / PUBLISHED.outputscale**0.5
    return Unit(image, seed, "RBF, published scales", process, task, PUBLISHED_SIGMA, relative)


def extended(kernel: StationaryKernel, side: int) -> StationaryKernel:
    """Put a kernel on a larger torus: beyond its own half-side it is constant.

    Two scales of 3x3 layers correlate no pixels that are further apart than some 20.
    """
    reach = kernel.size[0] // 2
    far = float(kernel.covariance[reach, reach])
    table = torch.full((2 * side, 2 * side), far, dtype=torch.float64)
    take = torch.arange(-reach, reach)
    table[take[:, None], take] = kernel.covariance[take[:, None], take]
    return StationaryKernel.from_lags(table)


def solved(unit: Unit) -> dict[str, str]:
    """Solve and score: as it is, and as published, clipped with the known pixels pasted."""
    start = time.perf_counter()
    posterior = unit.process.posterior(unit.task, unit.sigma, tolerance=1e-7, max_iterations=4000)
    mean = posterior.mean
    seconds = time.perf_counter() - start
    pasted = torch.where(unit.task.measured, unit.task.measurement, mean.clamp(0, 1))
    solution = posterior.solution
    values = (
        *unit.key,
        f"{float(unit.task.psnr(mean, 'whole')):.3f}",
        f"{float(unit.task.psnr(pasted, 'whole')):.3f}",
        posterior.solver,
        str(solution.iterations if solution else 0),
        f"{float(solution.error.max()) if solution else 0:.1e}",
        f"{seconds:.2f}",
    )
    return dict(zip(FIELDS, values, strict=True))


def draw(
    chosen: Preset, found: dict[str, StationaryKernel], device: torch.device, path: Path
) -> None:
    """Draw both means, and how sure the network's process is."""
    task = camera(chosen.side, chosen.mask_seeds[0]).to(device=device)
    scales = gp.fit_hyperparameters(task, gp.rbf(1.0), method=chosen.evidence)
    kernel = found["infinite width, period 4"]
    sigma = 3e-2 * float(kernel.variances.mean().sqrt())
    posteriors: dict[str, xr.Dataset] = {
        "RBF, fitted": scales.process.posterior(task, scales.noise_sigma).dataset(draws=2),
        "infinite-width network": gp.GaussianProcess(kernel)
        .posterior(task, sigma, tolerance=1e-5)
        .dataset(draws=chosen.draws),
    }
    save_figure(plot_posteriors(task.to(device="cpu"), posteriors), path)


if __name__ == "__main__":
    main()
