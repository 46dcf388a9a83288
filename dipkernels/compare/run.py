"""Run the stages of every prior, each stored as soon as it is done."""

import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
import xarray as xr

from dipkernels.base.progress import Progress
from dipkernels.compare.settings import Settings
from dipkernels.fitting import fit, peak
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior, create
from dipkernels.stages.efforts import Effort
from dipkernels.stages.kernel import measure_kernel
from dipkernels.stages.prediction import predict
from dipkernels.stages.subject import probe_spaces
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

Stages = dict[str, xr.Dataset]
STAGES = ("fit_adam", "kernel", "prediction", "fit_gradient_descent")


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
    task = task.to(device=prior.device, dtype=prior.dtype)
    adam = folder.stage(
        f"{name}/fit_adam",
        lambda: fit(
            prior,
            task,
            iterations=effort.adam,
            learning_rate=effort.learning_rate,
            seed=settings.fit_seeds,
            checkpoint=folder.checkpoint(f"{name}/fit_adam"),
            progress=progress,
        ),
    )
    kernel, prediction = _theory_stages(
        name, prior, task, folder, effort, settings.seed, progress=progress
    )
    descent = folder.stage(
        f"{name}/fit_gradient_descent",
        lambda: fit(
            prior,
            task,
            optimiser="gradient-descent",
            iterations=effort.descent,
            learning_rate=float(kernel.learning_rate),
            seed=settings.seed,
            checkpoint=folder.checkpoint(f"{name}/fit_gradient_descent"),
            progress=progress,
        ),
    )
    return dict(zip(STAGES, (adam, kernel, prediction, descent), strict=True))


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


def _theory_stages(
    name: str,
    prior: ImagePrior,
    task: Task,
    folder: RunFolder,
    effort: Effort,
    seed: int,
    *,
    progress: bool,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Measure the kernel and predict from it; one linearisation serves both."""
    stored = folder.stored(f"{name}/kernel"), folder.stored(f"{name}/prediction")
    if stored[0] is not None and stored[1] is not None:
        return stored[0], stored[1]
    start = time.perf_counter()
    with Progress(1, f"{name}: linearising", enabled=progress) as bar:
        ntk = NTK(prior, prior.init(seed))
        bar.advance()
    spaces = probe_spaces(ntk, effort.probes, effort.probe_steps, seed=seed, progress=progress)

    def timed(compute: Callable[[], xr.Dataset]) -> Callable[[], xr.Dataset]:
        def run() -> xr.Dataset:
            nonlocal start
            result = compute()
            result.attrs["seconds"] = time.perf_counter() - start
            start = time.perf_counter()
            return result

        return run

    kernel = folder.stage(
        f"{name}/kernel",
        timed(lambda: measure_kernel(ntk, spaces, seed=seed, progress=progress)),
    )
    rate = float(kernel.learning_rate)
    prediction = folder.stage(
        f"{name}/prediction",
        timed(lambda: predict(ntk, task, spaces, effort, rate, seed=seed, progress=progress)),
    )
    return kernel, prediction


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
