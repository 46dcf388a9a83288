"""Learning-rate schedules: the factor of the learning rate at every iteration.

A schedule is a function of the iteration and of the number of iterations alone, so that a fit that
is continued from a checkpoint has nothing to restore.
"""

import math
from collections.abc import Callable

WARMUP = 0.05  # of all iterations, the part in which "warmup" grows
DECADES = 2.0  # by which "exponential" falls in all
STEPS, STEP_FACTOR = 3, 0.1  # "step" falls by this factor at every one of so many equal parts

# Of the iteration i and the number of iterations n.
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": lambda i, n: 1.0,
    "cosine": lambda i, n: 0.5 * (1.0 + math.cos(math.pi * i / n)),
    "exponential": lambda i, n: float(10.0 ** (-DECADES * i / n)),
    "step": lambda i, n: float(STEP_FACTOR ** min(STEPS - 1, STEPS * i // n)),
    "warmup": lambda i, n: min(1.0, (i + 1) / max(1.0, WARMUP * n)),
}
BUILT_IN = tuple(SCHEDULES)


def learning_rate_factor(name: str, iteration: int, iterations: int) -> float:
    """Factor of the learning rate in the step after an iteration.

    Examples
    --------
    >>> [round(learning_rate_factor("cosine", i, 4), 3) for i in range(4)]
    [1.0, 0.854, 0.5, 0.146]
    """  # noqa: DOC201
    return float(SCHEDULES[name](iteration, iterations))
