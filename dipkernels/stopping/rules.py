"""What a stopping rule is, and the table of rules by name.

A rule looks at one trace: the scalars of one run over ``iteration``, as `dipkernels.fit` records
them. It is pure NumPy, and causal: whether it has stopped by iteration i depends on the entries up
to i alone, so that the panel after a fit and a fit that stops say the same.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count
from dipkernels.errors import InvalidInputError, UnknownNameError


class NotApplicableError(InvalidInputError):
    """A rule lacks an ingredient in this trace; the text says which, and how to get it."""


class TooShortError(NotApplicableError):
    """A rule can't say anything yet, because the trace is too short."""


@checked(nan=True)
@dataclass(frozen=True)
class Decision:
    """What a rule says of one trace.

    Attributes
    ----------
    chosen : int
        Iteration whose output is returned, from 0.
    stopped : int, optional
        Iteration at which a run that watches the rule would have stopped; None if it would have
        gone on to the end of the trace.
    value : float
        The rule's own score at the chosen iteration, in its own unit.
    """

    chosen: int
    stopped: int | None = None
    value: float = float("nan")


@checked
class Rule(ABC):
    """A stopping rule: derive from it, give it a name, and write `decide`.

    Attributes
    ----------
    name : str
        In tables.
    needs_truth : bool
        Whether it looks at the clean image, which makes it a measure and no rule to be used.
    monitor : str, optional
        Name of the monitor that a fit must run for it, see `dipkernels.stopping.make_monitor`.

    Examples
    --------
    >>> class HalfLoss(Rule):
    ...     name = "half-loss"
    ...
    ...     def decide(self, trace):
    ...         loss = trace["loss"].values
    ...         low = np.flatnonzero(loss < loss[0] / 2)
    ...         if len(low) == 0:
    ...             return Decision(chosen=len(loss) - 1)
    ...         return Decision(chosen=int(low[0]), stopped=int(low[0]))
    >>> trace = xr.Dataset({"loss": ("iteration", [1.0, 0.8, 0.4, 0.3])})
    >>> HalfLoss().detect(trace)
    2
    """

    name: str
    needs_truth: bool = False
    monitor: str | None = None

    @abstractmethod
    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge one trace.

        Parameters
        ----------
        trace : xarray.Dataset
            Scalars over ``iteration``, every iteration from 0, of a single run.

        Returns
        -------
        Decision
            Made as if the trace had ended at ``stopped``.

        Raises
        ------
        NotApplicableError
            If the trace lacks what the rule needs.
        """

    def detect(self, trace: xr.Dataset) -> int | None:
        """Say whether a run that has got so far should have stopped.

        Parameters
        ----------
        trace : xarray.Dataset
            The rows so far.

        Returns
        -------
        int or None
            The iteration at which it fired; None if it hasn't yet. Longer traces give the same.

        Raises
        ------
        NotApplicableError
            If the trace lacks what the rule needs, however long it gets.
        """
        try:
            return self.decide(trace).stopped
        except TooShortError:
            return None


@checked
class PatientRule(Rule):
    """A rule that gives up after so many iterations without a better score."""

    def __init__(self, patience: Count = 1000) -> None:
        self.patience = patience


@checked
class FunctionRule(Rule):
    """A function of a trace as a rule.

    Parameters
    ----------
    function : callable
        Takes a trace, returns a `Decision` or the chosen iteration; may raise
        `NotApplicableError`. Its name, with hyphens, names the rule.
    needs_truth : bool
        Whether it looks at the clean image.
    """

    def __init__(
        self, function: Callable[[xr.Dataset], Decision | int], needs_truth: bool = False
    ) -> None:
        self.name = getattr(function, "__name__", type(function).__name__).replace("_", "-")
        self.needs_truth = needs_truth
        self._function = function

    def decide(self, trace: xr.Dataset) -> Decision:
        """Judge one trace by the function."""
        answer = self._function(trace)
        if isinstance(answer, Decision):
            return answer
        return Decision(chosen=int(answer), stopped=int(answer))


RuleLike = Rule | str | Callable[[xr.Dataset], Decision | int]

_FACTORIES: dict[str, Callable[[], Rule]] = {}


@checked
def register_rule(name: str, factory: Callable[[], Rule]) -> None:
    """Add a rule to those that `stopping_panel` judges by default and a fit can stop by.

    Parameters
    ----------
    name : str
        A new name.
    factory : callable
        Makes the rule with its default settings.

    Raises
    ------
    InvalidInputError
        If the name is taken.
    """
    if name in _FACTORIES:
        raise InvalidInputError(f"there is a stopping rule '{name}' already: choose another name")
    _FACTORIES[name] = factory


def rule_names() -> list[str]:
    """List the rules in the order of registration."""
    return list(_FACTORIES)


@checked
def make_rule(rule: RuleLike) -> Rule:
    """Make a rule of whatever names one.

    Parameters
    ----------
    rule : Rule, str or callable
        A rule, a registered name, or a function of a trace (see `FunctionRule`).

    Returns
    -------
    Rule
        Ready to judge traces.

    Raises
    ------
    UnknownNameError
        If no rule has that name.
    InvalidInputError
        If it is a class of rules.
    """
    if isinstance(rule, Rule):
        return rule
    if isinstance(rule, type):
        raise InvalidInputError(
            f"a rule must be made before it is used, got the class: pass {rule.__name__}(...)"
        )
    if not isinstance(rule, str):
        return FunctionRule(rule)
    if rule not in _FACTORIES:
        raise UnknownNameError(f"no stopping rule '{rule}'; there are: {', '.join(_FACTORIES)}")
    return _FACTORIES[rule]()


def values(trace: xr.Dataset, name: str, hint: str = "") -> np.ndarray:
    """Take one scalar of a trace."""
    if name not in trace:
        raise NotApplicableError(f"the trace has no '{name}'" + (f": {hint}" if hint else ""))
    if trace[name].dims != ("iteration",):
        raise InvalidInputError(
            f"'{name}' must be over iteration alone, it is over {trace[name].dims}: select one "
            "run, or use stopping_panel"
        )
    return np.asarray(trace[name].values, dtype=np.float64)


def clean_psnr(
    trace: xr.Dataset, *, average: bool = False, region: str | None = None
) -> np.ndarray:
    """Take the PSNR to the clean image, in dB."""
    name = "psnr_average_clean" if average else "psnr_clean"
    if name not in trace:
        raise NotApplicableError(f"the trace has no '{name}': the clean image isn't known")
    if "region" in trace[name].dims:
        trace = trace[[name]].sel(region=region or trace.attrs.get("score_region", "whole"))
    return values(trace, name)


def noise_level(trace: xr.Dataset) -> float:
    """Take the standard deviation of the noise."""
    levels = np.atleast_1d(trace.attrs.get("noise_sigma", []))
    if len(levels) == 0:
        raise NotApplicableError("the trace has no 'noise_sigma': the noise level isn't known")
    if (levels == levels[0]).all():
        level = float(levels[0])
    else:
        image = trace.coords.get("image", xr.DataArray("?")).values
        if image.shape != () or image.dtype.kind not in "iu" or not 0 <= image < len(levels):
            raise NotApplicableError(
                "noise_sigma differs between the images, and the coordinate 'image' doesn't say "
                "which of them this is: keep it as fit made it"
            )
        level = float(levels[int(image)])
    if not level > 0:
        raise NotApplicableError("noise_sigma is 0: there is no noise level to stop at")
    return level


def patient_minimum(scores: np.ndarray, patience: int, start: int = 0) -> Decision:
    """Find the lowest score, given up once it hasn't improved for ``patience`` iterations."""
    counted = np.where(np.isnan(scores), np.inf, scores)[start:]
    lowest_before = np.minimum.accumulate(np.concatenate([[np.inf], counted[:-1]]))
    position = np.arange(len(counted))
    improved = counted < lowest_before
    last = np.maximum.accumulate(np.where(improved, position, 0))
    late = np.flatnonzero(position - last >= patience)
    end = int(late[0]) if len(late) else len(counted) - 1
    chosen = start + int(last[end])
    return Decision(chosen, start + end if len(late) else None, float(scores[chosen]))


def squared_error(psnr: np.ndarray) -> np.ndarray:
    """Turn PSNR, which is what traces hold, into a mean squared error; the peak value is 1."""
    return np.asarray(10.0 ** (-psnr / 10))


def fixed_at(trace: xr.Dataset, iteration: int, value: float = float("nan")) -> Decision:
    """Stop at an iteration that was known before, if the trace gets that far."""
    last = trace.sizes["iteration"] - 1
    return Decision(last) if last < iteration else Decision(iteration, iteration, value)


def first_at(reached: np.ndarray) -> Decision:
    """Stop at the first iteration where a condition holds, and return that output."""
    where = np.flatnonzero(reached)
    if len(where) == 0:
        return Decision(chosen=len(reached) - 1)
    return Decision(chosen=int(where[0]), stopped=int(where[0]))
