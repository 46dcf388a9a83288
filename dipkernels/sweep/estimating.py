"""How long a sweep may take, from a few timed steps of each network."""

import math
from dataclasses import dataclass

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.planning import plan as plan_fit
from dipkernels.specs.record import canonical
from dipkernels.sweep.plan import Sweep

RATE = "learning_rate"


@dataclass(frozen=True)
class SweepCost:
    """What a sweep may take."""

    seconds: float
    fits: int
    others: int
    bytes: int


@checked
def estimate(plan: Sweep, *, device: str = "cpu", progress: bool = False) -> SweepCost:
    """Time a few steps of each kind of fit.

    Parameters
    ----------
    plan : Sweep
        From `load`.
    device : str
        That would compute.
    progress : bool
        Show a bar, on a terminal or in a notebook.

    Returns
    -------
    SweepCost
        As if no rule ended a fit.

    Notes
    -----
    Costs what `dipkernels.plan` does for each kind: some seconds. Fits that differ in seed, image
    or numbers of iterations are of one kind.
    """
    kinds: dict[str, list[int]] = {}
    for index, run in enumerate(plan.runs):
        if run.configuration["measure"]["name"] == "fit":
            kinds.setdefault(_kind(run.configuration), []).append(index)
    seconds, size = 0.0, 0
    with Progress(len(kinds), "timing", enabled=progress) as bar:
        for indices in kinds.values():
            run = plan.runs[indices[0]]
            settings = {
                key: value
                for key, value in run.configuration["measure"].items()
                if key not in ("name", "iterations")
            }
            prior, task = run.make(device)
            planned = plan_fit(prior, task, iterations=1, **settings)
            for index in indices:
                iterations = plan.runs[index].configuration["measure"]["iterations"]
                step = planned.step_seconds
                rest = planned.seconds - step
                seconds += 0.0 if math.isnan(step) else rest + iterations * step
            size = max(size, planned.bytes)
            bar.advance()
    fits = sum(len(indices) for indices in kinds.values())
    return SweepCost(seconds, fits, len(plan) - fits, size)


def _kind(configuration: dict) -> str:
    measure = {k: v for k, v in configuration["measure"].items() if k not in ("iterations", RATE)}
    prior = {k: v for k, v in configuration["prior"].items() if k != "code_seed"}
    task = {k: v for k, v in configuration["task"].items() if k != "seed"}
    searched = configuration["measure"][RATE] is None
    return canonical([prior, task, configuration["size"], measure, searched])
