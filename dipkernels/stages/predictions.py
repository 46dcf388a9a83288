"""The stages that predict a fit from the kernel alone: its curves, and its peak as a score."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.base.origin import provenance
from dipkernels.fitting import stable_learning_rate
from dipkernels.kernels import ObservedKernel
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.stages.stage import Several, Stage, Value
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task
from dipkernels.theory import GradientDescent, expand, learning_curve
from dipkernels.theory.growing import STEPS, TOLERANCE, check_effort
from dipkernels.theory.scores import check_score, score

PEAK = ("peak_psnr", "peak_psnr_lower", "peak_psnr_upper", "peak_resolved", "peak_extrapolated")


def _prediction(
    subject: Subject,
    *,
    steps: Several = STEPS,
    tolerance: float = TOLERANCE,
    probes: int | None = None,
    iterations: Several = 100,
    learning_rate: float | None = None,
) -> xr.Dataset:
    """Predict gradient flow over time, and gradient descent in variables ``descent_...``."""
    ntk = subject.ntk
    task = subject.task.to(device=ntk.device, dtype=ntk.dtype)
    expansion = expand(
        ntk,
        task,
        steps=steps,
        tolerance=tolerance,
        probes=probes,
        seed=subject.seed,
        progress=subject.progress,
    )
    if learning_rate is None:
        measured = ObservedKernel(ntk, task)
        learning_rate = stable_learning_rate(measured, largest_eigenvalue=expansion.largest)
    flow = learning_curve(expansion)
    dynamics = GradientDescent.of_fit(learning_rate, iterations, task.measurement.numel())
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


def _row(result: xr.Dataset) -> dict[str, Value]:
    row: dict[str, Value] = {"parameters": int(result.parameters)}
    row |= {f"predicted_{key}": float(result.attrs.get(key, 0)) for key in PEAK}
    curve = result.descent_psnr.sel(region=result.score_region)
    return row | {"predicted_descent_peak_psnr": float(curve.max())}


def _check(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    check_score(prior, [task], [0], method="lanczos", steps=None, probes=None)
    steps, tolerance, probes = (options[name] for name in ("steps", "tolerance", "probes"))
    check_effort("expected", steps, tolerance, probes, None, int(np.prod(prior.shape)))


def _cost(options: Mapping[str, Any]) -> int:
    return int(options["steps"] * (1 + (options.get("probes") or 1)))  # at most


def _score(
    subject: Subject, *, method: str = "auto", steps: int | None = None, probes: int | None = None
) -> xr.Dataset:
    return score(
        subject.prior,
        subject.task,
        seed=subject.seed if subject.seeds is None else subject.seeds,
        method=method,
        steps=steps,
        probes=probes,
        progress=subject.progress,
    )


def _score_row(result: xr.Dataset) -> dict[str, Value]:
    row: dict[str, Value] = {
        "parameters": int(result.parameters),
        "score": float(result.psnr.mean()),
        "score_lower": float(result.psnr_lower.mean()),
        "score_upper": float(result.psnr_upper.mean()),
        "score_resolved": bool(result.resolved.all()),
        "degrees_of_freedom": float(result.degrees_of_freedom.mean()),
        "matvecs": int(result.matvecs.sum()),
    }
    if result.sizes["seed"] == 1:
        return row
    return row | {"score_spread": float(result.score_spread), "seeds": result.sizes["seed"]}


def _check_score(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    check_score(prior, [task], [0], **options)


PREDICTION = Stage("prediction", _prediction, row=_row, check=_check, cost=_cost)
SCORE = Stage("score", _score, row=_score_row, check=_check_score)
