"""What a fit records at every iteration of every run, kept on the device and fetched in blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipkernels.fitting.snapshots import Snapshots
from dipkernels.images.metrics import mse_to_psnr
from dipkernels.stopping import Monitor
from dipkernels.stopping.monitors import NeedsTasks, NeedsTwins
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES

RUNAWAY = 1e6  # a loss so many times the first one has run away: 60 dB worse than no fit at all
PICTURES = ("initial", "final", "average", "best")


class Record:
    """Scores of the outputs of several runs and of their running averages.

    Scores stay on the device until `flush`, so that the host waits once a block and not at every
    iteration. A run whose loss stops being finite, or runs away, has ended: nothing of it is
    recorded from that iteration on.
    """

    BLOCK = 50

    def __init__(
        self,
        tasks: Sequence[Task],
        seeds: int,
        averaging: float,
        monitors: Sequence[Monitor] = (),
        snapshots: int = 0,
    ) -> None:
        self.tasks, self.seeds, self.runs = list(tasks), seeds, len(tasks) * seeds
        self.snapshots = Snapshots(snapshots, seeds, [task.data_range for task in tasks])
        self.monitors = list(monitors)
        self.twins: list[Task] = []  # fitted beside the tasks, for monitors that compare with them
        self._twins_of: list[tuple[NeedsTwins, slice]] = []  # and the runs of each of these
        for monitor in self.monitors:
            if isinstance(monitor, NeedsTasks):
                monitor.begin(self.tasks, seeds)
            if isinstance(monitor, NeedsTwins):
                first_run = self.runs + len(self.twins) * seeds
                self.twins += monitor.twins()
                last_run = self.runs + len(self.twins) * seeds
                self._twins_of.append((monitor, slice(first_run, last_run)))
        first = self.tasks[0]
        self.regions, self.score_region = list(first.regions), first.score_region
        self.knows_truth = first.clean is not None
        self._averaging = averaging
        self._scored = {name: self._region(name) for name in self.regions if self.knows_truth}
        self.columns = ["running", "loss", "mse_noisy", "mse_average_noisy"]
        self.columns += ["mse_held_out"] * first.has_held_out
        self.columns += ["mse_second"] * (first.second is not None)
        for kind in ("mse_clean", "mse_average_clean"):
            self.columns += [f"{kind}:{name}" for name in self._scored]
        self.columns += [name for monitor in self.monitors for name in monitor.names]
        self._pending: list[Tensor] = []
        self._blocks: list[np.ndarray] = []
        # Errors are recorded in units of the squared peak.
        units = [task.data_range**2 for task in tasks for _ in range(seeds)]
        fractions = [task.measured_fraction for task in tasks for _ in range(seeds)]
        infinite = first.measurement.new_full((self.runs,), torch.inf)
        self._units = infinite.new_tensor(units)
        self._fractions = infinite.new_tensor(fractions) * self._units
        self._limit, self._lowest = infinite, infinite
        self._running = infinite > 0
        self.pictures: dict[str, Tensor] = {}

    @property
    def iterations(self) -> int:
        """Number of images recorded of each run."""
        return len(self._pending) + sum(len(rows) for rows in self._blocks)

    def add(self, losses: Tensor, images: Tensor) -> None:
        """Record one image of every run that still runs; those of twins follow the runs'."""
        for watching, where in self._twins_of:
            watching.see(images[where] / self.tasks[0].data_range)
        losses, images = losses[: self.runs], images[: self.runs]
        if not self.pictures:
            names = PICTURES if self.knows_truth else PICTURES[:3]
            # A copy: with CUDA graphs the next iteration may reuse the memory.
            self.pictures = dict.fromkeys(names, images.clone())
            self._limit = RUNAWAY * losses.abs()  # one's own misfit may be negative
            average = images
        else:
            average = torch.lerp(images, self.pictures["average"], self._averaging)
        self._running = self._running & losses.isfinite() & (losses <= self._limit)
        squares = self.tasks[0].law == SQUARES
        noisy = losses if squares else self._by_task("squared_error", images)
        columns = [self._running.to(losses.dtype), losses, noisy / self._fractions]
        columns.append(self._by_task("squared_error", average) / self._fractions)
        if self.tasks[0].has_held_out:
            columns.append(self._by_task("held_out_mse", images) / self._units)
        if self.tasks[0].second is not None:
            columns.append(self._by_task("second_mse", images) / self._units)
        if self.knows_truth:
            clean = self._region_mse(images)
            columns += [*clean.values(), *self._region_mse(average).values()]
            self._keep_best(clean[self.score_region], images)
        for monitor in self.monitors:
            columns += monitor.update(images / self.tasks[0].data_range).unbind(dim=1)
        self._pending.append(torch.stack(columns, dim=1))
        self.pictures["final"] = self._where_running(images, self.pictures["final"])
        self.pictures["average"] = self._where_running(average, self.pictures["average"])
        self.snapshots.add(self.iterations - 1, self.pictures["final"])

    def flush(self) -> bool:
        """Fetch the scores recorded since the last time."""
        if self._pending:
            self._blocks.append(torch.stack(self._pending).cpu().double().numpy())
            self._pending.clear()
        return bool((self._blocks[-1][-1, :, 0] > 0).any()) if self._blocks else True

    def table(self) -> np.ndarray:
        """Put all rows together."""
        self.flush()
        table = np.concatenate(self._blocks)
        table[table[..., 0] == 0, 1:] = np.nan
        return table

    def note(self) -> str:
        """Say how far the fit has come, for a progress bar."""
        if not self.knows_truth or not self.pictures:
            return ""
        return f"peak {float(mse_to_psnr(self._lowest).mean()):.2f} dB"

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        self.flush()
        return {
            "rows": np.concatenate(self._blocks),
            "pictures": dict(self.pictures),
            "lowest": self._lowest,
            "limit": self._limit,
            "running": self._running,
            "monitors": [monitor.state() for monitor in self.monitors],
            "snapshots": self.snapshots.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the record that gave this state."""
        device = self._lowest.device
        self._blocks, self._pending = [state["rows"]], []
        self.pictures = {key: value.to(device) for key, value in state["pictures"].items()}
        self._lowest, self._limit, self._running = (
            state[key].to(device) for key in ("lowest", "limit", "running")
        )
        for monitor, content in zip(self.monitors, state["monitors"], strict=True):
            monitor.load(content)
        if "snapshots" in state:  # not in checkpoints of version 0.1
            self.snapshots.load(state["snapshots"], device)

    def _keep_best(self, score: Tensor, images: Tensor) -> None:
        better = self._running & (score < self._lowest)
        self._lowest = torch.where(better, score, self._lowest)
        self.pictures["best"] = torch.where(_like(better, images), images, self.pictures["best"])

    def _where_running(self, new: Tensor, old: Tensor) -> Tensor:
        return torch.where(_like(self._running, new), new, old)

    # A function of each task, of its own runs' images.
    def _by_task(self, method: str, images: Tensor) -> Tensor:
        parts = images.split(self.seeds)
        scores = [getattr(task, method)(p) for task, p in zip(self.tasks, parts, strict=True)]
        return scores[0] if len(scores) == 1 else torch.cat(scores)

    # Masks of a region by task, and their sizes; None for the whole image.
    def _region(self, name: str) -> tuple[Tensor, Tensor] | None:
        masks = torch.stack([task.regions[name] for task in self.tasks])
        if bool(masks.all()):
            return None
        masks = masks.to(self.tasks[0].measurement.dtype).repeat_interleave(self.seeds, dim=0)
        return masks, masks.flatten(1).sum(dim=1)

    def _region_mse(self, images: Tensor) -> dict[str, Tensor]:
        parts = images.split(self.seeds)
        errors = [p - task.clean for task, p in zip(self.tasks, parts, strict=True)]
        squared = (errors[0] if len(errors) == 1 else torch.cat(errors)).square()
        scores = {}
        for name, region in self._scored.items():
            if region is None:
                mse = squared.flatten(1).mean(dim=1)
            else:
                mse = (squared * region[0]).flatten(1).sum(dim=1) / region[1]
            scores[name] = mse / self._units
        return scores


# A vector over runs in the dimensions of their images.
def _like(vector: Tensor, images: Tensor) -> Tensor:
    return vector.reshape(-1, *[1] * (images.dim() - 1))
