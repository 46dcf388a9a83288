"""What a run of a sampler does, apart from its target: checked before anything runs."""

import math
from dataclasses import asdict, replace

from dipkernels.base.checks import checked
from dipkernels.base.options import check_options, option, settings
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.schedules import learning_rate_factor
from dipkernels.sampling.steps import SAMPLERS

SCHEDULES = ("constant", "polynomial", "cosine", "cyclical")
POLYNOMIAL_POWER = 1 / 3  # best for the mean squared error of averages (Teh et al. 2016)
FRICTION = 0.01  # a momentum of 100 steps: with one of 10 high frequencies hardly move
ITERATIONS = 24000  # after which the chains of a small network agree
WARM_UP = 2000  # iterations, after which the step is chosen anew; at 800 L still grows
DRAWS = 200  # about as many are kept of each chain unless `thin` says otherwise


@checked
@settings
class ChainSettings:
    """The options of `dipkernels.sampling.sample` that decide its result.

    Raises
    ------
    InvalidInputError
        If one is out of range, or would have no effect.
    """

    method: str = option(
        default="sghmc",
        help="Sampler: Langevin dynamics with a momentum, plain, or in the metric of RMSprop as "
        "burn-in leaves it; or one of your own, see `register_sampler`.",
        choices=SAMPLERS,
    )
    iterations: int = option(
        default=ITERATIONS, help="Images of each chain. Iteration i is the image after i steps."
    )
    burn_in: int | None = option(
        default=None, help="Iterations that don't count.", unset="half of them"
    )
    thin: int | None = option(
        default=None,
        help="Iterations from one draw that is kept to the next. They take ``chains * draws * "
        "image`` of memory on the host.",
        unset="such that at most some 400 are kept",
    )
    step_size: float | None = option(
        default=None,
        help="Step of Langevin dynamics. ``psgld`` needs one.",
        unset="a share of the limit of stability, the mean over chains, measured anew after "
        "2000 iterations, or after burn-in if that ends before; see `sample`",
    )
    schedule: str = option(
        default="constant",
        help="Schedule of the step. ``polynomial`` is ``(1 + 100 t)^(-1/3)`` with t from 0 to 1 "
        "over the run, Teh et al.'s power, which trades bias for variance best; it falls to 0.21. "
        "``cosine`` falls to 0 along half a wave, ``cyclical`` does so `cycles` times (Zhang et "
        "al. 2020). Moments weigh each image by its step; draws have no weight.",
        choices=SCHEDULES,
    )
    cycles: int | None = option(default=None, help="Cycles of the schedule ``cyclical``.")
    friction: float | None = option(
        default=None, help="Friction of ``sghmc``, in (0, 1).", unset=f"{FRICTION}"
    )
    chains: int = option(
        default=4,
        help="Number of chains. Each starts from an initialisation of its own, with noise of its "
        "own. They share nothing.",
    )
    seed: int = option(default=0, help="Seed of initialisations and noise.")

    def __post_init__(self) -> None:
        check_options(self)
        self._require_counts()
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise InvalidInputError(f"step_size must be positive and finite, got {self.step_size}")
        if self.friction is not None and not 0 < self.friction < 1:
            raise InvalidInputError(f"friction must be in (0, 1), got {self.friction}")
        self._require_effects()

    def _require_counts(self) -> None:
        least = 3 if self.burn_in is None else 2  # half of them are burnt in, and one is the start
        if self.chains < 1 or self.iterations < least:
            raise InvalidInputError(
                f"a run needs a chain and {least} iterations, got {self.chains} and "
                f"{self.iterations}"
            )
        if self.burn_in is not None and not 0 <= self.burn_in < self.iterations - 1:
            raise InvalidInputError(
                f"burn_in must be from 0 to iterations - 2 = {self.iterations - 2}, got "
                f"{self.burn_in}"
            )
        left = self.iterations - 1 - self.burned
        if self.thin is not None and not 1 <= self.thin <= left:
            raise InvalidInputError(
                f"thin must be from 1 to {left}, the iterations after burn-in, got {self.thin}: "
                "otherwise there is no draw"
            )

    def _require_effects(self) -> None:
        if self.friction is not None and not SAMPLERS[self.method].takes_friction:
            raise InvalidInputError(
                f"friction has no effect on '{self.method}': use method='sghmc' or leave it out"
            )
        if (self.cycles is not None) != (self.schedule == "cyclical"):
            raise InvalidInputError(
                "schedule 'cyclical' needs cycles=, and only it takes them, got schedule "
                f"'{self.schedule}' and cycles {self.cycles}"
            )
        if self.cycles is not None and not 1 <= self.cycles <= self.iterations // 2:
            raise InvalidInputError(f"cycles must be from 1 to iterations / 2, got {self.cycles}")
        require_step(self.method, self.step_size, "step_size=")

    @property
    def burned(self) -> int:
        """Iterations that are left out, half unless said otherwise."""
        return self.iterations // 2 if self.burn_in is None else self.burn_in

    @property
    def warm_up(self) -> int:
        """Iterations until the step is chosen anew; none if it's given."""
        return 0 if self.step_size else min(WARM_UP, self.burned)

    @property
    def stride(self) -> int:
        """Iterations from one draw to the next."""
        left = self.iterations - 1 - self.burned
        return max(1, left // DRAWS) if self.thin is None else self.thin

    @property
    def draws(self) -> int:
        """Number of draws that are kept of every chain."""
        return (self.iterations - 1 - self.burned) // self.stride


def resolved(given: ChainSettings, step_size: float | None) -> ChainSettings:
    """Say everything that has an effect: what was left to be chosen, and the step if known."""
    friction = given.friction
    if friction is None and SAMPLERS[given.method].takes_friction:
        friction = FRICTION
    return replace(
        given, burn_in=given.burned, thin=given.stride, step_size=step_size, friction=friction
    )


def record_of(given: ChainSettings) -> dict[str, str | int | float]:
    """List settings for the attributes of a dataset, without those that are off (None)."""
    return {key: value for key, value in asdict(given).items() if value is not None}


def require_step(method: str, step_size: float | None, spelled: str) -> None:
    """Refuse a sampler whose step can't be chosen, without one."""
    if step_size is None and SAMPLERS[method].needs_step:
        raise InvalidInputError(
            f"{method} needs {spelled}: the curvature in its metric isn't known before it runs. A "
            "parameter moves by about so much an iteration at first; try 1e-4, and less if chains "
            "diverge"
        )


def step_factor(name: str, iteration: int, iterations: int, cycles: int = 1) -> float:
    """Factor of the step after an iteration, by the schedule of this name.

    Examples
    --------
    >>> [round(step_factor("cyclical", i, 8, 2), 3) for i in range(5)]
    [1.0, 0.854, 0.5, 0.146, 1.0]
    """  # noqa: DOC201, DOC501
    if name not in SCHEDULES:
        raise InvalidInputError(f"schedule must be one of {SCHEDULES}, got '{name}'")
    if name == "constant":
        return 1.0
    if name == "polynomial":
        return float((1 + 100 * iteration / iterations) ** -POLYNOMIAL_POWER)
    length = math.ceil(iterations / cycles)
    return learning_rate_factor("cosine", iteration % length, length)
