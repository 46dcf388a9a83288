"""All stages by name; a user's own are registered here, too."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from dipkernels.base.checks import checked
from dipkernels.base.words import suggest
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.stages import covariances, fits, kernel, posterior, predictions
from dipkernels.stages.stage import Check, Stage
from dipkernels.stages.subject import Subject

# A further stage of this package is a file and an entry here.
_BUILT_IN = (
    fits.STAGE,
    predictions.SCORE,
    kernel.STAGE,
    posterior.STAGE,
    predictions.PREDICTION,
    covariances.STAGE,
)
_STAGES: dict[str, Stage] = {each.name: each for each in _BUILT_IN}


@checked
def register_measurement(
    name: str,
    function: Callable[..., Any],
    *,
    check: Check | None = None,
) -> None:
    """Add a measurement to those that a plan may ask for.

    Workers must know it, too: register it in a module that the plan names under ``imports``.

    Parameters
    ----------
    name : str
        A new name.
    function : callable
        ``function(prior, task, *, seed, ...)``; further keyword-only parameters, with annotations
        and defaults, are its options. Returns a `Measured`, a mapping of plain values, or a
        dataset (then its numbers without dimensions are the row).
    check : callable, optional
        ``check(prior, task, options)`` raises what is wrong, before anything runs.

    Raises
    ------
    InvalidInputError
        If the name is taken by another function, or the function doesn't take these arguments.

    Examples
    --------
    >>> def brightness(prior, task, *, seed: int, scale: float = 1.0):
    ...     return {"brightness": scale * float(prior.image(prior.init(seed)).mean())}
    >>> register_measurement("brightness", brightness)
    >>> "brightness" in measurement_names()
    True
    """

    @functools.wraps(function)
    def of_subject(subject: Subject, /, **options: Any) -> Any:
        return function(subject.prior, subject.task, seed=subject.seed, **options)

    known, made = _STAGES.get(name), Stage(name, of_subject, check=check)
    if known is not None and _source(known.function) != _source(function):
        raise InvalidInputError(f"there is a measurement '{name}' already: choose another name")
    parameters = inspect.signature(function).parameters
    by_name = [each.name for each in parameters.values() if each.kind is each.KEYWORD_ONLY]
    if "seed" not in by_name or len(parameters) - len(by_name) != 2:
        raise InvalidInputError(
            f"a measurement is a function (prior, task, *, seed, ...), got {name}"
            f"{inspect.signature(function)}: options come after the star"
        )
    without = [key for key, o in made.options.items() if o.default is inspect.Parameter.empty]
    if without:
        raise InvalidInputError(f"options of '{name}' need defaults: {', '.join(without)}")
    _STAGES[name] = made


@checked
def measurement_names() -> list[str]:
    """List the measurements that are registered.

    Returns
    -------
    list of str
        In the order of registration.
    """
    return list(_STAGES)


def find_stage(name: str) -> Stage:
    """Look up a stage."""
    if name not in _STAGES:
        raise UnknownNameError(f"unknown measurement '{name}': {suggest(name, _STAGES)}")
    return _STAGES[name]


def _source(function: Callable[..., Any]) -> tuple[str, str]:
    return function.__module__, function.__qualname__
