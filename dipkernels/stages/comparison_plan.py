"""What a comparison will take, before it is run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dipkernels import planning
from dipkernels.base.checks import checked
from dipkernels.priors.memory import resident_bytes
from dipkernels.priors.prior import ImagePrior
from dipkernels.stages.comparison import STEPS, ComparisonSettings
from dipkernels.tasks import Task
from dipkernels.theory.expansion import require_linear

__all__ = ["plan_comparison"]


@dataclass(frozen=True)
class ComparisonPlan:
    """What a comparison will take, by prior; the priors run one after another."""

    priors: Mapping[str, planning.Plan]

    @property
    def seconds(self) -> float:
        """In all; NaN if nothing was timed."""
        return sum(plan.seconds for plan in self.priors.values())

    @property
    def bytes(self) -> int:
        """Of the process at its peak."""
        return resident_bytes() + max(plan.bytes for plan in self.priors.values())

    def require(self) -> "ComparisonPlan":
        """Refuse what can't fit, with the reason and what to do."""
        for plan in self.priors.values():
            plan.require()
        return self


@checked
def plan_comparison(
    priors: Mapping[str, ImagePrior],
    task: Task,
    settings: ComparisonSettings,
    *,
    timed: bool = True,
) -> ComparisonPlan:
    """Find what every network takes: memory by a rehearsal, time by a few training steps.

    Parameters
    ----------
    priors, task, settings
        As of `compare`.
    timed : bool
        Whether to time steps, of those that fit.

    Returns
    -------
    ComparisonPlan
        ``seconds`` and ``bytes`` in all, and of each of its ``priors`` what `dipkernels.plan` says;
        estimates from the machine as it is now. Its ``require()`` refuses what can't fit.
    """
    require_linear(task)
    found = {}
    for name, prior in priors.items():
        effort = settings.effort(name)
        needs = planning.plan(
            prior,
            task,
            iterations=effort.adam,
            seeds=settings.seeds,
            matvecs=sum(step.matvecs(effort) for step in STEPS),
            columns=effort.probes,
            checkpoint=True,
            timed=timed,
        )
        # Gradient descent fits one of the runs that Adam fits together.
        descent = effort.descent * needs.step_seconds / needs.runs
        found[name] = replace(needs, seconds=needs.seconds + descent)
    return ComparisonPlan(found)
