"""Posteriors side by side, at the budget of a deep ensemble: quality, calibration, time.

Run as ``python benchmarks/posterior.py [--size 32] [--iterations 300] [--seeds 4]``. The bundled
image `camera` with noise of 25/255, and `conv-decoder` with 16 channels. The budget is that of five
fits; fits, iterates and chains are as many steps of training in all. The linearised posterior takes
the products with the tangent kernel that solving it to 1 % takes. Prints for every method, as means
over seeds (of the noise and of the method): PSNR of the mean of its draws; coverage of the truth by
the mean +- 1.645 deviations, 90 % were it Gaussian (five draws can't give quantiles of 90 %); root
mean square of error over predicted deviation, 1 if the size is right; negative log-likelihood of
the truth in nats a pixel; and how long it took, relative to the ensemble in the same run.

``--chains ITERATIONS`` compares samplers instead, on what `dipkernels posterior` draws by default:
the default, and what it was before (a tenth of the limit of stability at the starts; friction 0.1
where there is a momentum). For each: gradients, those for an effective draw (bulk; of the slowest
1 % of pixels, the PSNR, the total variation and the misfit), that number over the present one's,
R-hat of pixels and summaries, coverage.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from dipkernels import fit, images, networks, sampling, tasks
from dipkernels.base.seeds import derive
from dipkernels.fitting import load_parameters
from dipkernels.networks import ImagePrior, Parameters
from dipkernels.tasks import Task

FITS = 5
RATE = 0.01
NINETY = 1.645  # deviations of a Gaussian


def fitted(prior: ImagePrior, task: Task, seeds: list[int], iterations: int) -> Parameters:
    """Parameters of fits, stacked."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fit"
        fit(prior, task, seed=seeds, iterations=iterations, learning_rate=RATE, checkpoint=path)
        found = load_parameters(path)
    if len(seeds) == 1:
        found = {key: value[None] for key, value in found.items()}
    return {key: value.to(prior.device) for key, value in found.items()}


def step_before(posterior: sampling.WeightPosterior, start: Parameters) -> float:
    """Give the default step of before: a tenth of the smallest limit of the starts."""
    count = len(next(iter(start.values())))
    each = ({key: value[i] for key, value in start.items()} for i in range(count))
    return min(posterior.stable_step(parameters) for parameters in each)


