"""What a comparison will take, measured on a few steps of each network before it starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from dipkernels import planning
from dipkernels.compare.run import STEPS
from dipkernels.compare.settings import Effort, Settings
from dipkernels.networks import ImagePrior
from dipkernels.priors.memory import resident_bytes
from dipkernels.tasks import Task


@dataclass(frozen=True)
class PriorPlan:
    """What one prior will take."""

    effort: Effort
    needs: planning.Plan

    @property
    def parameters(self) -> int:
        """Trainable."""
        return self.needs.parameters

    @property
    def products(self) -> int:
        """With the kernel, in all."""
        return self.needs.products

    @property
    def seconds(self) -> float:
        """Estimated; NaN if nothing was timed."""
        # Gradient descent fits one of the runs that Adam fits together.
        step = self.needs.step_seconds / self.needs.runs
        return self.needs.seconds + self.effort.descent * step

    @property
    def bytes(self) -> int:
        """Of memory at its peak, beyond what the process has already; estimated."""
        return self.needs.bytes


@dataclass(frozen=True)
class Plan:
    """What a comparison will take.

    Attributes
    ----------
    priors : mapping of str to PriorPlan
        By name.
    """

    priors: Mapping[str, PriorPlan]

    @property
    def seconds(self) -> float:
        """In all."""
        return sum(plan.seconds for plan in self.priors.values())

    @property
    def bytes(self) -> int:
        """Of the process at its peak: the priors run one after another."""
        return resident_bytes() + max(plan.bytes for plan in self.priors.values())

    def require(self) -> "Plan":
        """Refuse what can't fit.

        Returns
        -------
        Plan
            Itself, if all priors fit.

        Raises
        ------
        MemoryLimitError
            If one doesn't, with the reason and what to do.
        """
        for plan in self.priors.values():
            plan.needs.require()
        return self


def plan_comparison(
    priors: Mapping[str, ImagePrior], task: Task, settings: Settings, *, timed: bool = True
) -> Plan:
    """Find what every network takes: memory by a rehearsal, time by a few training steps.

    Parameters
    ----------
    priors : mapping of str to ImagePrior
        What is compared.
    task : Task
        What is fitted.
    settings : Settings
        What to run.
    timed : bool
        Whether to time steps, of those that fit.

    Returns
    -------
    Plan
        Estimates from the machine as it is now; see `dipkernels.plan` for what each prior costs.
    """
    return Plan(
        {name: _plan_prior(prior, task, settings, name, timed) for name, prior in priors.items()}
    )


def _plan_prior(
    prior: ImagePrior, task: Task, settings: Settings, name: str, timed: bool
) -> PriorPlan:
    effort = settings.effort(name)
    needs = planning.plan(
        prior,
        task,
        iterations=effort.adam,
        seeds=settings.seeds,
        products=sum(step.products(effort) for step in STEPS),
        columns=effort.probes,
        checkpoint=True,
        timed=timed,
    )
    return PriorPlan(effort, needs)
