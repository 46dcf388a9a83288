"""The options of jobs that are made of several steps, without what computes them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dipkernels.base.options import check_options, option, settings
from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    import numpy as np

    from dipkernels.priors.prior import ImagePrior
    from dipkernels.tasks import Task

OPTIMISERS = ("gradient-descent", "adam")
RECORDED = 60  # iterations, about, spaced evenly on a logarithmic scale
LEAST = {"iterations": 1, "freeze": 1, "modes": 1, "rings": 1, "steps": 2, "probes": 2}
OF_NETWORKS, ORDINARY = ("limit", "samples"), ("rbf", "matern")


@settings
class AuditSettings:
    """The options of `audit` that decide its result."""

    seed: int = option(default=0, help="Seed of the initialisation and of all probes.")
    optimisers: Sequence[str] = option(
        default=OPTIMISERS, help="Optimisers whose fits are audited side by side."
    )
    learning_rates: Mapping[str, float] | None = option(
        default=None,
        help="Learning rate, by optimiser.",
        unset="half of the limit of stability for gradient descent, and the published one of a "
        "built-in prior for Adam (else 1e-3)",
    )
    iterations: int = option(default=1000, help="Iterations of every fit.")
    checks: Sequence[int] | None = option(
        default=None,
        help="Iterations, at least 1, at which the kernel is looked at.",
        unset="after a hundredth, a tenth and all of the fit",
    )
    freeze: int = option(
        default=20,
        help="Iteration at which Adam's metric is taken. The prediction then starts at iteration "
        "0, from the Jacobian there.",
    )
    modes: int = option(
        default=8,
        help="Leading eigenvectors of the kernel at initialisation by which errors are split.",
    )
    rings: int = option(
        default=6,
        help="Approximate number of frequency rings by which errors and responses are split.",
    )
    steps: int = option(
        default=120,
        help="Krylov steps, for each prediction; see ``unresolved`` for whether they were enough.",
    )
    probes: int = option(
        default=8,
        help="Random signs for the drift, at least 2; a frequency ring gets half as many.",
    )

    def __post_init__(self) -> None:
        check_options(self)
        for name, bound in LEAST.items():
            if getattr(self, name) < bound:
                raise InvalidInputError(
                    f"{name} must be at least {bound}, got {getattr(self, name)}"
                )
        rates = {} if self.learning_rates is None else dict(self.learning_rates)
        last = self.iterations
        checks: Sequence[int] = (max(1, last // 100), max(1, last // 10), last)
        if self.checks is not None:
            checks = self.checks
        if not checks or not all(1 <= check <= last for check in checks):
            raise InvalidInputError(
                f"checks must be iterations from 1 to {last}, got {self.checks}"
            )
        object.__setattr__(self, "checks", tuple(sorted({*checks})))
        object.__setattr__(self, "optimisers", tuple(self.optimisers))
        object.__setattr__(self, "learning_rates", rates)
        unknown = [name for name in self.optimisers if name not in OPTIMISERS]
        if unknown or not self.optimisers or len({*self.optimisers}) < len(self.optimisers):
            raise InvalidInputError(
                f"optimisers must be some of {OPTIMISERS}, each once, got {self.optimisers}"
            )
        idle = [name for name in rates if name not in self.optimisers]
        if idle:
            raise InvalidInputError(f"a learning rate of {idle[0]} has no effect: it isn't audited")
        if "adam" in self.optimisers and self.freeze > self.iterations:
            raise InvalidInputError(
                f"Adam's metric can't be frozen at iteration {self.freeze} of {self.iterations}: "
                "choose a smaller freeze"
            )

    @property
    def recorded(self) -> "np.ndarray":
        """Iterations at which images are kept: 0, a logarithmic grid, all pauses."""
        import numpy as np

        grid = np.rint(np.geomspace(1, self.iterations, RECORDED)).astype(int)
        ends = [end for optimiser in self.optimisers for end in self.ends(optimiser)]
        return np.unique([0, *grid, *ends])

    def ends(self, optimiser: str) -> list[int]:
        """List the iterations at which a fit pauses, so that its parameters can be looked at."""
        frozen = [self.freeze] if optimiser == "adam" else []
        return sorted({*(self.checks or ()), *frozen, self.iterations})

    def identity(self, prior: "ImagePrior", task: "Task") -> dict[str, Any]:
        """Say what an audit's folder belongs to."""
        from dipkernels.fitting.preparation import describe_start, describe_task

        return {
            **asdict(self),
            "prior": repr(prior),
            "dtype": str(prior.dtype),
            **describe_start(prior, self.seed),
            "task": describe_task(task, prior),
        }


@settings
class ProcessSettings:
    """The options of `regress`."""

    kernel: str = option(
        default="limit",
        help="Covariance of the process. Of a network: its limit of infinite width, or measured on "
        "samples. Without one: an RBF or a Matern kernel.",
        choices=(*OF_NETWORKS, *ORDINARY),
    )
    lengthscale: float | None = option(
        default=None,
        help="Length-scale of rbf and matern, in pixels.",
        unset="fitted by the evidence",
    )
    outputscale: float | None = option(
        default=None,
        help="Variance of a pixel, white being 1.",
        unset="fitted by the evidence; of a network, the power of the measurement without its "
        "noise",
    )
    smoothness: float | None = option(
        default=None, help="Smoothness of matern: 0.5, 1.5 or 2.5.", unset="1.5"
    )
    samples: int | None = option(
        default=None, help="Initialisations that samples are drawn from.", unset="256"
    )
    draws: int = option(
        default=64, help="Posterior draws for the variance, where it isn't had exactly."
    )

    def __post_init__(self) -> None:
        check_options(self)
        takers = {
            "lengthscale": ORDINARY, "smoothness": ("matern",), "samples": ("samples",),
        }  # fmt: skip
        for name, kinds in takers.items():
            if getattr(self, name) is not None and self.kernel not in kinds:
                raise InvalidInputError(
                    f"{name} has no effect on the kernel '{self.kernel}': leave it out, or take "
                    f"{' or '.join(kinds)}"
                )
        for name in ("lengthscale", "outputscale"):
            if (value := getattr(self, name)) is not None and not 0 < value < float("inf"):
                raise InvalidInputError(f"{name} must be positive and finite, got {value}")
        least = {"samples": 2 if self.samples is None else self.samples, "draws": self.draws}
        for name, count in least.items():
            if count < 2:
                raise InvalidInputError(f"{name} must be at least 2, got {count}")

    @property
    def needs_network(self) -> bool:
        """Whether the covariance is that of a network."""
        return self.kernel in OF_NETWORKS
