"""The loops that move runs on: each image is shown to what watches, and the state is saved."""

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from dipkernels.base.interruption import ctrl_c_between_iterations
from dipkernels.base.progress import Progress
from dipkernels.fitting.descent import Descent
from dipkernels.fitting.record import Record
from dipkernels.fitting.stopper import Stopper
from dipkernels.priors.prior import Parameters
from dipkernels.storage.checkpoints import Saver

Callback = Callable[[int, Tensor, Parameters], None]


@runtime_checkable
class Moved(Protocol):
    """Runs in step, as a loop drives them."""

    iteration: int

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Return misfits ``(runs,)`` and images ``(runs, channels, *spatial)``."""

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Move all runs on by one iteration."""

    def state(self) -> dict[str, Any]:
        """Return everything that `load` needs to continue bit by bit."""

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the one that gave this state."""


M = TypeVar("M", bound=Moved)


class Loop(ABC, Generic[M]):
    """Moves runs on for so many steps; who watches, and what ends it, is told by who inherits."""

    def __init__(self, moved: M, iterations: int) -> None:
        self.moved, self.iterations = moved, iterations
        self.interrupted = False  # set it, and the loop ends before the next iteration
        self.seconds = 0.0

    def run(self, label: str, saver: Saver | None, *, progress: bool) -> str:
        """Run the iterations that are left, and say how it ended."""
        with Progress(self.iterations, label, enabled=progress) as bar:
            bar.advance(self.moved.iteration)
            try:
                with ctrl_c_between_iterations(self, resumable=saver is not None):
                    status = self._iterate(bar, saver)
            except KeyboardInterrupt:
                # Not saved: it may have come in the middle of a step.
                if not self.seen:
                    raise
                return "interrupted"
            if saver is not None:
                saver.save(self.state())
        return status

    def _iterate(self, bar: Progress, saver: Saver | None) -> str:
        start, before = time.perf_counter(), self.seconds
        while not (status := self._ended(bar)):
            if self.interrupted and self.seen:
                return "interrupted"
            losses, images = self.moved.evaluate()
            if self.seen == self.moved.iteration:  # not so where a finished fit is extended
                self._watch(losses.detach(), images.detach())
            if self.moved.iteration < self.iterations:
                self.moved.step(losses, images)
                bar.advance()
            self.seconds = before + time.perf_counter() - start
            if saver is not None:
                saver.save_if_due(self.state)
        return status

    @property
    @abstractmethod
    def seen(self) -> int:
        """Number of images that were watched of each run."""

    @abstractmethod
    def _watch(self, losses: Tensor, images: Tensor) -> None:
        """Show an image of every run, that of the present iteration, to all that watch."""

    @abstractmethod
    def _ended(self, bar: Progress) -> str:
        """Say how it has ended, asked before every iteration; nothing if it goes on."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the loop that gave this state."""


class FitLoop(Loop[Descent]):
    """A fit: a descent, watched by its record, a stopping rule and a callback."""

    def __init__(
        self,
        descent: Descent,
        record: Record,
        stopper: Stopper | None = None,
        callback: Callback | None = None,
    ) -> None:
        super().__init__(descent, descent.settings.iterations)
        self.record, self.stopper, self._callback = record, stopper, callback

    def _iterate(self, bar: Progress, saver: Saver | None) -> str:
        with _precision(self.moved.settings.precision):
            return super()._iterate(bar, saver)

    @property
    def seen(self) -> int:
        """Number of images that were recorded of each run."""
        return self.record.iterations

    def _watch(self, losses: Tensor, images: Tensor) -> None:
        self.record.add(losses, images)
        runs = self.record.runs  # what follows are twins
        images = images[:runs]
        if self.stopper is not None:
            self.stopper.add(images)
        if self._callback is not None:
            leaves = {key: leaf.detach()[:runs] for key, leaf in self.moved.leaves.items()}
            if runs == 1:
                images, leaves = images[0], {key: leaf[0] for key, leaf in leaves.items()}
            self._callback(self.moved.iteration, images, leaves)

    # Where scores are fetched: at the end, and once a block.
    def _ended(self, bar: Progress) -> str:
        complete = self.seen > self.iterations
        if not complete and self.seen % Record.BLOCK:
            return ""
        if not self.record.flush():
            return "diverged"
        bar.note(self.record.note())
        if self.stopper is not None and self.stopper.check():
            return "stopped"
        return "finished" if complete else ""

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        return {
            **self.moved.state(),
            "record": self.record.state(),
            "seconds": self.seconds,
            "stopper": None if self.stopper is None else self.stopper.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the fit that gave this state."""
        self.moved.load(state)
        self.record.load(state["record"])
        self.seconds = state["seconds"]
        if self.stopper is not None:
            self.stopper.load(state["stopper"])


@contextlib.contextmanager
def _precision(precision: str) -> Iterator[None]:
    if precision != "tf32":
        yield
        return
    matmul, cudnn = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = matmul
        torch.backends.cudnn.allow_tf32 = cudnn
