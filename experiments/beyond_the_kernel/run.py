"""What a fit gains by its kernel, by Adam's metric, and by what it learns beyond both."""

import math
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from matplotlib.figure import Figure
from scipy.stats import t as student

from dipkernels import NTK, fit, images, networks, tasks, theory
from dipkernels.fitting import load_adam_metric
from dipkernels.networks import ImagePrior
from dipkernels.plotting import save_figure
from dipkernels.plotting.style import PALETTE, panels
from dipkernels.priors import Parameters
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import iterations_of_fit, step_of_fit

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import Table, each, open_folder, parse, settings

FIELDS = (
    "prior", "image", "seed", "arm", "psnr", "iteration", "rate", "rising", "lower", "upper",
    "seconds",
)  # fmt: skip
KEYS = FIELDS[:3]
PARTS = {  # of a prior's gain: a difference of two arms each
    "kernel": ("flow", "noisy"),
    "Adam's metric": ("adam-flow", "flow"),
    "feature learning": ("adam", "adam-flow"),
}
ANEW = "adam-anew-"  # linearised anew every so many iterations
SUMMARY = ("prior", "part", "decibels", "lower", "upper", "images", "seeds", "rising")


Unit = tuple[str, str, int]  # KEYS


@dataclass(frozen=True)
class Preset:
    """Sizes of one run."""

    size: int
    noise_sigma: float
    priors: tuple[str, ...]
    images: tuple[str, ...]
    whole: int  # images on which all arms run: on the others those of which parts are made
    seeds: int
    iterations: int  # of Adam
    early: int  # iterations after which Adam's metric is taken
    descent: int  # iterations of gradient descent
    rates: tuple[float, ...]  # of Adam, in units of each prior's own
    anew: tuple[int, ...]  # a linearisation serves so many iterations
    steps: int  # products of a prediction, at most


def main(arguments: list[str] | None = None) -> None:
    """Measure all units that the folder doesn't hold yet; summarise and draw."""
    options = parse(__file__, __doc__, arguments)
    chosen = settings(__file__, options.preset, Preset)
    open_folder(__file__, options, chosen)
    table = Table(options.output / "results.csv", FIELDS, KEYS)
    done = table.done()
    for unit in each([u for u in units(chosen) if tuple(map(str, u)) not in done]):
        table.append(measure(unit, chosen, options.device))
    found = pd.read_csv(options.output / "results.csv")
    summarise(found).to_csv(options.output / "summary.csv", index=False, float_format="%.3f")
    save_figure(draw(summarise(found)), options.output / "parts.png")


def units(chosen: Preset) -> Iterator[Unit]:
    """Name all fits, so that every image is whole before the next one begins."""
    for seed in range(chosen.seeds):
        for image in chosen.images:
            for prior in chosen.priors:
                yield prior, image, seed


def measure(unit: Unit, chosen: Preset, device: torch.device) -> Iterator[dict[str, object]]:
    """Make the rows of one prior, image and seed, an arm each."""
    name, image, seed = unit
    task = problem(image, seed, chosen).to(device=device)
    prior = networks.create(name, image_size=chosen.size, channels=1).to(device=device)
    assert task.clean is not None
    start, before = prior.init(seed), time.perf_counter()

    def expanded(metric: Parameters | None = None) -> theory.Expansion:
        ntk = NTK(prior, start, metric=metric)
        return theory.expand(ntk, task, noise="realised", steps=chosen.steps)

    expansion = expanded()

    row = partial(row_of, unit)
    yield row("noisy", time.perf_counter(), psnr=float(task.psnr(task.measurement)))
    yield row("flow", before, **reached(expansion))

    whole = chosen.images.index(image) < chosen.whole
    if whole:
        yield from descents(prior, task, expansion, unit, chosen)
    rates = [factor * (prior.learning_rate or 1e-2) for factor in chosen.rates]
    before = time.perf_counter()
    network = best(prior, task, rates, seed, chosen)
    yield row("adam", before, **network)
    before = time.perf_counter()
    metric = early_metric(prior, task, chosen.early, float(network["rate"]), seed)
    yield row("adam-flow", before, rate=network["rate"], **reached(expanded(metric)))
    if not whole:
        return
    before = time.perf_counter()
    yield row("adam-frozen", before, **best(prior.linearised(start), task, rates, seed, chosen))
    for every in chosen.anew:  # at the network's rate
        before, rates = time.perf_counter(), [network["rate"]]
        found = best(prior, task, rates, seed, chosen, relinearise=every)
        yield row(f"{ANEW}{every}", before, **found)


def descents(
    prior: ImagePrior, task: Task, expansion: theory.Expansion, unit: Unit, chosen: Preset
) -> Iterator[dict[str, object]]:
    """Fit by gradient descent, and see where the frozen network would be at the same moments."""
    before = time.perf_counter()
    descent = fit(
        prior, task, optimiser="gradient-descent", iterations=chosen.descent, seed=unit[2],
        snapshots=0, progress=False,
    )  # fmt: skip
    rate = float(descent.learning_rate)
    yield row_of(unit, "descent", before, rate=rate, **peak(descent))
    before, outputs = time.perf_counter(), task.measurement.numel()
    curve = theory.learning_curve(
        expansion,
        theory.GradientDescent(step_of_fit(rate, outputs), iterations_of_fit(chosen.descent)),
    )
    psnr = curve.psnr.sel(region=task.score_region).values
    at = int(psnr.argmax())
    frozen = {"psnr": float(psnr[at]), "iteration": at, "rising": at == len(psnr) - 1}
    yield row_of(unit, "descent-frozen", before, rate=rate, **frozen)


