"""A blurred photograph, a phantom from few angles: networks, kernels, a process, plain ones."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import skimage.restoration
import skimage.transform
import torch
import xarray as xr
from torch import Tensor

from dipkernels import NTK, fit, gp, images, networks, sampling, tasks
from dipkernels.kernels.observed import Sight
from dipkernels.linalg import conjugate_gradients
from dipkernels.networks import ImagePrior
from dipkernels.plotting import plot_uncertainty, save_figure
from dipkernels.tasks import Task
from dipkernels.theory import GradientFlow, expand, learning_curve, unseen_error

sys.path.insert(0, str(Path(__file__).parents[2]))  # the root, for what experiments share

from experiments.harness import Table, each, open_folder, parse, settings

FIELDS = (
    "problem", "image", "method", "seed", "peak_psnr", "peak_iteration", "end_psnr", "seen",
    "unseen", "lower", "upper", "note", "seconds",
)  # fmt: skip
RATES = {"vit": 1e-3}  # of Adam; others have their own
SURE = ("problem", "image", "method", "rmse", "sharpness", "z_rms", "coverage_90")
MEANS = (
    "problem",
    "method",
    "rows",
    "peak_psnr",
    "of_images",
    "of_seeds",
    "end_psnr",
    "seen_share",
)


@dataclass(frozen=True)
class Preset:
    """Sizes, problems, and what is spent on each method."""

    size: int
    blur: float  # deviation in pixels
    angles: int
    noise: dict[str, float]
    images: dict[str, dict[str, tuple[int, ...]]]  # seeds, of noise and initialisation, of each
    networks: dict[str, dict[str, Any]]
    iterations: dict[str, int]
    steps: int  # of predictions, at most
    threshold: float  # of `unseen_error`
    members: int  # of the ensemble
    draws: int  # of the process
    probes: int  # of its evidence
    products: int  # for each
    penalties: tuple[float, ...]  # of the total variation
    rounds: int


@dataclass
class Found:
    """One image, and what else a row of the table says."""

    image: Tensor | None = None
    peak: tuple[str, str, str] = ("", "", "")
    split: tuple[float, float] | None = None
    band: tuple[str, str] = ("", "")
    note: str = ""


def main(arguments: list[str] | None = None) -> None:
    """Compute the rows that the folder doesn't hold yet; draw the figures, average."""
    options = parse(__file__, __doc__, arguments)
    chosen, output = settings(__file__, options.preset, Preset), options.output
    open_folder(__file__, options, chosen)
    table = Table(output / "results.csv", FIELDS, FIELDS[:4])
    done, scales = table.done(), {}
    for key in each([key for key in units(chosen) if key not in done]):
        problem, name, _, seed = key
        task = measured(chosen, problem, name, int(seed)).to(device=options.device)
        start = time.perf_counter()
        found = solve(chosen, task, key, scales)
        if found.image is not None:
            score = f"{float(task.psnr(found.image)):.2f}"
            found.peak = found.peak if found.peak[0] else (score, "", score)
            found.split = split(task, found.image, chosen.threshold)
        parts = ("", "") if found.split is None else (f"{x:.3e}" for x in found.split)
        seconds = f"{time.perf_counter() - start:.1f}"
        values = (*key, *found.peak, *parts, *found.band, found.note, seconds)
        table.append([dict(zip(FIELDS, values, strict=True))])
    for problem in chosen.images:
        if not (output / f"{problem}.png").exists():
            save_figure(uncertainty(chosen, problem, output, options.device, scales),
                        output / f"{problem}.png")  # fmt: skip
    (output / "summary.csv").unlink(missing_ok=True)
    Table(output / "summary.csv", MEANS, MEANS[:2]).append(averaged(table.rows()))


def units(chosen: Preset) -> Iterator[tuple[str, str, str, str]]:
    """List problem, image, method and seed of every row."""
    methods = ["clean image", "grey", "plain", "total variation", "Matern 3/2"]
    methods += [*chosen.networks, *(f"{name}, predicted" for name in chosen.networks)]
    for problem, images_of in chosen.images.items():
        for name, seeds in images_of.items():
            for seed in seeds:
                yield from ((problem, name, method, str(seed)) for method in methods)


