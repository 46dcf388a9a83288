"""Runs chains, saves them every so often, and makes a dataset of what was kept."""

import logging
from pathlib import Path
from typing import Any

import xarray as xr
from torch import Tensor

from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.fits import FitInterrupted
from dipkernels.fitting.loop import Loop
from dipkernels.fitting.preparation import describe_network, describe_task
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.langevin import Transition
from dipkernels.sampling.summaries import describe_measurement
from dipkernels.storage.checkpoints import Saver
from dipkernels.tasks import Task

logger = logging.getLogger(__name__)

BLOCK = 50  # iterations from one look at the losses to the next


class SamplingInterrupted(FitInterrupted):
    """Ctrl-C during a run of chains: its ``result`` goes up to the last whole iteration."""


class Chains(Loop[Transition]):
    """What moves chains, and what is kept of them."""

    def __init__(self, transition: Transition, collector: Collector) -> None:
        super().__init__(transition, len(collector.trace))
        self.collector = collector

    def run(self, label: str, saver: Saver | None, *, progress: bool) -> str:
        """Run the iterations that are left, and say how it ended."""
        status = super().run(label, saver, progress=progress)
        running = self.collector.running()
        if not bool(running.all()):
            lost = int((~running).sum())
            logger.warning("%s: %d of %d chains diverged", label, lost, len(running))
        logger.info("%s: %s after %d iterations", label, status, self.seen)
        return status

    @property
    def seen(self) -> int:
        """Number of images that were taken of each chain."""
        return self.collector.iterations

    def _watch(self, losses: Tensor, images: Tensor) -> None:
        self.collector.add(losses, images, self.moved.weight(), self.moved.watched())

    def _ended(self, bar: Progress) -> str:
        if self.moved.retreats(self.collector.trace[: self.seen, :, 0]):
            bar.advance(-self.seen)
            self.collector.clear()
        complete = self.seen >= self.iterations
        if not complete and self.seen % BLOCK != 1:
            return ""
        if not bool(self.collector.running().any()):
            return "diverged"
        bar.note(self._note())
        return "finished" if complete else ""

    def _note(self) -> str:
        row = self.collector.trace[self.seen - 1].nanmean(dim=0)
        index = 1 if "psnr_clean" in self.collector.columns else 0
        return f"PSNR {float(row[index]):.2f} dB" if index else f"loss {float(row[0]):.3g}"

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        own = {"dynamics": self.moved.state(), "collector": self.collector.state()}
        return {**own, "seconds": self.seconds}

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the chains that gave this state."""
        self.moved.load(state["dynamics"])
        self.collector.load(state["collector"])
        self.seconds = state["seconds"]


class Checkpoint:
    """Where the state of chains is kept, if anywhere, and what is there already."""

    def __init__(
        self, path: str | Path | None, prior: ImagePrior, task: Task, identity: dict[str, Any]
    ) -> None:
        self.saver = None
        if path is not None:
            whose = {**identity, **describe_network(prior, 0), "task": describe_task(task, prior)}
            self.saver = Saver(Path(path), whose, kind="chains")
        self.state = None if self.saver is None else self.saver.load()

    def resume(self, chains: Chains) -> None:
        """Let chains go on from here."""
        if self.state is None or self.saver is None:
            return
        done = len(self.state["collector"]["trace"])
        if done > chains.iterations:
            raise InvalidInputError(
                f"the chains in {self.saver.path} have {done} iterations already, "
                f"{chains.iterations} were asked for: ask for more, or choose another checkpoint"
            )
        chains.load(self.state)


def chain_seeds(chains: int, seed: int) -> list[int]:
    """Give every chain a seed of its own, whatever their number."""
    return [derive(f"chain-{i}", seed) for i in range(chains)]


def run_chains(
    chains: Chains,
    prior: ImagePrior,
    attributes: dict[str, Any],
    checkpoint: Checkpoint | None = None,
    *,
    progress: bool = False,
) -> xr.Dataset:
    """Run chains, or what a checkpoint has left of them; raise what ended them, if anything did."""
    collector = chains.collector
    if checkpoint is not None:
        checkpoint.resume(chains)
    count, task = collector.trace.shape[1], collector.task
    label = f"{prior.name}: {attributes['method']}" + f" x {count}" * (count > 1)
    saver = None if checkpoint is None else checkpoint.saver
    status = chains.run(label, saver, progress=progress)
    result = collector.dataset()
    if status == "diverged":
        last = result.ended_at.values.max()
        raise DivergenceError(
            f"all chains diverged, the last at iteration {last}: choose a smaller step (a tenth)"
        )
    given = {
        **describe_prior(prior),
        **attributes,
        **chains.moved.found(),
        "task": task.name,
        "score_region": task.score_region,
        **describe_measurement(task),
        "status": status,
        "seconds": chains.seconds,
        **provenance(prior.device),
    }
    result = result.assign_attrs(given)
    if status == "interrupted":
        raise SamplingInterrupted(result) from None
    return result
