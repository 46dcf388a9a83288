"""The stage of a score: the peak that the kernel predicts."""

from typing import Any

import xarray as xr

from dipkernels.priors.prior import ImagePrior
from dipkernels.stages.stage import Stage, Value
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task
from dipkernels.theory.scores import check_score, score


def _score(
    subject: Subject, *, method: str = "auto", steps: int | None = None, probes: int | None = None
) -> xr.Dataset:
    return score(
        subject.prior,
        subject.task,
        seed=subject.seed,
        method=method,
        steps=steps,
        probes=probes,
        progress=subject.progress,
    )


def _row(result: xr.Dataset) -> dict[str, Value]:
    one = result.isel(image=0, seed=0)
    return {
        "parameters": int(result.parameters),
        "score": float(one.psnr),
        "score_lower": float(one.psnr_lower),
        "score_upper": float(one.psnr_upper),
        "score_resolved": bool(one.resolved),
        "freedom": float(one.freedom),
        "products": int(one.products),
    }


def _check(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    check_score(prior, [task], [0], **options)


STAGE = Stage("score", _score, row=_row, check=_check)
