"""Learning-rate schedules: the factor of the learning rate at every iteration.

A schedule is a function of the iteration and of the number of iterations alone, so that a fit that
is continued from a checkpoint has nothing to restore.
"""

import math
from collections.abc import Callable

Schedule = Callable[[int, int], float]

WARMUP = 0.05  # of all iterations, the part in which "warmup" grows
DECADES = 2.0  # by which "exponential" falls in all
STEPS, STEP_FACTOR = 3, 0.1  # "step" falls by this factor at every one of so many equal parts


def _constant(iteration: int, iterations: int) -> float:
    return 1.0


def _cosine(iteration: int, iterations: int) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * iteration / iterations))


def _exponential(iteration: int, iterations: int) -> float:
    return float(10.0 ** (-DECADES * iteration / iterations))


def _step(iteration: int, iterations: int) -> float:
    return float(STEP_FACTOR ** min(STEPS - 1, STEPS * iteration // iterations))


def _warmup(iteration: int, iterations: int) -> float:
    return min(1.0, (iteration + 1) / max(1.0, WARMUP * iterations))


SCHEDULES: dict[str, Schedule] = {
    "constant": _constant,
    "cosine": _cosine,
    "exponential": _exponential,
    "step": _step,
    "warmup": _warmup,
}


def learning_rate_factor(name: str, iteration: int, iterations: int) -> float:
    """Factor of the learning rate in the step after an iteration.

    Examples
    --------
    >>> [round(learning_rate_factor("cosine", i, 4), 3) for i in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """  # noqa: DOC201
    return SCHEDULES[name](iteration, iterations)
