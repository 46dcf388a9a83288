"""The stage of a fit: curves and images, to the end or until a rule stops it."""

from typing import Any

import xarray as xr

from dipkernels import fitting, networks
from dipkernels.base.options import takes
from dipkernels.fitting.preparation import check_runs
from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.prior import ImagePrior
from dipkernels.stages.stage import Stage, Value
from dipkernels.stages.subject import Subject
from dipkernels.stopping import make_rule
from dipkernels.tasks import Task

# Some settings mean nothing without another.
_COMPANIONS: dict[str, dict[str, Any]] = {
    "momentum": {"optimiser": "sgd"},
    "total_variation": {"total_variation_weight": 1.0},
}


@takes(FitSettings)
def _fit(subject: Subject, *, stop: str | None = None, **settings: Any) -> xr.Dataset:
    return fitting.fit(
        subject.prior,
        subject.task,
        seed=subject.seed if subject.seeds is None else subject.seeds,
        stop=stop,
        checkpoint=subject.checkpoint,
        progress=subject.progress,
        **settings,
    )


def _row(result: xr.Dataset) -> dict[str, Value]:
    last = result.isel(iteration=-1)
    values: dict[str, Value] = {
        "parameters": int(result.parameters),
        "ended": str(result.status),
        "iterations": result.sizes["iteration"] - 1,
        "final_psnr_noisy": float(last.psnr_noisy),
    }
    chosen = int(result.chosen) if "chosen" in result else None
    if "psnr_clean" in result:
        scored = result[["psnr_clean", "psnr_average_clean"]].sel(region=result.score_region)
        values |= {
            "peak_psnr": float(result.peak_psnr),
            "peak_iteration": int(result.peak_iteration),
            "final_psnr": float(scored.psnr_clean[-1]),
            "average_peak_psnr": float(scored.psnr_average_clean.max()),
        }
        if chosen is not None and chosen >= 0:
            values["chosen_psnr"] = float(scored.psnr_clean[chosen])
    if chosen is not None:
        values |= {"chosen": chosen, "stopped": int(result.stopped)}
    return values


def _check(prior: ImagePrior, task: Task, options: dict[str, Any]) -> None:
    settings = {key: value for key, value in options.items() if key != "stop"}
    check_runs(prior, [task], [0], FitSettings(**settings))
    if options["stop"] is None or task.guide is not None:
        return
    # A rule says what it lacks when it is asked: a fit of the smallest network asks it.
    channels, *size = task.shape
    small = networks.create("deep-decoder", image_size=tuple(size), channels=channels, width=1)
    unit = task if task.data_range == 1.0 else task.in_range(1.0)
    fitting.fit(small, unit, iterations=1, learning_rate=1e-6, stop=options["stop"])


def _check_value(option: str, value: Any) -> None:
    if option != "stop":
        FitSettings(**{option: value, **_COMPANIONS.get(option, {})})
    elif value is not None:
        make_rule(value)


STAGE = Stage("fit", _fit, row=_row, check=_check, check_value=_check_value)
