"""The samplers by name, and one step of each.

Parameters are dicts of tensors with a leading axis over chains; chains share nothing. The gradient
is that of the potential U over the whole measurement: one image is one datum, there are no
mini-batches, and what the literature calls *stochastic gradient* Langevin dynamics has no
stochastic gradient here. It is the unadjusted Langevin algorithm. The density that a finite step
leaves unchanged differs from the target by a term of the order of the step; for a Gaussian target
of precision H and a plain step e its covariance is ``T H^-1 (1 - e H / 2)^-1``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    from dipkernels.priors.prior import Parameters
else:  # a command lists the samplers without torch
    Parameters = dict

SMOOTHING = 0.99  # of the mean squares of gradients, as Li et al. have it
DAMPING = 1e-5  # likewise
STEP_SHARE = 0.1  # of the limit of stability, 2 / L: variances at most 1 / 0.9 times too large
# A step with momentum is stable up to 4 / L, and variances are 1 / (1 - share / 2) times too large.
MOMENTUM_SHARE = 0.9


@dataclass
class StepState:
    """What a sampler is told at a step, and what it keeps until the next."""

    size: float
    temperature: float
    iteration: int
    burn_in: int
    friction: float
    memory: Parameters = field(default_factory=dict)


Step = Callable[[Parameters, Parameters, Parameters, StepState], Parameters]


@dataclass(frozen=True)
class Sampler:
    """A step, what it is in words, and what it needs."""

    step: Step
    words: str
    needs_step: bool = False
    takes_friction: bool = False
    share: float = STEP_SHARE  # of the limit of stability of a plain step, of the chosen one


def _sgld(w: Parameters, gradients: Parameters, noise: Parameters, now: StepState) -> Parameters:
    """Take a step of Langevin dynamics, ``w - e g + sqrt(2 e T) noise``.

    Welling & Teh 2011, whose step is 2e, with the gradient of all data. On a Gaussian target it is
    stable while ``e < 2 / L``, L being the largest eigenvalue of the precision.
    """  # noqa: DOC201
    size = math.sqrt(2 * now.size * now.temperature)
    return {k: each - now.size * gradients[k] + size * noise[k] for k, each in w.items()}


def _psgld(w: Parameters, gradients: Parameters, noise: Parameters, now: StepState) -> Parameters:
    """Take a step in the metric of RMSprop, ``G = 1 / (1e-5 + sqrt(v))``, v the mean squares.

    ``w - e G g + sqrt(2 e T G) noise``. Li et al. 2016 let v move all the time and then need the
    term ``Gamma = sum over j of d G_ij / d w_j``, which they drop for its cost. Here v follows the
    gradients during burn-in and stays as it is afterwards: G is constant, Gamma is 0 and the target
    is left unchanged up to the term of the order of the step.
    """  # noqa: DOC201
    if now.iteration == 0:
        now.memory = {key: g.square() for key, g in gradients.items()}
    elif now.iteration <= now.burn_in:
        now.memory = {
            key: SMOOTHING * v + (1 - SMOOTHING) * gradients[key].square()
            for key, v in now.memory.items()
        }
    following = {}
    for key, each in w.items():
        metric = 1 / (DAMPING + now.memory[key].sqrt())
        size = math.sqrt(2 * now.size * now.temperature) * metric.sqrt()
        following[key] = each - now.size * metric * gradients[key] + size * noise[key]
    return following


def _sghmc(w: Parameters, gradients: Parameters, noise: Parameters, now: StepState) -> Parameters:
    """Take a step with momentum: ``v' = (1 - a) v - e g + sqrt(2 a e T) noise``, ``w' = w + v'``.

    The step e is the square of that of Hamiltonian dynamics of mass 1, the friction a is 1 less the
    momentum of an optimiser. Chen et al. 2014, eq. 15, without their estimate of the gradient's
    noise: there is none.
    """  # noqa: DOC201
    before = now.memory or {key: each.new_zeros(each.shape) for key, each in w.items()}
    size = math.sqrt(2 * now.friction * now.size * now.temperature)
    now.memory = {
        k: (1 - now.friction) * v - now.size * gradients[k] + size * noise[k]
        for k, v in before.items()
    }
    return {k: each + now.memory[k] for k, each in w.items()}


SAMPLERS: dict[str, Sampler] = {
    "sgld": Sampler(
        _sgld,
        "Langevin dynamics along the whole gradient, unadjusted: it samples the target up to a "
        "term of the order of the step.",
    ),
    "psgld": Sampler(
        _psgld,
        "Langevin dynamics in a diagonal metric that moves during burn-in only.",
        needs_step=True,
    ),
    "sghmc": Sampler(
        _sghmc,
        "Langevin dynamics with a momentum, unadjusted: it samples the target up to a term of the "
        "order of the step.",
        takes_friction=True,
        share=MOMENTUM_SHARE,
    ),
}


@checked
def register_sampler(
    name: str,
    step: Step,
    *,
    words: str = "A sampler of your own.",
    needs_step: bool = False,
) -> None:
    """Add a sampler to those that `sample`, ``dipkernels posterior`` and sweeps know.

    Parameters
    ----------
    name : str
        A new name.
    step : callable
        ``step(parameters, gradients, noise, now)`` returns the next parameters. All are dicts of
        tensors ``(chains, ...)``: where the chains are, the gradient of the potential there,
        standard normal draws. Of ``now`` it reads ``size`` (of the step), ``temperature``,
        ``iteration`` (from 0) and ``burn_in``; it may keep tensors by name in ``now.memory``,
        which is empty at first and is saved with the chains.
    words : str
        What a run says of it.
    needs_step : bool
        Whether the step must be given, as `WeightPosterior.stable_step` is none for it.

    Raises
    ------
    InvalidInputError
        If the name is taken.
    """
    if name in SAMPLERS:
        raise InvalidInputError(f"there is a sampler '{name}' already: choose another name")
    SAMPLERS[name] = Sampler(step, words, needs_step)
