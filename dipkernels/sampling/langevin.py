"""What moves the chains: a sampler on a stated target."""

import logging
import statistics
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from dipkernels.base.seeds import derive
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.descent import BATCHING_DEVICES
from dipkernels.fitting.loop import Moved
from dipkernels.priors.prior import Parameters
from dipkernels.sampling.posterior import WeightPosterior, potentials
from dipkernels.sampling.settings import ChainSettings, step_factor
from dipkernels.sampling.steps import SAMPLERS, StepState
from dipkernels.sampling.summaries import TEMPERATURE

logger = logging.getLogger(__name__)

# Up to so many parameters, one batched evaluation beats one after another on a CPU, too.
FEW_PARAMETERS = 20_000
# Where the curvature grows faster than a chain can follow, the step that its start allows throws it
# out at once: within so many iterations its misfit is so many times that at its start, or noise's.
WATCHED = (51, 101)
LEFT = 10.0
RETREATS = 3  # at most, each to a tenth of the step


@runtime_checkable
class Transition(Moved, Protocol):
    """What moves chains on from one image to the next."""

    def weight(self) -> float:
        """Weight of the present images in averages over a chain."""

    def watched(self) -> dict[str, Tensor]:
        """Give what is kept of the chains besides their images, a number for each."""

    def found(self) -> dict[str, Any]:
        """Attributes that became known while running."""

    def retreats(self, losses: Tensor) -> bool:
        """Start anew if the losses ``(iterations, chains)`` so far say so, and tell whether."""


