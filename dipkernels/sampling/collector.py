"""What is kept of chains while they run: scalars of every image, moments, thinned draws."""

from typing import Any

import torch
from torch import Tensor

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
        chains: int,
        iterations: int,
        *,
        burn_in: int,
        thin: int,
        draws: int,
        of_draws: bool = False,
    ) -> None:
        self.task, self.burn_in, self.thin, self.of_draws = task, burn_in, thin, of_draws
        self.columns = ["loss"]
        if task.clean is not None:
            self.columns += ["psnr_clean", "psnr_mean"]
        if task.has_held_out:
            self.columns += ["held_out", "held_out_mean"]
        where = task.measurement.device
        self.trace = torch.full(
            (iterations, chains, len(self.columns)), torch.nan, dtype=torch.float64, device=where
        )
        self.weights = torch.full((iterations,), torch.nan, dtype=torch.float64)
        shape = (chains, *task.shape)
        self.moments = Moments(shape, where)
        # On the host: they may be many.
        self.draws = torch.full((draws, *shape), torch.nan, dtype=task.measurement.dtype)
        self.kept = 0
        self.iterations = 0

    def add(self, losses: Tensor, images: Tensor, weight: float) -> None:
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
        for score in self._scores():
            row.append(score(images))
            row.append(torch.full_like(losses, torch.nan) if mean is None else score(mean))
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

    def _scores(self) -> list[Any]:
        found: list[Any] = []
        if self.task.clean is not None:
            found.append(self.task.psnr)
        if self.task.has_held_out:
            found.append(self.task.held_out_mse)
        return found