def from_fits(prior: ImagePrior, task: Task, method: str, iterations: int, seed: int) -> xr.Dataset:
    """Chains for half of the steps, from fits of the other half; a momentum lasts ten steps."""
    seeds = [derive(f"start-{i}", seed) for i in range(FITS)]
    start = fitted(prior, task, seeds, iterations // 2)
    posterior = sampling.WeightPosterior(prior, task)
    return sampling.sample(
        posterior, method=method, chains=FITS, seed=seed, start=start,
        iterations=iterations // 2, burn_in=iterations // 4, thin=max(1, iterations // 100),
        step_size=step_before(posterior, start),
        friction=0.1 if method == "sghmc" else None,
    )  # fmt: skip


def linear(prior: ImagePrior, task: Task, iterations: int, seed: int) -> xr.Dataset:
    """Linearise the network at one fit."""
    parameters = {k: v[0] for k, v in fitted(prior, task, [seed], iterations).items()}
    found = sampling.linearised(
        sampling.WeightPosterior(prior, task), parameters, draws=40, seed=seed, tolerance=1e-2,
        max_iterations=5000,
    )  # fmt: skip
    print(f"linearised: solved to {found.error:.0%} of its norm", file=sys.stderr)
    return found


def methods(
    prior: ImagePrior, task: Task, iterations: int, seed: int
) -> dict[str, Callable[[], xr.Dataset]]:
    """List what is compared."""
    ensemble = {"members": FITS, "seed": seed, "iterations": iterations, "learning_rate": RATE}
    chains = {"chains": FITS, "seed": seed, "learning_rate": RATE}
    thin = {"iterations": iterations, "burn_in": iterations // 2, "thin": 4}
    return {
        "deep ensemble": lambda: sampling.deep_ensemble(prior, task, **ensemble),
        "of running averages": lambda: sampling.deep_ensemble(
            prior, task, picture="average", **ensemble
        ),
        "averaged": lambda: sampling.averaged(prior, task, **chains, **thin),
        "MC dropout 0.05": lambda: sampling.mc_dropout(
            prior, task, rate=0.05, iterations=iterations, draws=40, **chains
        ),
        "MC dropout 0.2": lambda: sampling.mc_dropout(
            prior, task, rate=0.2, iterations=iterations, draws=40, **chains
        ),
        "GP-DIP": lambda: sampling.gp_dip(prior, task, **chains, **thin),
        "SGLD": lambda: from_fits(prior, task, "sgld", iterations, seed),
        "SGHMC": lambda: from_fits(prior, task, "sghmc", iterations, seed),
        "linearised": lambda: linear(prior, task, iterations, seed),
    }


def scores(result: xr.Dataset, task: Task) -> list[float]:
    """PSNR of the mean, coverage, relative errors, likelihood."""
    maps = sampling.uncertainty.maps(result)
    found = sampling.uncertainty.calibration(result, task)["truth"]
    reference = task.to(dtype=torch.float64)
    inside = np.abs(maps["mean"] - result.clean) < NINETY * maps["std"]
    return [
        float(reference.psnr(torch.from_numpy(maps["mean"].values))),
        float(inside.mean()),
        float(found.z_rms),
        float(found.nll),
    ]


SAMPLERS: dict[str, dict[str, object]] = {
    "sgld, before": {"method": "sgld"},
    "sghmc, before": {"method": "sghmc", "friction": 0.1},
    "default": {},
}
SUMMARIES = ("psnr", "total_variation", "misfit")


def compare_samplers(size: int, iterations: int, seed: int) -> None:
    """Print gradients for an effective draw, by sampler, as ratios to the default's."""
    prior = networks.create("conv-decoder", image_size=size, channels=1, width=24, upsamplings=3)
    task = tasks.denoise(images.load("camera", size=size), seed=seed)
    posterior = sampling.WeightPosterior(prior, task)
    fits = fitted(prior, task, [derive(f"start-{i}", seed) for i in range(2)], 100)
    drawn = prior.init_many([derive(f"start-{i}", seed) for i in (2, 3)])
    start = {key: torch.cat([fits[key], value]) for key, value in drawn.items()}
    before = step_before(posterior, start)
    costs: dict[str, np.ndarray] = {}
    for name, options in SAMPLERS.items():
        step = before if options else None
        result = sampling.sample(
            posterior, start=start, iterations=iterations, step_size=step, seed=seed, **options
        )
        found = sampling.diagnose(result, pixels=None)
        kept = 4 * (result.iterations - 1 - result.burn_in)
        chosen = found.sel(summary=list(SUMMARIES))
        draws = [np.nanquantile(found["ess_bulk"], 0.01), *chosen["summary_ess_bulk"].values]
        costs[name] = kept / np.array(draws)
        rhat = [np.nanquantile(found["rhat"], 0.99), *chosen["summary_rhat"].values]
        truth = sampling.uncertainty.calibration(result, task)["truth"]
        print(
            f"{name:16}{4 * iterations:9d} gradients, {result.seconds:6.0f} s; R-hat "
            + " ".join(f"{value:.3f}" for value in rhat)
            + f"; coverage {float(truth.coverage.sel(level=0.9)):.3f}",
            flush=True,
        )
    print("gradients for an effective draw, of " + ", ".join(("pixels", *SUMMARIES)))
    for name, values in costs.items():
        ratios = " ".join(f"{ratio:6.1f}" for ratio in values / costs["default"])
        print(f"{name:16}" + " ".join(f"{value:7.0f}" for value in values) + f"  ratio {ratios}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--iterations", type=int, default=300, help="of each of the five fits")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--chains", type=int, help="iterations of samplers to compare instead")
    given = parser.parse_args()
    if given.chains:
        for seed in range(given.seeds):
            compare_samplers(given.size, given.chains, seed)
        return
    clean = images.load("camera", size=given.size)
    prior = networks.create("conv-decoder", image_size=given.size, channels=1, width=16)
    prior = prior.to(device=given.device)
    print(
        f"{prior} on {prior.device}, {FITS} fits of {given.iterations} iterations, "
        f"{given.seeds} seeds"
    )
    print(f"{'':22}{'PSNR':>8}{'coverage':>10}{'z rms':>8}{'nll':>8}{'time':>8}  PSNR by seed")
    rows: dict[str, list[list[float]]] = {}
    for seed in range(given.seeds):
        task = tasks.denoise(clean, noise_sigma=25 / 255, seed=seed)
        for name, run in methods(prior, task, given.iterations, seed).items():
            start = time.perf_counter()
            result = run()
            seconds = time.perf_counter() - start
            rows.setdefault(name, []).append([*scores(result, task), seconds])
            print(f"seed {seed}, {name}: {seconds:.1f} s", file=sys.stderr, flush=True)
    base = np.mean([row[-1] for row in rows["deep ensemble"]])
    for name, found in rows.items():
        psnr, coverage, z, nll, seconds = np.mean(found, axis=0)
        each = " ".join(f"{row[0]:.2f}" for row in found)
        print(
            f"{name:22}{psnr:8.2f}{coverage:10.2f}{z:8.2f}{nll:8.2f}{seconds / base:8.2f}  {each}"
        )


if __name__ == "__main__":
    main()
