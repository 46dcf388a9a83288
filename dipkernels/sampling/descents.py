"""What moves the chains where no density is sampled: optimisers, with noise of some kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.descent import Descent
from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.prior import ImagePrior
from dipkernels.sampling.chains import Chains, describe_run, finish, make_collector, resume
from dipkernels.sampling.langevin import make_generators
from dipkernels.sampling.settings import ChainSettings
from dipkernels.sampling.steps import zeros_like
from dipkernels.storage.checkpoints import Saver
from dipkernels.tasks import Task

# Of a fit, those that `averaged` and `mc_dropout` pass on.
OPTIONS = (
    "optimiser",
    "learning_rate",
    "momentum",
    "schedule",
    "weight_decay",
    "total_variation_weight",
    "total_variation",
    "gradient_clip",
    "backtracking",
)


class Fits(Descent):
    """Fits of one task that are watched as chains, one from each seed."""

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        seeds: Sequence[int],
        settings: FitSettings,
        stream: str | None = None,
    ) -> None:
        super().__init__(prior, [task], seeds, settings)
        self._draws = [] if stream is None else make_generators(stream, seeds, prior.device)

    def weight(self) -> float:
        """Weight of the present images in averages."""
        return 1.0

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        return {**super().state(), "draws": [g.get_state() for g in self._draws]}

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the fits that gave this state."""
        super().load(state)
        for generator, content in zip(self._draws, state["draws"], strict=True):
            generator.set_state(content)


class GpDip(Fits):
    """What Cheng et al. ran: a fit by Adam, with noise on the 4-D parameters after every step."""

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        seeds: Sequence[int],
        settings: FitSettings,
        noise: float,
    ) -> None:
        super().__init__(prior, task, seeds, settings, "gp-dip")
        self._deviation = noise
        self._kernels = [leaf for leaf in self.leaves.values() if leaf.dim() == 5]
        if not self._kernels:
            raise InvalidInputError(
                f"{prior} has no 4-D parameter, and the published code adds noise to no other: "
                "use sampling.sample"
            )

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Take a step of Adam, then add the noise."""
        super().step(losses, images)
        with torch.no_grad():
            for leaf in self._kernels:
                for chain, generator in zip(leaf, self._draws, strict=True):
                    noise = torch.empty_like(chain).normal_(generator=generator)
                    chain.add_(noise, alpha=self._deviation)


class Iterates(Fits):
    """A fit whose parameters are averaged after burn-in."""

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        seeds: Sequence[int],
        settings: FitSettings,
        burn_in: int,
    ) -> None:
        super().__init__(prior, task, seeds, settings)
        self._burn_in = burn_in
        self.mean = zeros_like(self.leaves)

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Average the parameters that made these images, then take a step."""
        if (count := self.iteration - self._burn_in) > 0:
            for key, leaf in self.leaves.items():
                self.mean[key] += (leaf.detach() - self.mean[key]) / count
        super().step(losses, images)

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        return {**super().state(), "mean": self.mean}

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the fits that gave this state."""
        super().load(state)
        self.mean = {key: value.to(self.prior.device) for key, value in state["mean"].items()}


@dataclass(frozen=True)
class DescentRun:
    """Runs a descent as chains: attributes, checkpoint, dataset."""

    method: str
    counts: ChainSettings
    longer: tuple[str, ...]
    of_draws: bool = False

    def __call__(
        self,
        descent: Fits,
        attributes: dict[str, Any],
        checkpoint: str | Path | None,
        *,
        progress: bool,
    ) -> xr.Dataset:
        """Run the descent, or what a checkpoint has left of it."""
        prior, task, counts = descent.prior, descent.tasks[0], self.counts
        attributes = {
            **attributes,
            "learning_rate": descent.rates[0],
            "method": self.method,
            "noise_sigma": task.noise_sigma / task.peak,
            "chains": counts.chains,
            "seed": counts.seed,
        }
        chains = Chains(
            descent, make_collector(task, counts, of_draws=self.of_draws), counts.iterations
        )
        saver = state = None
        if checkpoint is not None:
            identity = {k: v for k, v in attributes.items() if k not in self.longer}
            saver = Saver(Path(checkpoint), {**identity, **describe_run(prior, task)}, "chains")
            state = saver.load()
        resume(chains, state, checkpoint)
        label = f"{prior.name}: {self.method}" + f" x {counts.chains}" * (counts.chains > 1)
        status = chains.run(label, saver, progress=progress)
        result = finish(chains, prior, task, status, attributes)
        if descent.settings.backtracking is None:
            return result
        return result.assign(rollbacks=("chain", descent.rollbacks.cpu().numpy()))


def fit_settings(
    options: dict[str, Any], iterations: int, also: tuple[str, ...] = ()
) -> FitSettings:
    """Make the settings of a fit that is watched as a chain."""
    if unknown := sorted(options.keys() - {*OPTIONS, *also}):
        raise InvalidInputError(
            f"{', '.join(unknown)} can't be chosen here; what can be of a fit: {', '.join(OPTIONS)}"
        )
    if options.get("optimiser") == "l-bfgs":
        raise InvalidInputError(
            "optimiser 'l-bfgs' searches along lines of one fixed objective, and here it is "
            "another at every iteration: use 'adam', 'sgd' or 'gradient-descent'"
        )
    return FitSettings(**options, iterations=iterations)
