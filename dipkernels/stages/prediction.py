"""The stage of the prediction: how flow and gradient descent go, from the kernel alone."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from dipkernels.base.origin import provenance
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.kernels import NTK
from dipkernels.linalg import KrylovSpace, ritz_pairs
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.stages.efforts import Effort
from dipkernels.stages.stage import Stage, Value
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task
from dipkernels.theory import GradientDescent, expand, learning_curve
from dipkernels.theory.scores import check_score

PEAK = ("peak_psnr", "peak_psnr_lower", "peak_psnr_upper", "peak_resolved")


def predict(
    ntk: NTK,
    task: Task,
    spaces: list[KrylovSpace],
    effort: Effort,
    learning_rate: float,
    *,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Predict gradient flow and gradient descent on a task from the kernel alone.

    Parameters
    ----------
    ntk : NTK
        At initialisation.
    task : Task
        On the kernel's device.
    spaces : list of KrylovSpace
        From `probe_spaces`; their eigenvectors serve where every pixel was measured.
    effort : Effort
        Steps, probes and iterations.
    learning_rate : float
        Of gradient descent.
    seed : int
        Of the probes; they are other ones than those of the spectrum.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        `learning_curve` of the flow over ``time``, and that of gradient descent over
        ``iteration`` with names that start with ``descent_``. The attributes are the flow's.
    """
    expansion = expand(
        ntk,
        task,
        steps=effort.steps,
        probe_steps=effort.probe_steps,
        probes=effort.probes,
        seed=seed,
        spaces=spaces if bool(task.measured.all()) else None,
        progress=progress,
    )
    flow = learning_curve(expansion)
    dynamics = GradientDescent.of_fit(learning_rate, effort.descent, ntk.shape[0])
    descent = learning_curve(expansion, dynamics)
    merged = xr.merge(
        [flow, descent.rename({name: f"descent_{name}" for name in descent.data_vars})],
        combine_attrs="drop",
    )
    return merged.assign_attrs(
        **describe_prior(ntk.prior),
        **flow.attrs,
        learning_rate=learning_rate,
        **provenance(ntk.device),
    )


def _prediction(
    subject: Subject,
    *,
    steps: int = 100,
    probe_steps: int = 40,
    probes: int = 2,
    iterations: int = 100,
    learning_rate: float | None = None,
) -> xr.Dataset:
    ntk, spaces = subject.ntk, subject.spaces(probes, probe_steps)
    if learning_rate is None:
        largest = float(ritz_pairs(spaces, 1).values[0])
        learning_rate = stable_learning_rate(ntk, largest_eigenvalue=largest)
    return predict(
        ntk,
        subject.task.to(device=ntk.device, dtype=ntk.dtype),
        spaces,
        Effort(descent=iterations, steps=steps, probe_steps=probe_steps, probes=probes),
        learning_rate,
        seed=subject.seed,
        progress=subject.progress,
    )


def _row(result: xr.Dataset) -> dict[str, Value]:
    row: dict[str, Value] = {"parameters": int(result.parameters)}
    row |= {f"predicted_{key}": float(result.attrs[key]) for key in PEAK}
    curve = result.descent_psnr.sel(region=result.score_region)
    return row | {"predicted_descent_peak_psnr": float(curve.max())}


def _check(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    check_score(prior, [task], [0], method="lanczos", steps=None, probes=None)
    counts = {name: options[name] for name in ("steps", "probe_steps", "probes", "iterations")}
    if min(counts.values()) < 2:
        said = ", ".join(f"{name}={count}" for name, count in counts.items())
        raise InvalidInputError(f"a prediction needs at least 2 of each, got {said}")


def _cost(options: Mapping[str, Any]) -> int:
    return int(options["steps"] + options["probes"] * options["probe_steps"])


STAGE = Stage("prediction", _prediction, row=_row, check=_check, cost=_cost)
