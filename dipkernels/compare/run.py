"""Run the stages of every prior, each stored as soon as it is done."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr

from dipkernels.compare.settings import Effort, Settings
from dipkernels.fitting import peak
from dipkernels.networks import ImagePrior, create
from dipkernels.stages.registry import find_stage
from dipkernels.stages.stage import timed
from dipkernels.stages.subject import Subject
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

Stages = dict[str, xr.Dataset]


@dataclass(frozen=True)
class Step:
    """A stage of a comparison, the name of its result, and its share of the effort."""

    key: str
    stage: str
    options: Callable[[Effort], dict[str, Any]]
    every_seed: bool = False
    paced: bool = False  # at the learning rate that the kernel's largest eigenvalue allows

    def products(self, effort: Effort) -> int:
        """Products with the kernel."""
        cost = find_stage(self.stage).cost
        return 0 if cost is None else cost(self.options(effort))


def _adam(effort: Effort) -> dict[str, Any]:
    return {"iterations": effort.adam, "learning_rate": effort.learning_rate}


def _kernel(effort: Effort) -> dict[str, Any]:
    return {"steps": effort.probe_steps, "probes": effort.probes}


def _prediction(effort: Effort) -> dict[str, Any]:
    krylov = {name: getattr(effort, name) for name in ("steps", "probe_steps", "probes")}
    return krylov | {"iterations": effort.descent}


def _descent(effort: Effort) -> dict[str, Any]:
    return {"optimiser": "gradient-descent", "iterations": effort.descent}


STEPS = (
    Step("fit_adam", "fit", _adam, every_seed=True),
    Step("kernel", "kernel", _kernel),
    Step("prediction", "prediction", _prediction, paced=True),
    Step("fit_gradient_descent", "fit", _descent, paced=True),
)
STAGES = tuple(step.key for step in STEPS)


def make_priors(
    names: Iterable[str], task: Task, *, seed: int = 0, device: str | torch.device = "cpu"
) -> dict[str, ImagePrior]:
    """Make registered priors that fit a task.

    Parameters
    ----------
    names : iterable of str
        Registered; said twice counts once.
    task : Task
        Gives size and channels.
    seed : int
        Of the code.
    device : str
        Where to.

    Returns
    -------
    dict of str to ImagePrior
        By name, on the device.
    """
    channels, *spatial = task.shape
    size = tuple(spatial)
    return {
        name: create(name, image_size=size, channels=channels, code_seed=seed).to(device=device)
        for name in names
    }


def compare(
    priors: Mapping[str, ImagePrior],
    task: Task,
    folder: RunFolder,
    settings: Settings,
    *,
    progress: bool = False,
    report: Callable[[dict[str, object]], None] | None = None,
) -> list[dict[str, object]]:
    """Run the comparison; stages that the folder already holds are not run again.

    Parameters
    ----------
    priors : mapping of str to ImagePrior
        What is compared, by the names of the table; see `make_priors`.
    task : Task
        What is fitted.
    folder : RunFolder
        Where results go, ``NAME/STAGE.nc``.
    settings : Settings
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
    it is a plain KeyboardInterrupt. What was done is on disk in both cases.
    """
    rows = []
    for name, prior in priors.items():
        stages = run_prior(name, prior, task, folder, settings, progress=progress)
        row = summary_row(name, stages)
        rows.append(row)
        if report is not None:
            report(row)
    return rows


def run_prior(
    name: str,
    prior: ImagePrior,
    task: Task,
    folder: RunFolder,
    settings: Settings,
    *,
    progress: bool = False,
) -> Stages:
    """Run the four stages of one prior.

    Parameters
    ----------
    name : str
        Under which results are stored.
    prior : ImagePrior
        On the device that computes.
    task : Task
        What is fitted.
    folder : RunFolder
        Where results go.
    settings : Settings
        How much to run.
    progress : bool
        Show bars.

    Returns
    -------
    dict of str to Dataset
        By the names of `STAGES`.
    """
    effort = settings.effort(name)
    shared = Subject(prior, task, seed=settings.seed, progress=progress)
    done: Stages = {}
    for step in STEPS:
        key, options, subject = f"{name}/{step.key}", step.options(effort), shared
        if step.paced:
            options |= {"learning_rate": float(done["kernel"].learning_rate)}
        if step.stage == "fit":
            shared.forget()  # a fit needs the memory, and no kernel
            subject = Subject(
                prior,
                task,
                seed=settings.seed,
                seeds=settings.fit_seeds if step.every_seed else None,
                checkpoint=folder.checkpoint(key),
                progress=progress,
            )
        compute = partial(find_stage(step.stage).run, subject, **options)
        done[step.key] = folder.stage(key, partial(timed, compute))
    return done


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


def summary_row(name: str, stages: Stages) -> dict[str, object]:
    """Condense the stages of one prior, as far as they are done, to a row of the table.

    Parameters
    ----------
    name : str
        Of the prior.
    stages : dict of str to Dataset
        From `run_prior` or `load_stages`.

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
        }
        if highest.seeds > 1:
            row["final_gap_spread"] = float(gap.std("seed", ddof=1))
    if prediction is not None:
        keys = ("peak_psnr", "peak_psnr_lower", "peak_psnr_upper", "peak_resolved")
        row |= {f"predicted_{key}": float(prediction.attrs[key]) for key in keys}
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


# The worst of all seeds.
def _status(fit: xr.Dataset) -> str:
    words = [str(word) for word in np.atleast_1d(np.asarray(fit.status))]
    return max(words, key=("finished", "interrupted", "diverged").index)