class Langevin:
    """A sampler that moves chains on a `WeightPosterior`.

    Where the step is chosen, not given, chains that leave their starts upward all start anew with a
    tenth of the step: of the first, or, if they left after the step was chosen, of that one.
    """

    def __init__(
        self,
        posterior: WeightPosterior,
        settings: ChainSettings,
        start: Parameters,
        seeds: Sequence[int],
        warm_up: int = 0,
    ) -> None:
        self._first_step, self._warm_up = settings.step_size or 0.0, warm_up
        self.posterior, self.settings = posterior, settings
        self._start, self._seeds = start, seeds
        self._retreats = {"first_step": 0, "chosen_step": 0}  # from a step, and from the next one
        self._stuck = False  # whether a chain has come to where nothing moves it
        self._begin()
        device = posterior.prior.device
        few = posterior.prior.parameter_count <= FEW_PARAMETERS
        self._batched = settings.chains > 1 and (few or device.type in BATCHING_DEVICES)

    def _begin(self) -> None:
        self.iteration, self.step_size = 0, self._first_step / 10 ** self._retreats["first_step"]
        self.leaves = {k: v.detach().clone().requires_grad_() for k, v in self._start.items()}
        device = self.posterior.prior.device
        self._generators = make_generators("langevin", self._seeds, device)
        self._memory: Parameters = {}

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Run the network."""
        prior = self.posterior.prior
        if self._batched:
            images = prior.images(self.leaves)
        else:
            slices = [leaf.unbind() for leaf in self.leaves.values()]
            each = [dict(zip(self.leaves, v, strict=True)) for v in zip(*slices, strict=True)]
            images = torch.stack([prior.image(leaves) for leaves in each])
        return self.posterior.task.misfit(images), images

    def weight(self) -> float:
        """Weight of the present images in averages: the step that is taken from them."""
        return self._factor(self.iteration)

    def _factor(self, iteration: int) -> float:
        s = self.settings
        return step_factor(s.schedule, iteration, s.iterations, s.cycles or 1)

    def watched(self) -> dict[str, Tensor]:
        """Temperature of the velocities, if there are any: that of the target for a small step."""
        if not SAMPLERS[self.settings.method].takes_friction:
            return {}
        velocities = self._memory or {
            "none": next(iter(self.leaves.values())).new_zeros(self.settings.chains, 1)
        }
        scales = self.posterior.scales
        squares = [
            (v.reshape(len(v), -1) / scales.get(key, 1.0)).square().sum(dim=1)
            for key, v in velocities.items()
        ]
        # e T / (1 - a / 2) is the variance of each, after the step that was taken last.
        step = self.step_size * self._factor(max(0, self.iteration - 1))
        undamped = 1 - (self.settings.friction or 0.0) / 2
        each = step * self.posterior.prior.parameter_count
        return {TEMPERATURE: torch.stack(squares).sum(dim=0) * undamped / each}

    def found(self) -> dict[str, Any]:
        """Give the step, which a warm-up may have changed, and how often all began anew."""
        return {"step_size": self.step_size, "retreats": sum(self._retreats.values())}

    def retreats(self, losses: Tensor) -> bool:
        """Start anew with a tenth of the step if a chain has left its start upward."""
        done = sum(self._retreats.values())
        if not self._warm_up or done == RETREATS or not (self._stuck or self._leaves(losses)):
            return False
        chosen = self.iteration > self._warm_up and not self._stuck
        key = "chosen_step" if chosen else "first_step"
        self._retreats[key] += 1
        logger.warning(
            "%s: chains leave their starts upward at step %.3g: all start anew with a tenth of it "
            "(%d of at most %d times)",
            self.posterior.prior.name,
            self.step_size,
            done + 1,
            RETREATS,
        )
        self._stuck = False
        self._begin()
        return True

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Move all chains on."""
        if self.iteration and self.iteration == self._warm_up:
            self._choose_step(losses)
        posterior, settings = self.posterior, self.settings
        densities = potentials(posterior, self.leaves, losses)
        # Chains share no parameter: the gradient of the sum is that of each.
        values = torch.autograd.grad(densities.sum(), list(self.leaves.values()))
        gradients = dict(zip(self.leaves, values, strict=True))
        w = {key: leaf.detach() for key, leaf in self.leaves.items()}
        now = StepState(
            self.step_size * self.weight(),
            posterior.temperature,
            self.iteration,
            settings.burned,
            settings.friction or 0.0,
            self._memory,
        )
        noise = self._noise()
        for key, scale in posterior.scales.items():  # a constant metric
            gradients[key] = gradients[key] * scale**2
            noise[key] *= scale
        w = SAMPLERS[settings.method].step(w, gradients, noise, now)
        self._memory = now.memory
        self.leaves = {key: value.requires_grad_() for key, value in w.items()}
        self.iteration += 1

    # Looked for now and then: it makes the host wait for the device.
    def _leaves(self, losses: Tensor) -> bool:
        looks = {*WATCHED, self._warm_up, self.settings.iterations}
        if len(losses) > WATCHED[-1] or len(losses) not in looks:
            return False
        posterior = self.posterior
        noise = posterior.temperature / posterior.task.law.scale(posterior.noise_sigma)
        return not bool((losses <= LEFT * losses[:1].clamp(min=noise)).all())

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        return {
            "parameters": {key: leaf.detach() for key, leaf in self.leaves.items()},
            "extra": self._memory,
            "step_size": self.step_size,
            "first_step": self._first_step,
            "retreats": [*self._retreats.values()],
            "stuck": self._stuck,
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
        self.iteration, self.step_size = state["iteration"], state["step_size"]
        # dipkernels 0.1 kept none of these
        self._first_step = state.get("first_step", self.step_size)
        self._retreats = dict(zip(self._retreats, state.get("retreats", (0, 0)), strict=True))
        self._stuck = state.get("stuck", False)

    # Where chains have come to: at their starts the curvature is less, or more.
    def _choose_step(self, losses: Tensor) -> None:
        going = losses.isfinite()
        if going.any():
            leaves = {key: leaf.detach()[going] for key, leaf in self.leaves.items()}
            share = SAMPLERS[self.settings.method].share
            try:
                step = stable_step(self.posterior, leaves, share)
            except (InvalidInputError, DivergenceError):  # where nothing moves the image
                if sum(self._retreats.values()) == RETREATS:
                    raise
                self._stuck = True
                return
            step /= 10 ** self._retreats["chosen_step"]
            if self._warm_up <= WATCHED[-1] and self._retreats["first_step"]:
                step = min(step, self.step_size)  # chains aren't far from where a larger one failed
            self.step_size = step
            logger.info("step %.4g after %d iterations", self.step_size, self.iteration)

    # Each chain from a generator of its own, so that chains don't depend on their number.
    def _noise(self) -> Parameters:
        found = {}
        for key, leaf in self.leaves.items():
            empty = torch.empty_like(leaf, requires_grad=False)
            for chain, generator in zip(empty, self._generators, strict=True):
                chain.normal_(generator=generator)
            found[key] = empty
        return found


def stable_step(posterior: WeightPosterior, chains: Parameters, share: float) -> float:
    """Choose a step by the mean curvature over chains: that of one fluctuates severalfold."""
    count = len(next(iter(chains.values())))
    each = ({key: value[i] for key, value in chains.items()} for i in range(count))
    return statistics.harmonic_mean(posterior.stable_step(w, share=share) for w in each)


def make_generators(
    stream: str, seeds: Sequence[int], device: torch.device
) -> list[torch.Generator]:
    """Give each chain random numbers of its own."""
    return [torch.Generator(device=device).manual_seed(derive(stream, seed)) for seed in seeds]
