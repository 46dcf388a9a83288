"""Optimisers and schedules of one's own, each a function and a registration."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Positive
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.schedules import BUILT_IN, SCHEDULES, learning_rate_factor
from dipkernels.fitting.settings import OPTIMISERS, FitSettings

MakeOptimiser = Callable[[dict[str, Tensor], float], torch.optim.Optimizer]
STEPS = 3  # of the trial


@dataclass(frozen=True)
class OwnOptimiser:
    """What was registered, and what its trial told."""

    make: MakeOptimiser
    learning_rate: float
    mixes: bool  # a run's step depends on the runs beside it
    known_by: list[str]  # what another optimiser of this name wouldn't say or do


@checked
def register_optimiser(name: str, make: MakeOptimiser, *, learning_rate: Positive = 1e-3) -> None:
    """Add an optimiser to those that `dipkernels.fit`, plans, commands and sweeps know.

    Parameters
    ----------
    name : str
        A new name.
    make : callable
        ``make(parameters, learning_rate)`` returns a `torch.optim.Optimizer` of the parameters, a
        dict of tensors by their names in the network. Each has a leading axis over runs, of one
        entry where a single fit is made.
    learning_rate : float
        Where none is given.

    Raises
    ------
    InvalidInputError
        If the name is taken, or the optimiser fails in a trial: it must be torch's, move its
        parameters and step without a closure.

    Notes
    -----
    It's tried on a few numbers: three steps of two runs together and apart. If they differ, as of
    an optimiser that scales by the norm of a tensor, several runs are refused later, and are to
    be fitted one by one. A schedule multiplies the learning rate of each group of parameters.

    Examples
    --------
    >>> import dipkernels
    >>> from dipkernels import networks, tasks
    >>> register_optimiser(
    ...     "nadam", lambda parameters, rate: torch.optim.NAdam(parameters.values(), lr=rate)
    ... )
    >>> prior = networks.create("deep-decoder", image_size=8, channels=1, width=4, upsamplings=1)
    >>> task = tasks.denoise(torch.full((1, 8, 8), 0.5))
    >>> dipkernels.fit(prior, task, optimiser="nadam", iterations=2).learning_rate
    0.001
    """
    if name in OPTIMISERS:
        raise InvalidInputError(f"there is an optimiser '{name}' already: choose another name")
    together, said = _trial(name, make, learning_rate, [0, 1])
    apart = torch.cat([_trial(name, make, learning_rate, [run])[0] for run in (0, 1)])
    # float64 of a few numbers: an order of sums moves it by 1e-15
    depends = not torch.allclose(together, apart, rtol=1e-9, atol=1e-12)
    known_by = [*said, *(f"{float(value):.10g}" for value in apart[0])]
    OPTIMISERS[name] = OwnOptimiser(make, learning_rate, depends, known_by)


@checked
def register_schedule(name: str, factor: Callable[[int, int], float]) -> None:
    """Add a schedule of the learning rate to those that `dipkernels.fit` knows.

    Parameters
    ----------
    name : str
        A new name.
    factor : callable
        ``factor(i, n)`` returns the factor of the learning rate in the step after iteration ``i``,
        from 0, of ``n``: finite and not negative.

    Raises
    ------
    InvalidInputError
        If the name is taken, or the factors of ten iterations aren't such.

    Examples
    --------
    >>> register_schedule("linear", lambda i, n: 1 - i / n)
    >>> [learning_rate_factor("linear", i, 4) for i in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    """
    if name in SCHEDULES:
        raise InvalidInputError(f"there is a schedule '{name}' already: choose another name")
    SCHEDULES[name] = factor
    try:
        check_schedule(name, 10)
    except InvalidInputError:
        del SCHEDULES[name]
        raise


def check_schedule(name: str, iterations: int) -> None:
    """Check the factors of a schedule of one's own."""
    if name in BUILT_IN:
        return
    for i in range(iterations):
        try:
            factor = learning_rate_factor(name, i, iterations)
        except Exception as error:
            raise InvalidInputError(
                f"schedule '{name}' failed at iteration {i} of {iterations}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if not 0 <= factor < math.inf:
            raise InvalidInputError(
                f"schedule '{name}' gives {factor} at iteration {i} of {iterations}: expected a "
                "finite factor that isn't negative"
            )


def mixes(settings: FitSettings) -> bool:
    """Say whether a run's step depends on the runs beside it."""
    own = OPTIMISERS[settings.optimiser]
    return own is not None and own.mixes


def check_own(settings: FitSettings, runs: int) -> None:
    """Check that an optimiser and a schedule of one's own can do what is asked."""
    if runs > 1 and mixes(settings):
        raise InvalidInputError(
            f"a step of '{settings.optimiser}' depends on all runs that are fitted together, got "
            f"{runs}: call fit for each task and seed"
        )
    check_schedule(settings.schedule, settings.iterations)


def describe_own(settings: FitSettings) -> dict[str, list[str]]:
    """Tell optimisers and schedules of one name apart, for the identity of a checkpoint."""
    found, n = {}, settings.iterations
    if (own := OPTIMISERS[settings.optimiser]) is not None:
        found["steps of the optimiser"] = own.known_by
    if settings.schedule not in BUILT_IN:
        factors = (learning_rate_factor(settings.schedule, i, n) for i in (0, n // 2, n - 1))
        found["factors of the schedule"] = [f"{factor:.4g}" for factor in factors]
    return found


# Where some steps lead, in double precision, (runs, numbers); and what the optimiser is.
def _trial(
    name: str, make: MakeOptimiser, learning_rate: float, runs: list[int]
) -> tuple[Tensor, list[str]]:
    shapes = {"weight": (3, 4), "bias": (3,)}
    start = {
        key: torch.stack(
            [torch.linspace(1, 2 + run, math.prod(shape), dtype=torch.float64) for run in runs]
        ).reshape(len(runs), *shape)
        for key, shape in shapes.items()
    }
    leaves = {key: value.clone().requires_grad_() for key, value in start.items()}
    try:
        stepper = make(leaves, learning_rate)
        if not isinstance(stepper, torch.optim.Optimizer):
            raise TypeError(f"it must be a torch.optim.Optimizer, got {type(stepper).__name__}")
        if any("lr" not in group for group in stepper.param_groups):
            raise TypeError("its groups must have 'lr', which schedules multiply")
        said = [type(stepper).__name__, *map(_options, stepper.param_groups)]
        for _ in range(STEPS):
            stepper.zero_grad()
            loss = torch.stack([(leaf**2 + leaf**4).sum() for leaf in leaves.values()]).sum()
            loss.backward()
            stepper.step()
    except Exception as error:
        raise InvalidInputError(
            f"optimiser '{name}' can't take a step: {type(error).__name__}: {error}; make must "
            "return an optimiser of torch from a dict of tensors and a rate, which steps without "
            "a closure"
        ) from error
    ends = torch.cat([leaf.detach().flatten(1) for leaf in leaves.values()], dim=1)
    if torch.equal(ends, torch.cat([value.flatten(1) for value in start.values()], dim=1)):
        raise InvalidInputError(f"optimiser '{name}' leaves its parameters where they are")
    return ends, said


def _options(group: dict[str, Any]) -> str:
    simple = (bool, int, float, str, tuple)
    return ", ".join(f"{k}={v}" for k, v in sorted(group.items()) if isinstance(v, simple))
