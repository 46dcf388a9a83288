"""Dropout for any network: the kernels of layers, 0 where an input channel is dropped."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.sampling.descents import Fits
from dipkernels.tasks import Task


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

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        seeds: Sequence[int],
        settings: FitSettings,
        rate: float,
        kernels: dict[str, DroppedWeights],
    ) -> None:
        super().__init__(prior, task, seeds, settings, "mc-dropout")
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
        like = next(iter(leaves.values()))
        draws = [
            torch.empty(sum(sizes), dtype=like.dtype, device=like.device).bernoulli_(
                self._kept, generator=generator
            )
            for generator in self._draws
        ]
        masks = (torch.stack(draws) / self._kept).split(sizes, dim=1)
        dropped = dict(leaves)
        for (key, kernel), mask in zip(self._kernels.items(), masks, strict=True):
            dropped[key] = leaves[key] * kernel.spread(mask, leaves[key])
        return dropped
