"""What an audit does, checked before anything runs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dipkernels.base.checks import as_annotated
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.preparation import describe_start, describe_task
from dipkernels.priors.prior import ImagePrior
from dipkernels.tasks import Task

OPTIMISERS = ("gradient-descent", "adam")
_RECORDED = 60  # iterations, about, spaced evenly on a logarithmic scale


@dataclass(frozen=True)
class AuditSettings:
    """The options of `audit`; see there."""

    seed: int
    optimisers: tuple[str, ...]
    learning_rates: Mapping[str, float]
    iterations: int
    checks: tuple[int, ...]
    freeze: int
    modes: int
    rings: int
    steps: int
    probes: int

    def __post_init__(self) -> None:
        least = {"iterations": 1, "freeze": 1, "modes": 1, "rings": 1, "steps": 2, "probes": 2}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise InvalidInputError(
                    f"{name} must be at least {bound}, got {getattr(self, name)}"
                )
        unknown = [name for name in self.optimisers if name not in OPTIMISERS]
        if unknown or not self.optimisers or len({*self.optimisers}) < len(self.optimisers):
            raise InvalidInputError(
                f"optimisers must be some of {OPTIMISERS}, each once, got {self.optimisers}"
            )
        idle = [name for name in self.learning_rates if name not in self.optimisers]
        if idle:
            raise InvalidInputError(f"a learning rate of {idle[0]} has no effect: it isn't audited")
        outside = [check for check in self.checks if not 1 <= check <= self.iterations]
        if outside or not self.checks:
            raise InvalidInputError(
                f"checks must be iterations from 1 to {self.iterations}, got {self.checks}"
            )
        if "adam" in self.optimisers and self.freeze > self.iterations:
            raise InvalidInputError(
                f"Adam's metric can't be frozen at iteration {self.freeze} of {self.iterations}"
            )

    @property
    def recorded(self) -> np.ndarray:
        """Iterations at which images are kept: 0, a logarithmic grid, all pauses."""
        grid = np.rint(np.geomspace(1, self.iterations, _RECORDED)).astype(int)
        ends = [end for optimiser in self.optimisers for end in self.ends(optimiser)]
        return np.unique([0, *grid, *ends])

    def ends(self, optimiser: str) -> list[int]:
        """List the iterations at which a fit pauses, so that its parameters can be looked at."""
        frozen = [self.freeze] if optimiser == "adam" else []
        return sorted({*self.checks, *frozen, self.iterations})

    def identity(self, prior: ImagePrior, task: Task) -> dict[str, Any]:
        """Say what an audit's folder belongs to."""
        return {
            **asdict(replace(self, learning_rates=dict(self.learning_rates))),
            "prior": repr(prior),
            "dtype": str(prior.dtype),
            **describe_start(prior, self.seed),
            "task": describe_task(task, prior),
        }


def default_checks(iterations: int) -> tuple[int, ...]:
    """Choose when to look at the kernel: after a hundredth, a tenth and all of the fit."""
    return tuple(sorted({max(1, iterations // 100), max(1, iterations // 10), iterations}))


def make_settings(
    optimisers: Sequence[str],
    learning_rates: Mapping[str, float] | None,
    checks: Sequence[int] | None,
    **numbers: int,
) -> AuditSettings:
    """Fill in what was left out."""
    chosen = default_checks(numbers["iterations"])
    if checks is not None:
        chosen = tuple(sorted({as_annotated("a check", check, int) for check in checks}))
    if isinstance(optimisers, str) or not isinstance(learning_rates or {}, Mapping):
        raise InvalidInputError(
            "optimisers must be a list of names, and learning_rates numbers by their names, got "
            f"{optimisers!r} and {learning_rates!r}"
        )
    rates = (learning_rates or {}).items()
    return AuditSettings(
        optimisers=tuple(optimisers),
        learning_rates={name: as_annotated("a learning rate", x, float) for name, x in rates},
        checks=chosen,
        **numbers,
    )
