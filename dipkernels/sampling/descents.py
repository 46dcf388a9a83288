"""What moves the chains where no density is sampled: optimisers, with noise of some kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.descent import Descent
from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.sampling.langevin import make_generators
from dipkernels.tasks import Task


class Fits(Descent):
    """Fits of one task that are watched as chains, one from each seed."""

    method: str
    target: str
    draws_noise = of_draws = True  # besides a fit's; whether moments are those of the draws alone
    longer = "iterations"  # what there may be more of when a checkpoint is continued

    def __init__(
        self, prior: ImagePrior, task: Task, seeds: Sequence[int], settings: FitSettings
    ) -> None:
        super().__init__(prior, [task], seeds, settings)
        self._draws = make_generators(self.method, seeds, prior.device) if self.draws_noise else []

    def weight(self) -> float:
        """Weight of the present images in averages."""
        return 1.0

    def watched(self) -> dict[str, Tensor]:
        """Give what is kept of the chains besides their images."""
        return {}

    def found(self) -> dict[str, Any]:
        """Attributes that became known while running."""
        return {}

    def retreats(self, losses: Tensor) -> bool:
        """Never start anew."""
        return False

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

    method = "gp-dip"
    target = "none is known: Adam and noise of constant deviation on some parameters"

    def __init__(self, *given: Any, noise: float) -> None:
        super().__init__(*given)
        self._deviation = noise
        self._kernels = [leaf for leaf in self.leaves.values() if leaf.dim() == 5]
        if not self._kernels:
            raise InvalidInputError(
                f"{self.prior} has no 4-D parameter, and the published code adds noise to no "
                "other: use sampling.sample"
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

    method, target = "averaged", "none: iterates of an optimiser"
    draws_noise = of_draws = False

    def __init__(self, *given: Any, burn_in: int) -> None:
        super().__init__(*given)
        self._burn_in = burn_in
        if self.settings.schedule != "constant":  # then a longer fit is another one
            self.longer = ""
        self.mean = {k: torch.zeros_like(leaf.detach()) for k, leaf in self.leaves.items()}

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Average the parameters that made these images, then take a step."""
        if (count := self.iteration - self._burn_in) > 0:
            for key, leaf in self.leaves.items():
                self.mean[key] += (leaf.detach() - self.mean[key]) / count
        super().step(losses, images)

    def state(self) -> dict[str, Any]:
        """Add the averages."""
        return {**super().state(), "mean": self.mean}

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the fits that gave this state."""
        super().load(state)
        self.mean = {key: value.to(self.prior.device) for key, value in state["mean"].items()}


@dataclass(frozen=True)
class DroppedWeights:
    """Which numbers of a layer's kernel belong to which of its input channels."""

    channels: int
    groups: int = 1
    transposed: bool = False

    def spread(self, mask: Tensor, like: Tensor) -> Tensor:
        """Lay factors of channels out so that they multiply a kernel."""
        if not self.transposed:
            mask = mask.unflatten(1, (self.groups, -1))  # a row for each group's outputs
            if self.groups > 1:
                mask = mask.repeat_interleave(like.shape[1] // self.groups, dim=1)
        return mask.reshape(*mask.shape, *[1] * (like.dim() - mask.dim()))


def kernels_of(prior: ImagePrior) -> dict[str, DroppedWeights]:
    """Find the kernels of convolutions and linear maps with several input channels."""
    found = {}
    for name, module in prior.structure.named_modules():
        key = f"{name}.weight" if name else "weight"
        if key not in prior.parameter_shapes:
            continue
        if isinstance(module, nn.Linear):
            found[key] = DroppedWeights(module.in_features)
        elif isinstance(module, nn.modules.conv._ConvNd):
            found[key] = DroppedWeights(module.in_channels, module.groups, module.transposed)
    return {key: kernel for key, kernel in found.items() if kernel.channels > 1}


class Dropout(Fits):
    """Fits with dropout; after some steps they stand still, and only what is dropped changes."""

    method, longer = "mc-dropout", "draws"
    target = "none: the weights are those of a fit with inputs of layers dropped"

    def __init__(self, *given: Any, rate: float, kernels: dict[str, DroppedWeights]) -> None:
        super().__init__(*given)
        self._kernels, self._kept = kernels, 1 - rate

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Run the network with channels dropped anew."""
        with torch.set_grad_enabled(self._fitting):
            return super().evaluate()

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Take a step while the fit goes on."""
        if self._fitting:
            super().step(losses, images)
        else:
            self.iteration += 1

    @property
    def _fitting(self) -> bool:
        return self.iteration < self.settings.iterations

    # A layer that doesn't see a channel is one whose kernel is 0 there: networks stay as they are.
    def _weights(self) -> Parameters:
        leaves = self.leaves
        sizes = [kernel.channels for kernel in self._kernels.values()]
        like = next(iter(leaves.values())).detach()
        draws = [
            like.new_empty(sum(sizes)).bernoulli_(self._kept, generator=generator)
            for generator in self._draws
        ]
        masks = (torch.stack(draws) / self._kept).split(sizes, dim=1)
        dropped = dict(leaves)
        for (key, kernel), mask in zip(self._kernels.items(), masks, strict=True):
            dropped[key] = leaves[key] * kernel.spread(mask, leaves[key])
        return dropped