def measured(chosen: Preset, problem: str, name: str, seed: int) -> Task:
    """Simulate a measurement of the phantom, or of a photograph."""
    if name == "phantom":
        drawn = torch.from_numpy(skimage.data.shepp_logan_phantom()).float()[None]
        clean = images.resize(drawn, (chosen.size, chosen.size)).clamp(0, 1)
        operator: tasks.Operator = tasks.Radon(clean.shape, chosen.angles)
    else:
        shown = images.load(name, size=chosen.size)
        clean = shown.mean(dim=0, keepdim=True).clamp(0, 1)
        operator = tasks.Blur(clean.shape, tasks.gaussian_psf(chosen.blur))
    sigma = chosen.noise[problem]
    return tasks.measure(operator, clean, noise_sigma=sigma, seed=seed, name=problem)


def solve(
    chosen: Preset, task: Task, key: tuple[str, str, str, str], scales: dict[Any, Any]
) -> Found:
    """Make the image of a method."""
    assert task.clean is not None
    problem, shown, method, seed = key[0], key[1], key[2], int(key[3])
    if method == "clean image":  # of which the split says how much a measurement leaves open
        return Found(split=split(task, torch.zeros_like(task.clean), chosen.threshold))
    if method == "grey":
        return Found(torch.full_like(task.clean, float(task.clean.mean())))
    if method == "plain":
        return Found(plain(chosen, task, problem))
    if method == "total variation":
        return variation(chosen, task)
    if method == "Matern 3/2":
        return Found(process(chosen, task, problem, shown, scales).mean.float())
    name, _, kind = method.partition(", ")
    prior = network(chosen, name).to(device=task.measurement.device)
    if kind:
        return predicted(chosen, prior, task, seed)
    result = fit(
        prior, task, iterations=chosen.iterations[problem], seed=seed, learning_rate=RATES.get(name)
    )
    curve = result.psnr_clean.sel(region="whole").values
    best = int(curve.argmax())
    peak = (f"{curve[best]:.2f}", str(best), f"{curve[-1]:.2f}")
    return Found(torch.from_numpy(result.best.values).to(task.clean), peak)


def network(chosen: Preset, name: str) -> ImagePrior:
    """Make a network for grey images."""
    return networks.create(name, image_size=chosen.size, channels=1, **chosen.networks[name])


def split(task: Task, image: Tensor, threshold: float) -> tuple[float, float]:
    """Split the mean squared error into what the operator sees of it and what it doesn't."""
    assert task.clean is not None
    sight = Sight(task, task.clean.device)
    error = (image - task.clean).double().flatten()[None]
    floor = (threshold * task.operator.norm()) ** 2
    solution = conjugate_gradients(
        lambda rows: sight.measure(sight.spread(rows)) + floor * rows,
        sight.measure(error), tolerance=1e-8, max_iterations=2000,
    )  # fmt: skip
    seen = sight.spread(solution.x)
    return float((error * seen).mean()), float((error * (error - seen)).mean())


def plain(chosen: Preset, task: Task, problem: str) -> Tensor:
    """Take the blurred photograph itself, or the filtered back-projection of scikit-image."""
    if problem == "blur":
        return task.measurement
    sums = chosen.size * task.measurement[0].T.cpu().double().numpy()
    angles = -np.arange(chosen.angles) * 180 / chosen.angles
    back = skimage.transform.iradon(sums, theta=angles, circle=False, output_size=chosen.size)
    return torch.from_numpy(back)[None].to(task.measurement)


def variation(chosen: Preset, task: Task) -> Found:
    """Minimise half of the squared error plus total variation, by FISTA; an oracle's penalty."""
    step = 1 / task.operator.norm() ** 2
    best = Found(peak=("-inf", "", ""))
    for penalty in chosen.penalties:
        image = ahead = torch.zeros_like(task.adjoint(task.measurement))
        momentum = 1.0
        for _ in range(chosen.rounds):
            moved = ahead - step * task.adjoint(task.forward(ahead) - task.measurement)
            smooth = skimage.restoration.denoise_tv_chambolle(
                moved[0].cpu().numpy(), weight=step * penalty, max_num_iter=30
            )
            before, image = image, torch.from_numpy(smooth)[None].to(moved)
            following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
            ahead = image + (momentum - 1) / following * (image - before)
            momentum = following
        score = float(task.psnr(image))
        if score > float(best.peak[0]):
            best = Found(image, (f"{score:.2f}", "", f"{score:.2f}"), note=f"{penalty:g}")
    return best