def row_of(unit: Unit, arm: str, before: float, **numbers: object) -> dict[str, object]:
    """Make a row of the table, with the seconds since a moment."""
    seconds = time.perf_counter() - before
    return dict.fromkeys(FIELDS, "") | dict(zip(KEYS, unit, strict=True)) | {
        "arm": arm, "seconds": seconds, **numbers
    }  # fmt: skip


def early_metric(
    prior: ImagePrior, task: Task, iterations: int, rate: float, seed: int
) -> Parameters:
    """Give the metric in which Adam sees the parameters early in a fit."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fit.ckpt"
        fit(
            prior, task, iterations=iterations, learning_rate=rate, seed=seed, snapshots=0,
            progress=False, checkpoint=file,
        )  # fmt: skip
        return {key: each.to(prior.device) for key, each in load_adam_metric(file).items()}


def reached(expansion: theory.Expansion) -> dict[str, float]:
    """Give the best moment of the frozen network under gradient flow, and its band."""
    found = theory.learning_curve(expansion).attrs
    return {
        "psnr": found["peak_psnr"],
        "lower": found["peak_psnr_lower"],
        "upper": found["peak_psnr_upper"],
    }


def best(
    prior: ImagePrior, task: Task, rates: list[float], seed: int, chosen: Preset, **options: int
) -> dict[str, float]:
    """Fit by Adam with each rate; the highest peak."""
    tried = []
    for rate in rates:
        result = fit(
            prior, task, iterations=chosen.iterations, learning_rate=rate, seed=seed,
            snapshots=0, progress=False, **options,
        )  # fmt: skip
        tried.append({"rate": rate, **peak(result)})
    return max(tried, key=lambda each: each["psnr"])


def problem(image: str, seed: int, chosen: Preset) -> Task:
    """Add a noise of this image and seed."""
    clean = images.load(image, size=chosen.size).mean(dim=0, keepdim=True)
    number = 1000 * chosen.images.index(image) + seed
    return tasks.denoise(clean, noise_sigma=chosen.noise_sigma, seed=number)


def peak(result: xr.Dataset) -> dict[str, float]:
    """Tell the best moment of a fit, and whether it was the last one."""
    at = int(result.peak_iteration)
    last = result.sizes["iteration"] - 1
    return {"psnr": float(result.peak_psnr), "iteration": at, "rising": at == last}


def summarise(found: pd.DataFrame) -> pd.DataFrame:
    """Split the gain of each prior over the noisy image: means over images, of means over seeds.

    Intervals of 95 % are by Student's t over images; one image has none. ``rising`` is the share of
    fits, of either arm of a part, that still rose at their end.
    """
    arms = list(dict.fromkeys(found.arm))
    short = {f"network less {arm}": ("adam", arm) for arm in arms if arm.startswith(ANEW)}
    frozen = {"network less adam-frozen": ("adam", "adam-frozen")}
    rows = []
    wide = found.pivot_table(index=["prior", "image", "seed"], columns="arm", values="psnr")
    for prior in dict.fromkeys(found.prior):
        of = wide.loc[prior]
        for part, (arm, baseline) in {**PARTS, **short, **frozen}.items():
            ends = found[(found.prior == prior) & found.arm.isin((arm, baseline))]
            rising = float((ends.rising.astype(str) == "True").groupby(ends.arm).mean().max())
            gains = (of[arm] - of[baseline]).dropna().groupby("image").mean()
            n, mean = len(gains), float(gains.mean())
            error = float(gains.std(ddof=1) / np.sqrt(n)) if n > 1 else math.nan
            half = float(student.ppf(0.975, n - 1)) * error if n > 1 else math.nan
            seeds = len(of.index.get_level_values("seed").unique())
            rows.append((prior, part, mean, mean - half, mean + half, n, seeds, rising))
    return pd.DataFrame(rows, columns=list(SUMMARY))


def draw(summary: pd.DataFrame) -> Figure:
    """Draw a bar for every prior: what its kernel, Adam's metric and feature learning add."""
    priors = list(dict.fromkeys(summary.prior))
    figure, (axis,) = panels(1, width=6.8, height=0.8 + 0.42 * len(priors))
    offsets = np.linspace(0.25, -0.25, len(PARTS))
    priors.sort(key=lambda prior: float(summary[summary.prior == prior].decibels.iloc[:3].sum()))
    for offset, colour, part in zip(offsets, PALETTE, PARTS, strict=False):
        of = summary[summary.part == part].set_index("prior").loc[priors[::-1]]
        y = np.arange(len(priors))[::-1] + offset
        axis.barh(y, of.decibels, height=0.24, color=colour, label=part)
        axis.errorbar(
            of.decibels, y, xerr=(of.upper - of.decibels).fillna(0), fmt="none", ecolor="0.25", lw=1
        )
    axis.axvline(0, color="0.3", lw=0.8)
    axis.set_yticks(np.arange(len(priors)), priors)
    axis.set_xlabel("dB gained, each arm at its best moment; intervals of 95 % over images")
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


if __name__ == "__main__":
    main()
