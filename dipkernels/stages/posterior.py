"""The stage of a posterior: chains of Langevin dynamics, and whether they converged."""

from typing import Any

import xarray as xr

from dipkernels import sampling
from dipkernels.base.kinds import Positive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.prior import ImagePrior
from dipkernels.sampling.diagnostics import LEAST_DRAWS, require_arviz
from dipkernels.sampling.settings import ChainSettings
from dipkernels.stages.job import Job
from dipkernels.stages.methods import draw, resolve
from dipkernels.stages.stage import Stage, Value
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task


def _posterior(
    subject: Subject,
    *,
    method: str = "sghmc",
    iterations: int = ChainSettings.iterations,
    burn_in: int | None = None,
    thin: int | None = None,
    step_size: float | None = None,
    chains: int = 4,
    temperature: Positive = 1.0,
) -> xr.Dataset:
    given: dict[str, Any] = {
        **{"iterations": iterations, "burn_in": burn_in, "thin": thin, "step_size": step_size},
        **{"chains": chains, "temperature": temperature, "start": "initialisation"},
    }
    whose = (subject.prior, subject.task, resolve(method, given), subject.seed, subject.progress)
    return draw(Job(method, *whose), subject.checkpoint)


def _row(result: xr.Dataset) -> dict[str, Value]:
    verdict = sampling.verdict(sampling.diagnose(result))
    values: dict[str, Value] = {
        "parameters": int(result.parameters),
        "converged": verdict.converged,
        "reasons": "; ".join(verdict.reasons),
    }
    if "psnr_mean" in result:
        values["mean_psnr"] = float(result.psnr_mean.isel(iteration=-1).mean())
    return values


def _check(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    if not task.noise_sigma > 0:
        raise InvalidInputError(
            "a posterior needs noise in the task: the likelihood is a density only with noise; "
            "give noise_sigma"
        )
    require_arviz()
    settings = {key: value for key, value in options.items() if key != "temperature"}
    # Said now: the verdict comes last, and without it all chains would have run for nothing.
    if (draws := sampling.ChainSettings(**settings).draws) < LEAST_DRAWS:
        raise InvalidInputError(
            f"whether chains converged can't be told from {draws} draws of each: at least "
            f"{LEAST_DRAWS} are needed; give more iterations, or a smaller burn_in or thin"
        )


STAGE = Stage("posterior", _posterior, row=_row, check=_check)
