"""What moves the chains: a sampler on a stated target."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.func import vmap

from dipkernels.base.seeds import derive
from dipkernels.fitting.descent import BATCHING_DEVICES
from dipkernels.fitting.loop import Moved
from dipkernels.priors.prior import Parameters
from dipkernels.sampling.posterior import WeightPosterior
from dipkernels.sampling.settings import ChainSettings, step_factor
from dipkernels.sampling.steps import SAMPLERS, StepState

# Up to so many parameters, one batched evaluation beats one after another on a CPU, too.
FEW_PARAMETERS = 20_000


@runtime_checkable
class Transition(Moved, Protocol):
    """What moves chains on from one image to the next."""

    def weight(self) -> float:
        """Weight of the present images in averages over a chain."""


class Langevin:
    """A sampler that moves chains on a `WeightPosterior`."""

    def __init__(
        self,
        posterior: WeightPosterior,
        settings: ChainSettings,
        start: Parameters,
        seeds: Sequence[int],
    ) -> None:
        self.posterior, self.settings = posterior, settings
        self.iteration = 0
        self.leaves = {k: v.detach().clone().requires_grad_() for k, v in start.items()}
        device = posterior.prior.device
        self._generators = make_generators("langevin", seeds, device)
        self._memory: Parameters = {}
        few = posterior.prior.parameter_count <= FEW_PARAMETERS
        self._batched = settings.chains > 1 and (few or device.type in BATCHING_DEVICES)

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Run the network."""
        image = self.posterior.prior.image
        if self._batched:
            images = vmap(image)(self.leaves)
        else:
            slices = [leaf.unbind() for leaf in self.leaves.values()]
            each = [dict(zip(self.leaves, v, strict=True)) for v in zip(*slices, strict=True)]
            images = torch.stack([image(leaves) for leaves in each])
        return self.posterior.task.misfit(images), images

    def weight(self) -> float:
        """Weight of the present images in averages: the step that is taken from them."""
        s = self.settings
        return step_factor(s.schedule, self.iteration, s.iterations, s.cycles or 1)

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Move all chains on."""
        posterior, settings = self.posterior, self.settings
        potentials = posterior.potentials(self.leaves, losses)
        # Chains share no parameter: the gradient of the sum is that of each.
        values = torch.autograd.grad(potentials.sum(), list(self.leaves.values()))
        gradients = dict(zip(self.leaves, values, strict=True))
        w = {key: leaf.detach() for key, leaf in self.leaves.items()}
        now = StepState(
            (settings.step_size or 0.0) * self.weight(),
            posterior.temperature,
            self.iteration,
            settings.burned,
            settings.friction or 0.0,
            self._memory,
        )
        w = SAMPLERS[settings.method].step(w, gradients, self._noise(), now)
        self._memory = now.memory
        self.leaves = {key: value.requires_grad_() for key, value in w.items()}
        self.iteration += 1

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        return {
            "parameters": {key: leaf.detach() for key, leaf in self.leaves.items()},
            "extra": self._memory,
            "generators": [generator.get_state() for generator in self._generators],
            "iteration": self.iteration,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the chains that gave this state."""
        device = self.posterior.prior.device
        self.leaves = {k: v.to(device).requires_grad_() for k, v in state["parameters"].items()}
        self._memory = {key: value.to(device) for key, value in state["extra"].items()}
        for generator, content in zip(self._generators, state["generators"], strict=True):
            generator.set_state(content)
        self.iteration = state["iteration"]

    # Each chain from a generator of its own, so that chains don't depend on their number.
    def _noise(self) -> Parameters:
        found = {}
        for key, leaf in self.leaves.items():
            empty = torch.empty_like(leaf, requires_grad=False)
            for chain, generator in zip(empty, self._generators, strict=True):
                chain.normal_(generator=generator)
            found[key] = empty
        return found


def make_generators(
    stream: str, seeds: Sequence[int], device: torch.device
) -> list[torch.Generator]:
    """Give each chain random numbers of its own."""
    return [torch.Generator(device=device).manual_seed(derive(stream, seed)) for seed in seeds]
