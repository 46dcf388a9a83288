"""The main job: fit several priors to one image, measure their kernels, and predict the fits.

For each prior: a fit with Adam; the kernel at initialisation (spectral density, leading
eigenpairs, frequency response); the fit that this kernel predicts; and a fit by plain gradient
descent, of which the theory speaks. Each is stored as soon as it is done.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.stats import t as student

from dipkernels.base.checks import checked
from dipkernels.base.origin import digest, provenance
from dipkernels.fitting import peak
from dipkernels.networks import ImagePrior
from dipkernels.specs.prior import named_priors
from dipkernels.stages.predictions import PEAK
from dipkernels.stages.registry import find_stage
from dipkernels.stages.stage import timed
from dipkernels.stages.subject import Subject
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task
from dipkernels.theory.expansion import require_linear

__all__ = [
    "EFFORTS",
    "STAGES",
    "ComparisonSettings",
    "Effort",
    "compare",
    "load_stages",
    "make_priors",
    "summary_row",
]

Stages = dict[str, xr.Dataset]


@checked
@dataclass(frozen=True)
class Effort:
    """How much is spent on one prior.

    Attributes
    ----------
    adam, descent : int
        Iterations of Adam, and of gradient descent.
    steps : int
        Of the prediction at most, of two products each.
    probe_steps : int
        Lanczos steps of each probe of the spectrum.
    learning_rate : float or None
        Of Adam; None is the published one.
    probes : int
        Random probes of the spectrum.
    """

    adam: int = 300
    descent: int = 100
    steps: int = 300
    probe_steps: int = 40
    learning_rate: float | None = None
    probes: int = 2


# About a minute each at 64x64 on two cores; all but the deep decoder pass their peak in that. The
# transformer report fits ViTs with a rate of 1e-4 for 5000 to 10000 iterations; here it is ten
# times the rate for a tenth of the iterations or less. All other rates are the published ones.
EFFORTS = {
    "skip": Effort(adam=250, descent=15, probe_steps=15),
    "deep-decoder": Effort(adam=500, descent=75, probe_steps=30),
    "vit": Effort(adam=280, descent=15, probe_steps=20, learning_rate=1e-3),
    "conv3-vit": Effort(adam=380, descent=15, probe_steps=20, learning_rate=1e-3),
    "vit-conv3": Effort(adam=650, descent=15, probe_steps=20, learning_rate=1e-3),
    "mixer": Effort(adam=300, descent=15, probe_steps=20, learning_rate=1e-3),
    "swin": Effort(adam=85, descent=12, probe_steps=10),
}


@checked
@dataclass(frozen=True)
class ComparisonSettings:
    """All that the results of a comparison depend on.

    Attributes
    ----------
    image : str
        Name of the image, for titles.
    iterations : int or None
        Of Adam and of gradient descent, each; None takes those of `EFFORTS`.
    seed : int
        Of code, noise, initialisation and probes, each from a stream of its own.
    device : str
        That computes.
    seeds : int
        Initialisations that are fitted with Adam, from ``seed`` on; the rest is of the first.
    efforts : dict of str to Effort
        By prior, in place of those of `EFFORTS`.
    """

    image: str = "astronaut"
    iterations: int | None = None
    seed: int = 0
    device: str = "cpu"
    seeds: int = 1
    efforts: dict[str, Effort] = field(default_factory=dict)

    @property
    def fit_seeds(self) -> int | range:
        """Of the initialisations that are fitted with Adam."""
        return self.seed if self.seeds == 1 else range(self.seed, self.seed + self.seeds)

    def effort(self, name: str) -> Effort:
        """Look up what is spent on a prior.

        Parameters
        ----------
        name : str
            Of the prior.

        Returns
        -------
        Effort
            With ``iterations`` in it, if given.
        """
        effort = self.efforts.get(name, EFFORTS.get(name, Effort()))
        if self.iterations is None:
            return effort
        return replace(effort, adam=self.iterations, descent=self.iterations)

    def record(self, task: Task, priors: Mapping[str, ImagePrior]) -> dict[str, object]:
        """Describe the run, to tell whether a folder holds the same one.

        Parameters
        ----------
        task : Task
            What is fitted.
        priors : mapping of str to ImagePrior
            What is compared.

        Returns
        -------
        dict
            Fit for JSON; images, codes and the shapes of parameters are in it by their hash.
        """
        pixels, operator = (task.clean, task.measurement, task.guide), task.operator
        known = {} if operator.identity == operator.name else {"operator": operator.identity}
        return {
            "command": "compare",
            **known,
            "image": self.image,
            "shape": list(task.shape),
            "task": task.name,
            "noise_sigma": task.noise_sigma,
            "pixels_sha256": digest(*(x for x in pixels if x is not None)),
            "priors": {
                name: asdict(self.effort(name))
                | {"network_sha256": digest(*prior.code_tensors, str(prior.parameter_shapes))}
                for name, prior in priors.items()
            },
            "seed": self.seed,
            "seeds": self.seeds,
            "device": self.device,
            "version": provenance("cpu")["version_dipkernels"],
        }


@dataclass(frozen=True)
class Step:
    """A stage of a comparison: the name of its result, and which effort each option takes."""

    key: str
    stage: str
    efforts: dict[str, str]
    fixed: dict[str, Any] = field(default_factory=dict)
    every_seed: bool = False
    paced: bool = False  # at the learning rate that the kernel's largest eigenvalue allows

    def options(self, effort: Effort) -> dict[str, Any]:
        """Options of the stage, but for a pace."""
        return self.fixed | {name: getattr(effort, key) for name, key in self.efforts.items()}

    def matvecs(self, effort: Effort) -> int:
        """Products with the kernel."""
        cost = find_stage(self.stage).cost
        return 0 if cost is None else cost(self.options(effort))


ADAM = {"iterations": "adam", "learning_rate": "learning_rate"}
PROBES = {"steps": "probe_steps", "probes": "probes"}
DESCENT = {"iterations": "descent"}
STEPS = (
    Step("fit_adam", "fit", ADAM, every_seed=True),
    Step("kernel", "kernel", PROBES),
    Step("prediction", "prediction", {"steps": "steps"} | DESCENT, paced=True),
    Step("fit_gradient_descent", "fit", DESCENT, {"optimiser": "gradient-descent"}, paced=True),
)
STAGES = tuple(step.key for step in STEPS)


@checked
def make_priors(
    names: Iterable[str], task: Task, *, seed: int = 0, device: str | torch.device = "cpu"
) -> dict[str, ImagePrior]:
    """Make priors that fit a task by their names.

    Parameters
    ----------
    names : iterable of str
        Registered, or ``"FILE.py:FACTORY"`` and ``"MODULE:FACTORY"``, which are run; said twice
        counts once.
    task : Task
        Gives size and channels.
    seed : int
        Of the code.
    device : str
        Where to.

    Returns
    -------
    dict of str to ImagePrior
        By name, or by a short label if it's the user's own, on the device.
    """
    return named_priors(names, task.shape, seed=seed, device=device)


@checked
def compare(
    priors: Mapping[str, ImagePrior],
    task: Task,
    folder: RunFolder,
    settings: ComparisonSettings,
    *,
    progress: bool = False,
    report: Callable[[dict[str, object]], None] | None = None,
) -> list[dict[str, object]]:
    """Fit priors to one image, measure their kernels, and predict the fits.

    Parameters
    ----------
    priors : mapping of str to ImagePrior
        What is compared, by the names of the table; see `make_priors`.
    task : Task
        What is fitted.
    folder : RunFolder
        Where results go, ``NAME/STAGE.nc``; what it already holds is not run again.
    settings : ComparisonSettings
        How much to run.
    progress : bool
        Show bars.
    report : callable, optional
        Called with each prior's row of the table, when it is done.

    Returns
    -------
    list of dict
        The table; see `summary_row`.

    Notes
    -----
    Ctrl-C during a fit raises `FitInterrupted` once that fit has been stored; during other stages
    it is a plain KeyboardInterrupt. What was done is on disk in both cases. A task that kernels
    don't predict is an InvalidInputError before anything runs.
    """
    require_linear(task)
    rows = []
    for name, prior in priors.items():
        subject = Subject(prior, task, seed=settings.seed, progress=progress)
        rows.append(summary_row(name, _run_stages(name, subject, folder, settings)))
        if report is not None:
            report(rows[-1])
    return rows


def _run_stages(
    name: str, shared: Subject, folder: RunFolder, settings: ComparisonSettings
) -> Stages:
    done: Stages = {}
    for step in STEPS:
        key, options, subject = f"{name}/{step.key}", step.options(settings.effort(name)), shared
        if step.paced:
            options |= _pace(shared.task, done)
        if step.stage == "fit":
            seeds = settings.fit_seeds if step.every_seed else None
            subject = shared.for_fit(folder.checkpoint(key), seeds)
        compute = partial(find_stage(step.stage).run, subject, **options)
        done[step.key] = folder.stage(key, partial(timed, compute))
    return done


# That of the kernel, which masks leave stable; under another operator, what the prediction finds.
def _pace(task: Task, done: Stages) -> dict[str, float]:
    if task.operator.mask is not None:
        return {"learning_rate": float(done["kernel"].learning_rate)}
    before = done.get("prediction")
    return {} if before is None else {"learning_rate": float(before.learning_rate)}


@checked
def load_stages(folder: RunFolder, name: str) -> Stages:
    """Load what a run folder holds of one prior.

    Parameters
    ----------
    folder : RunFolder
        Of a comparison.
    name : str
        Of the prior.

    Returns
    -------
    dict of str to Dataset
        By the names of `STAGES`, as far as they are done.
    """
    found = {stage: folder.stored(f"{name}/{stage}") for stage in STAGES}
    return {stage: dataset for stage, dataset in found.items() if dataset is not None}


@checked
def summary_row(name: str, stages: Stages) -> dict[str, object]:
    """Condense the stages of one prior, as far as they are done, to a row of the table.

    Parameters
    ----------
    name : str
        Of the prior.
    stages : dict of str to Dataset
        From `load_stages`.

    Returns
    -------
    dict
        Numbers by column; missing where a stage is.
    """
    adam, kernel, prediction, descent = (stages.get(stage) for stage in STAGES)
    row: dict[str, object] = {"prior": name}
    if adam is not None:
        last = adam.isel(iteration=-1)
        gap = last.psnr_clean.sel(region=adam.score_region) - last.psnr_noisy
        highest = peak(adam)
        row |= {
            "parameters": int(adam.parameters),
            "peak_psnr": highest.psnr,
            "peak_psnr_spread": highest.spread,
            "seeds": highest.seeds,
            "peak_iteration": round(highest.iteration),
            "iterations": adam.sizes["iteration"] - 1,
            "final_gap": float(gap.mean()),
            "status": _status(adam),
            "diverged": int((np.atleast_1d(np.asarray(adam.status)) == "diverged").sum()),
        }
        if highest.seeds > 1:
            row["final_gap_spread"] = float(gap.std("seed", ddof=1))
    if prediction is not None:
        row |= {f"predicted_{key}": float(prediction.attrs.get(key, 0)) for key in PEAK}
        rate = 2 * prediction.learning_rate / prediction.outputs
        row["predicted_peak_iteration"] = prediction.peak_time / rate
        if row["predicted_peak_resolved"] or row["predicted_peak_extrapolated"]:
            row |= _beyond(row)
    if kernel is not None:
        row["half_power_frequency"] = float(kernel.half_power_frequency)
    if descent is not None:
        row["descent_peak_psnr"] = float(descent.peak_psnr)
        row["descent_iterations"] = descent.sizes["iteration"] - 1
        if prediction is not None:
            curve = prediction.descent_psnr.sel(region=descent.score_region)
            row["predicted_descent_peak_psnr"] = float(curve.max())
    row["seconds"] = sum(float(dataset.attrs["seconds"]) for dataset in stages.values())
    return row


# How far Adam's peak lies above that of the kernel, with an interval of 95 %: Student's t over
# seeds, widened by the band of the prediction. One seed has no spread to widen it.
def _beyond(row: Mapping[str, Any]) -> dict[str, object]:
    if "peak_psnr" not in row:
        return {}
    seeds, spread = row["seeds"], 0.0
    if seeds > 1:
        spread = float(student.ppf(0.975, seeds - 1) * row["peak_psnr_spread"] / np.sqrt(seeds))
    return {
        "beyond_kernel": row["peak_psnr"] - row["predicted_peak_psnr"],
        "beyond_kernel_lower": row["peak_psnr"] - spread - row["predicted_peak_psnr_upper"],
        "beyond_kernel_upper": row["peak_psnr"] + spread - row["predicted_peak_psnr_lower"],
    }


# The worst of all seeds.
def _status(fit: xr.Dataset) -> str:
    words = [str(word) for word in np.atleast_1d(np.asarray(fit.status))]
    return max(words, key=("finished", "interrupted", "diverged").index)
