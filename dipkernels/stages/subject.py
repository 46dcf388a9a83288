"""What stages are computed on: a prior, a task and a seed, with what stages share of a kernel."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from dipkernels.base.progress import Progress
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.linalg import KrylovSpace, Lanczos
from dipkernels.priors.prior import ImagePrior
from dipkernels.tasks import Task


class Subject:
    """A prior, a task and a seed; the kernel at its initialisation is linearised once."""

    def __init__(
        self,
        prior: ImagePrior,
        task: Task | None = None,
        *,
        seed: int = 0,
        seeds: int | Sequence[int] | None = None,  # of fits, if not the one
        checkpoint: Path | None = None,  # of fits
        progress: bool = False,
    ) -> None:
        self.prior, self.seed, self.progress = prior, seed, progress
        self.seeds, self.checkpoint = seeds, checkpoint
        self._task = task
        self._spaces: dict[tuple[int, int], list[KrylovSpace]] = {}

    @property
    def task(self) -> Task:
        """What is fitted or predicted."""
        if self._task is None:
            raise InvalidInputError(f"{self.prior.name} was given without a task, which this needs")
        return self._task

    @cached_property
    def ntk(self) -> NTK:
        """The tangent kernel at the initialisation of the seed."""
        with Progress(1, f"{self.prior.name}: linearising", enabled=self.progress) as bar:
            made = NTK(self.prior, self.prior.init(self.seed))
            bar.advance()
        return made

    def spaces(self, probes: int, steps: int) -> list[KrylovSpace]:
        """Krylov spaces of the kernel from random signs."""
        key = probes, steps
        if key not in self._spaces:
            self._spaces[key] = probe_spaces(
                self.ntk, probes, steps, seed=self.seed, progress=self.progress
            )
        return self._spaces[key]

    def for_fit(
        self, checkpoint: Path | None = None, seeds: int | Sequence[int] | None = None
    ) -> "Subject":
        """Make that of a fit, which needs the memory of kernel and spaces."""
        self.__dict__.pop("ntk", None)
        self._spaces.clear()
        return Subject(
            self.prior,
            self._task,
            seed=self.seed,
            seeds=seeds,
            checkpoint=checkpoint,
            progress=self.progress,
        )


def probe_spaces(
    ntk: NTK, probes: int, steps: int, *, seed: int = 0, progress: bool = False
) -> list[KrylovSpace]:
    """Run Lanczos on a kernel from random signs: for density and eigenpairs."""
    with Progress(steps, f"{ntk.prior.name}: spectrum", enabled=progress) as bar:
        return Lanczos(ntk, ntk.rademacher(probes, seed)).extend(steps, progress=bar).spaces()
