"""Schedules of the step of a sampler."""

import math
from collections.abc import Callable, Mapping

from dipkernels.errors import InvalidInputError

POLYNOMIAL_POWER = 1 / 3  # best for the mean squared error of averages (Teh et al. 2016)


def _constant(iteration: int, iterations: int, cycles: int) -> float:
    return 1.0


def _polynomial(iteration: int, iterations: int, cycles: int) -> float:
    return float((1 + 100 * iteration / iterations) ** -POLYNOMIAL_POWER)


def _cosine(iteration: int, iterations: int, cycles: int) -> float:
    length = math.ceil(iterations / cycles)
    return 0.5 * (1 + math.cos(math.pi * (iteration % length) / length))


SCHEDULES: Mapping[str, Callable[[int, int, int], float]] = {
    "constant": _constant,
    "polynomial": _polynomial,
    "cosine": _cosine,
    "cyclical": _cosine,
}


def step_factor(name: str, iteration: int, iterations: int, cycles: int = 1) -> float:
    """Factor of the step after an iteration.

    Parameters
    ----------
    name : {"constant", "polynomial", "cosine", "cyclical"}
        ``polynomial`` is ``(1 + 100 t)^(-1/3)`` with t from 0 to 1 over the run: Teh et al.'s
        power, which trades bias for variance best; it falls to 0.21. ``cosine`` falls to 0 along
        half a wave, ``cyclical`` does so `cycles` times (Zhang et al. 2020).
    iteration : int
        From 0.
    iterations : int
        Of the whole run.
    cycles : int
        Of ``cyclical``.

    Returns
    -------
    float
        In (0, 1].

    Raises
    ------
    InvalidInputError
        If there is no such schedule.

    Examples
    --------
    >>> [round(step_factor("cyclical", i, 8, 2), 3) for i in range(5)]
    [1.0, 0.854, 0.5, 0.146, 1.0]
    """
    if name not in SCHEDULES:
        raise InvalidInputError(f"schedule must be one of {tuple(SCHEDULES)}, got '{name}'")
    return SCHEDULES[name](iteration, iterations, cycles)
