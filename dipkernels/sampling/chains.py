"""Runs chains, saves them every so often, and makes a dataset of what was kept."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.fits import FitInterrupted
from dipkernels.fitting.loop import Loop
from dipkernels.fitting.preparation import describe_network, describe_task
from dipkernels.images.axes import AXES
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.sampling.collector import Collector
from dipkernels.sampling.langevin import Transition
from dipkernels.sampling.settings import ChainSettings
from dipkernels.sampling.summaries import describe_measurement
from dipkernels.storage.checkpoints import Saver
from dipkernels.tasks import Task

logger = logging.getLogger(__name__)

BLOCK = 50  # iterations from one look at the losses to the next


class SamplingInterrupted(FitInterrupted):
    """Ctrl-C during a run of chains; what was computed until then is kept.

    Attributes
    ----------
    result : xarray.Dataset
        As `dipkernels.sampling.sample` returns, up to the last whole iteration.
    """


class Chains(Loop[Transition]):
    """What moves chains, and what is kept of them."""

    def __init__(self, transition: Transition, collector: Collector, iterations: int) -> None:
        super().__init__(transition, iterations)
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
        self.collector.add(losses, images, self.moved.weight())

    def _ended(self, bar: Progress) -> str:
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
        return {
            "dynamics": self.moved.state(),
            "collector": self.collector.state(),
            "seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the chains that gave this state."""
        self.moved.load(state["dynamics"])
        self.collector.load(state["collector"])
        self.seconds = state["seconds"]


def make_collector(task: Task, settings: ChainSettings, *, of_draws: bool = False) -> Collector:
    """Make what keeps the images of a run."""
    return Collector(
        task,
        settings.chains,
        settings.iterations,
        burn_in=settings.burned,
        thin=settings.stride,
        draws=settings.draws,
        of_draws=of_draws,
    )


def chain_seeds(chains: int, seed: int) -> list[int]:
    """Give every chain a seed of its own, whatever their number."""
    return [derive(f"chain-{i}", seed) for i in range(chains)]


def describe_run(prior: ImagePrior, task: Task) -> dict[str, Any]:
    """Tell what is run from other networks and tasks, for the identity of a checkpoint."""
    return {**describe_network(prior, 0), "task": describe_task(task, prior)}


def resume(run: Chains, state: dict[str, Any] | None, checkpoint: str | Path | None) -> None:
    """Go on from a checkpoint, if there is one."""
    if state is None:
        return
    done = len(state["collector"]["trace"])
    if done > run.iterations:
        raise InvalidInputError(
            f"the chains in {checkpoint} have {done} iterations already, {run.iterations} were "
            "asked for: ask for more, or choose another checkpoint"
        )
    run.load(state)


def finish(
    chains: Chains, prior: ImagePrior, task: Task, status: str, attributes: dict[str, Any]
) -> xr.Dataset:
    """Make the result of a run, or raise what ended it."""
    result = _dataset(chains.collector, task)
    if status == "diverged":
        last = result.ended_at.values.max()
        raise DivergenceError(
            f"all chains diverged, the last at iteration {last}: choose a smaller step (a tenth)"
        )
    given = {
        **describe_prior(prior),
        **attributes,
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


def _dataset(collector: Collector, task: Task) -> xr.Dataset:
    peak, count = task.peak, collector.iterations
    trace = collector.trace[:count].cpu().numpy()
    ended = ~np.isfinite(trace[..., 0])
    pixels = ("channel", *AXES[len(task.shape) - 1])
    variables: dict[str, Any] = {}
    for index, name in enumerate(collector.columns):
        attributes = {"units": "dB"} if name.startswith("psnr") else {}
        values = trace[..., index].T
        if name.startswith("held_out"):
            values, attributes = values / peak**2, {"long_name": "mean squared error, held out"}
        variables[name] = (("chain", "iteration"), values, attributes)
    # Of a chain that diverged nothing is worth keeping: its last images were on their way.
    alive = ~ended.any(axis=0)
    shape = (-1, *[1] * len(task.shape))
    for name, tensor in (
        ("mean", collector.moments.average()),
        ("std", collector.moments.variance().sqrt()),
    ):
        values = np.where(alive.reshape(shape), tensor.cpu().numpy(), np.nan) / peak
        variables[name] = (("chain", *pixels), values)
    draws = (collector.draws[: collector.kept].transpose(0, 1) / peak).numpy()
    draws = draws if alive.all() else np.where(alive.reshape(-1, 1, *shape[1:]), draws, np.nan)
    variables["draws"] = (("chain", "draw", *pixels), draws)
    variables["weight"] = ("iteration", collector.weights[:count].numpy())
    first = np.where(alive, -1, ended.argmax(axis=0))
    variables["ended_at"] = ("chain", first, {"long_name": "iteration of divergence, or -1"})
    if task.clean is not None:
        variables["clean"] = (pixels, (task.clean / peak).cpu().numpy())
    if task.measurement.shape == task.shape:
        variables["measurement"] = (pixels, (task.measurement / peak).cpu().numpy())
        variables["counted"] = (pixels, task.counted.cpu().numpy())
    coordinates = {
        "iteration": np.arange(count),
        "chain": np.arange(len(alive)),
        "draw_iteration": (
            "draw",
            collector.burn_in + collector.thin * np.arange(1, collector.kept + 1),
        ),
    }
    return xr.Dataset(variables, coordinates)
