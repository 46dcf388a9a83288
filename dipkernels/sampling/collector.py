"""What is kept of chains while they run: scalars of every image, moments, thinned draws."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.images.axes import pixel_axes
from dipkernels.sampling.settings import ChainSettings
from dipkernels.sampling.summaries import known_of
from dipkernels.tasks import Task


class Moments:
    """Running weighted mean and variance of the images of every chain, in float64.

    Welford's update, with weights as West 1979 has it: no cancellation, one pass.
    """

    def __init__(self, shape: tuple[int, ...], device: torch.device) -> None:
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.squares = torch.zeros_like(self.mean)
        self.total = self.total_squares = 0.0

    def add(self, images: Tensor, weight: float) -> None:
        """Take one image of every chain."""
        if not weight:
            return
        self.total += weight
        self.total_squares += weight**2
        difference = images - self.mean
        self.mean += (weight / self.total) * difference
        self.squares += weight * difference * (images - self.mean)

    def average(self) -> Tensor:
        """Mean over the images of each chain."""
        return self.mean if self.total else torch.full_like(self.mean, torch.nan)

    def variance(self) -> Tensor:
        """Variance over the images of each chain."""
        freedom = self.total - self.total_squares / self.total if self.total else 0.0
        return self.squares / freedom if freedom > 0 else torch.full_like(self.squares, torch.nan)


class Collector:
    """Takes the images of every iteration and keeps what is asked for."""

    def __init__(
        self,
        task: Task,
        settings: ChainSettings,
        *,
        of_draws: bool = False,
        watched: Sequence[str] = (),
    ) -> None:
        self.task, self.of_draws = task, of_draws
        self.burn_in, self.thin = settings.burned, settings.stride
        self.columns = ["loss"]
        self._scores: list[Callable[[Tensor], Tensor]] = []
        if task.clean is not None:
            self.columns += ["psnr_clean", "psnr_mean"]
            self._scores.append(task.psnr)
        if task.has_held_out:
            self.columns += ["held_out", "held_out_mean"]
            self._scores.append(task.held_out_mse)
        self._watched = tuple(watched)
        self.columns += self._watched
        where, shape = task.measurement.device, (settings.chains, *task.shape)
        rows = (settings.iterations, settings.chains, len(self.columns))
        self.trace = torch.empty(rows, dtype=torch.float64, device=where)
        self.weights = torch.empty(rows[:1], dtype=torch.float64)
        # On the host: they may be many.
        self.draws = torch.empty((settings.draws, *shape), dtype=task.measurement.dtype)
        self.clear()

    def clear(self) -> None:
        """Forget all images."""
        for tensor in (self.trace, self.weights, self.draws):
            tensor.fill_(torch.nan)
        self.moments = Moments((self.trace.shape[1], *self.task.shape), self.trace.device)
        self.kept = self.iterations = 0

    def add(
        self,
        losses: Tensor,
        images: Tensor,
        weight: float,
        watched: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the images of one iteration."""
        after = self.iterations - self.burn_in
        drawn = after > 0 and after % self.thin == 0 and self.kept < len(self.draws)
        if drawn:
            self.draws[self.kept] = images.cpu()
            self.kept += 1
        if drawn or (after > 0 and not self.of_draws):
            self.moments.add(images, weight)
        mean = self.moments.mean.to(images.dtype) if self.moments.total else None
        row = [losses]
        for score in self._scores:
            row.append(score(images))
            row.append(torch.full_like(losses, torch.nan) if mean is None else score(mean))
        row += [watched[name] for name in self._watched] if watched else []
        self.trace[self.iterations] = torch.stack(row, dim=-1)
        self.weights[self.iterations] = weight
        self.iterations += 1

    def running(self) -> Tensor:
        """Tell which chains are finite."""
        return self.trace[self.iterations - 1, :, 0].isfinite()

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        moments = self.moments
        return {
            "trace": self.trace[: self.iterations],
            "weights": self.weights[: self.iterations],
            "draws": self.draws[: self.kept],
            "mean": moments.mean,
            "squares": moments.squares,
            "totals": [moments.total, moments.total_squares],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the collector that gave this state, perhaps of a shorter run."""
        self.iterations, self.kept = len(state["trace"]), len(state["draws"])
        self.trace[: self.iterations] = state["trace"].to(self.trace.device)
        self.weights[: self.iterations] = state["weights"]
        self.draws[: self.kept] = state["draws"]
        moments = self.moments
        moments.mean, moments.squares = (
            state[key].to(self.trace.device) for key in ("mean", "squares")
        )
        moments.total, moments.total_squares = state["totals"]

    def dataset(self) -> xr.Dataset:
        """Put what was kept into a dataset; see `dipkernels.sampling.sample` for its variables."""
        peak, count = self.task.data_range, self.iterations
        trace = self.trace[:count].cpu().numpy()
        ended = ~np.isfinite(trace[..., 0])
        pixels = pixel_axes(self.task.shape)
        variables: dict[str, Any] = {}
        for index, name in enumerate(self.columns):
            attributes = {"units": "dB"} if name.startswith("psnr") else {}
            values = trace[..., index].T
            if name.startswith("held_out"):
                values, attributes = values / peak**2, {"long_name": "mean squared error, held out"}
            variables[name] = (("chain", "iteration"), values, attributes)
        # Of a chain that diverged nothing is worth keeping: its last images were on their way.
        alive = ~ended.any(axis=0)
        shape = (-1, *[1] * len(self.task.shape))
        moments = {"mean": self.moments.average(), "std": self.moments.variance().sqrt()}
        for name, tensor in moments.items():
            values = np.where(alive.reshape(shape), tensor.cpu().numpy(), np.nan) / peak
            variables[name] = (("chain", *pixels), values)
        draws = (self.draws[: self.kept].transpose(0, 1) / peak).numpy()
        draws = draws if alive.all() else np.where(alive.reshape(-1, 1, *shape[1:]), draws, np.nan)
        variables["draws"] = (("chain", "draw", *pixels), draws)
        variables["weight"] = ("iteration", self.weights[:count].numpy())
        first = np.where(alive, -1, ended.argmax(axis=0))
        variables["ended_at"] = ("chain", first, {"long_name": "iteration of divergence, or -1"})
        coordinates = {
            "iteration": np.arange(count),
            "chain": np.arange(len(alive)),
            "draw_iteration": ("draw", self.burn_in + self.thin * np.arange(1, self.kept + 1)),
        }
        return xr.Dataset(variables | known_of(self.task), coordinates)
