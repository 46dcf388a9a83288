"""What a comparison will take, measured on a few steps of each network before it starts."""

import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dipkernels.compare.settings import Effort, Settings
from dipkernels.fitting import fit
from dipkernels.memory import DEFAULT_BUDGET, activation_bytes, parameter_bytes, resident_bytes
from dipkernels.networks import ImagePrior
from dipkernels.tasks import Task

# In training steps, by operations 4/3: a backward and a tangent pass against forward and backward.
PRODUCT_STEPS = 1.3
RESPONSE_PRODUCTS = 23
# Tracing a network to linearise it takes a time of its own, per module.
SECONDS_PER_MODULE = 0.03
TIMED_STEPS = 3


@dataclass(frozen=True)
class PriorPlan:
    """What one prior will take.

    Attributes
    ----------
    parameters : int
        Trainable.
    effort : Effort
        Iterations and products.
    products : int
        With the kernel, in all.
    seconds : float
        Estimated.
    bytes : int
        Of memory at its peak, beyond what the process has already; estimated.
    """

    parameters: int
    effort: Effort
    products: int
    seconds: float
    bytes: int


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


def plan_comparison(priors: Mapping[str, ImagePrior], task: Task, settings: Settings) -> Plan:
    """Time a few training steps of every network and extrapolate.

    Parameters
    ----------
    priors : mapping of str to ImagePrior
        What is compared.
    task : Task
        What is fitted.
    settings : Settings
        What to run.

    Returns
    -------
    Plan
        Estimates from the machine as it is now; each prior costs a few steps.
    """
    return Plan(
        {name: _plan_prior(prior, task, settings.effort(name)) for name, prior in priors.items()}
    )


def _plan_prior(prior: ImagePrior, task: Task, effort: Effort) -> PriorPlan:
    step = _step_seconds(prior, task)
    parameters = prior.init(0)
    own, pass_bytes = parameter_bytes(parameters), activation_bytes(prior, parameters)
    products = effort.steps + 2 * effort.probes * effort.probe_steps + RESPONSE_PRODUCTS
    seconds = step * (effort.adam + effort.descent + PRODUCT_STEPS * products)
    seconds += SECONDS_PER_MODULE * prior.module_count
    # A fit holds five copies of the parameters; the kernel its own, and blocks within a budget.
    fitting = 5 * own + 2 * pass_bytes
    kernel = 4 * own + 3 * pass_bytes + min(DEFAULT_BUDGET, 8 * (own + 3 * pass_bytes))
    vectors = 16 * torch.Size(task.shape).numel() * products
    memory = max(fitting, kernel + vectors)
    return PriorPlan(prior.parameter_count, effort, products, seconds, memory)


def _step_seconds(prior: ImagePrior, task: Task) -> float:
    # The median: the first steps are slower, and the machine may have other things to do.
    moments: list[float] = []

    def note(*_: object) -> None:
        if prior.device.type == "cuda":
            torch.cuda.synchronize(prior.device)
        moments.append(time.perf_counter())

    fit(prior, task, iterations=TIMED_STEPS, callback=note)
    return statistics.median(b - a for a, b in itertools.pairwise(moments))