def process(
    chosen: Preset, task: Task, problem: str, name: str, scales: dict[Any, Any]
) -> gp.GPPosterior:
    """Condition a Matern process; its scales have the most evidence for the first seed's noise."""
    if (problem, name) not in scales:
        seed = chosen.images[problem][name][0]
        first = measured(chosen, problem, name, seed).to(device=task.measurement.device)
        scales[problem, name] = gp.fit_hyperparameters(
            first, gp.matern(2.0), noise_sigma=chosen.noise[problem], probes=chosen.probes,
            steps=chosen.products,
        ).process  # fmt: skip
    found: gp.GPPosterior = scales[problem, name].posterior(task, tolerance=1e-5)
    return found


def predicted(chosen: Preset, prior: ImagePrior, task: Task, seed: int) -> Found:
    """Predict the peak of gradient flow, and where the error lies there."""
    expansion = expand(NTK(prior, prior.init(seed)), task, steps=chosen.steps)
    curve = learning_curve(expansion)
    values = curve.psnr.sel(region="whole")
    best = expansion.times[int(values.values.argmax())]
    parts = unseen_error(
        expansion, task, GradientFlow(np.array([best])), threshold=chosen.threshold
    )
    low, high = curve.attrs["peak_psnr_lower"], curve.attrs["peak_psnr_upper"]
    return Found(
        peak=(f"{curve.attrs['peak_psnr']:.2f}", "", ""),
        split=(float(parts.seen[0]), float(parts.unseen[0])),
        band=(f"{low:.2f}", f"{high:.2f}"),
        note=f"unresolved {float(parts.unresolved[0]):.1e}",
    )


def uncertainty(
    chosen: Preset, problem: str, output: Path, device: torch.device, scales: dict[Any, Any]
) -> object:
    """Hold deviations of an ensemble and of the process against errors; draw the ensemble's."""
    name, seeds = next(iter(chosen.images[problem].items()))
    task = measured(chosen, problem, name, seeds[0]).to(device=device)
    first = next(iter(chosen.networks))
    made, count = network(chosen, first).to(device=device), chosen.iterations[problem]
    drawn = sampling.deep_ensemble(
        made, task, members=chosen.members, picture="average", iterations=count
    )
    told = process(chosen, task, problem, name, scales).dataset(draws=chosen.draws)
    shape = (1, chosen.draws, *task.shape)
    normal = np.random.default_rng(0).standard_normal(shape)
    draws = told["mean"].values + told["standard_deviation"].values * normal
    given = xr.Dataset({"draws": (drawn["draws"].dims, draws)}, attrs=drawn.attrs)
    rows = []
    for method, result in ((f"{chosen.members} x {first}", drawn), ("Matern 3/2", given)):
        judged = sampling.uncertainty.calibration(result, task, levels=(0.9,))["truth"]
        numbers = [float(judged[field]) for field in SURE[3:6]] + [float(judged["coverage"][0])]
        values = (problem, name, method, *(f"{x:.4f}" for x in numbers))
        rows.append(dict(zip(SURE, values, strict=True)))
    Table(output / "uncertainty.csv", SURE, SURE[:3]).append(rows)
    return plot_uncertainty(task.to(device="cpu"), sampling.uncertainty.maps(drawn, levels=(0.8,)))


def averaged(rows: list[dict[str, str]]) -> Iterator[dict[str, object]]:
    """Average over images and seeds; deviations over images (of means), and over seeds (within)."""
    for problem, method in dict.fromkeys((row["problem"], row["method"]) for row in rows):
        own = [row for row in rows if (row["problem"], row["method"]) == (problem, method)]
        names = list(dict.fromkeys(row["image"] for row in own))
        peaks = [[float(r["peak_psnr"] or "nan") for r in own if r["image"] == n] for n in names]
        ends = [[float(r["end_psnr"] or "nan") for r in own if r["image"] == n] for n in names]
        seen, unseen = (np.array([float(row[k]) for row in own]) for k in ("seen", "unseen"))
        means = [float(np.mean(each)) for each in peaks]
        of_images = float(np.std(means, ddof=1)) if len(names) > 1 else np.nan
        several = [float(np.var(each, ddof=1)) for each in peaks if len(each) > 1]
        of_seeds = float(np.mean(several)) ** 0.5 if several else np.nan
        numbers = (
            float(np.mean(means)),
            of_images,
            of_seeds,
            float(np.mean([np.mean(each) for each in ends])),
        )
        share = f"{float((seen / (seen + unseen)).mean()):.3f}"
        values = (problem, method, str(len(own)), *(f"{x:.2f}" for x in numbers), share)
        yield dict(zip(MEANS, values, strict=True))


if __name__ == "__main__":
    main()
