"""What moves the chains: Langevin dynamics on a stated target, and what Cheng et al. ran."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.func import vmap

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.engine import BATCHING_DEVICES, Engine
from dipkernels.fitting.record import Record
from dipkernels.fitting.settings import FitSettings
from dipkernels.networks.prior import ImagePrior, Parameters
from dipkernels.sampling.settings import ChainSettings
from dipkernels.sampling.steps import (
    psgld_step,
    sghmc_step,
    sgld_step,
    step_factor,
    update_mean_squares,
    zeros_like,
)
from dipkernels.sampling.target import Posterior
from dipkernels.seeds import derive
from dipkernels.tasks import Task

# Up to so many parameters, one batched evaluation beats one after another on a CPU, too.
FEW_PARAMETERS = 20_000


@runtime_checkable
class Dynamics(Protocol):
    """Chains in step, as `dipkernels.sampling.run` drives them."""

    iteration: int

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Return misfits ``(chains,)`` and images ``(chains, channels, *spatial)``."""

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Move all chains on."""

    def weight(self) -> float:
        """Weight of the present images in averages over a chain."""

    def state(self) -> dict[str, Any]:
        """Return everything that `load` needs to continue bit by bit."""

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the dynamics that gave this state."""


class Langevin:
    """SGLD, preconditioned SGLD and SGHMC on a `Posterior`.

    Parameters
    ----------
    posterior : Posterior
        The target.
    settings : ChainSettings
        Resolved.
    start : dict of str to Tensor
        Each of shape ``(chains, ...)``.
    seeds : sequence of int
        Of the noise of each chain.
    """

    def __init__(
        self,
        posterior: Posterior,
        settings: ChainSettings,
        start: Parameters,
        seeds: Sequence[int],
    ) -> None:
        self.posterior, self.settings = posterior, settings
        self.iteration = 0
        self.leaves = {k: v.detach().clone().requires_grad_() for k, v in start.items()}
        device = posterior.prior.device
        self._generators = _generators("langevin", seeds, device)
        # Velocities of sghmc, mean squares of psgld.
        self._extra = {} if settings.method == "sgld" else zeros_like(start)
        few = posterior.prior.parameter_count <= FEW_PARAMETERS
        self._batched = settings.chains > 1 and (few or device.type in BATCHING_DEVICES)

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Run the network.

        Returns
        -------
        losses : Tensor, shape (chains,)
            Misfits.
        images : Tensor, shape (chains, channels, *spatial)
            Both with their graph.
        """
        prior = self.posterior.prior
        if self._batched:
            images = vmap(prior.image)(self.leaves)
        else:
            slices = [leaf.unbind() for leaf in self.leaves.values()]
            images = torch.stack(
                [
                    prior.image(dict(zip(self.leaves, v, strict=True)))
                    for v in zip(*slices, strict=True)
                ]
            )
        return self.posterior.task.misfit(images), images

    def weight(self) -> float:
        """Weight of the present images in averages: the step that is taken from them.

        Returns
        -------
        float
            Relative to the first step. Welling & Teh 2011.
        """
        s = self.settings
        return step_factor(s.schedule, self.iteration, s.iterations, s.cycles or 1)

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Move all chains on.

        Parameters
        ----------
        losses : Tensor, shape (chains,)
            Misfits, as `evaluate` returned them.
        images : Tensor, shape (chains, channels, *spatial)
            Likewise; their graph is used up.
        """
        posterior, settings = self.posterior, self.settings
        potentials = posterior.scale * losses + posterior.weight_prior.half_squares(self.leaves)
        # Chains share no parameter: the gradient of the sum is that of each.
        values = torch.autograd.grad(potentials.sum(), list(self.leaves.values()))
        gradients = dict(zip(self.leaves, values, strict=True))
        w = {key: leaf.detach() for key, leaf in self.leaves.items()}
        e = (settings.step_size or 0.0) * self.weight()
        T, noise = posterior.temperature, self._noise()
        if settings.method == "sgld":
            w = sgld_step(w, gradients, noise, e, T)
        elif settings.method == "psgld":
            if self.iteration == 0:
                self._extra = {key: value.square() for key, value in gradients.items()}
            elif self.iteration <= settings.burned:
                self._extra = update_mean_squares(self._extra, gradients)
            w = psgld_step(w, gradients, noise, e, T, self._extra)
        else:
            a = settings.friction or 0.0
            w, self._extra = sghmc_step(w, gradients, noise, e, T, self._extra, a)
        self.leaves = {key: value.requires_grad_() for key, value in w.items()}
        self.iteration += 1

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit.

        Returns
        -------
        dict
            Fit for a checkpoint.
        """
        return {
            "parameters": {key: leaf.detach() for key, leaf in self.leaves.items()},
            "extra": self._extra,
            "generators": [generator.get_state() for generator in self._generators],
            "iteration": self.iteration,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the dynamics that gave this state.

        Parameters
        ----------
        state : dict
            From `state`.
        """
        device = self.posterior.prior.device
        self.leaves = {k: v.to(device).requires_grad_() for k, v in state["parameters"].items()}
        self._extra = {key: value.to(device) for key, value in state["extra"].items()}
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


class GpDip(Engine):
    """What Cheng et al. ran: a fit by Adam, with noise on the 4-D parameters after every step.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    task : Task
        Of the prior's shape, on its device.
    seeds : sequence of int
        Of the chains.
    settings : FitSettings
        Of the fit.
    noise : float
        Deviation of the noise on the parameters.

    Raises
    ------
    InvalidInputError
        If no parameter has four axes, so that none would get noise.
    """

    def __init__(
        self,
        prior: ImagePrior,
        task: Task,
        seeds: Sequence[int],
        settings: FitSettings,
        noise: float,
    ) -> None:
        super().__init__(prior, [task], seeds, settings, _Unrecorded())
        self._deviation = noise
        self._kernels = [leaf for leaf in self.leaves.values() if leaf.dim() == 5]
        if not self._kernels:
            raise InvalidInputError(
                f"{prior} has no 4-D parameter, and the published code adds noise to no other: "
                "use sampling.sample"
            )
        self._weight_generators = _generators("gp-dip", seeds, prior.device)

    def weight(self) -> float:
        """Weight of the present images in averages.

        Returns
        -------
        float
            1: the rate is constant.
        """
        return 1.0

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Take a step of Adam, then add the noise.

        Parameters
        ----------
        losses : Tensor, shape (chains,)
            Misfits, as `evaluate` returned them.
        images : Tensor, shape (chains, channels, *spatial)
            Likewise; their graph is used up.
        """
        super().step(losses, images)
        with torch.no_grad():
            for leaf in self._kernels:
                for chain, generator in zip(leaf, self._weight_generators, strict=True):
                    noise = torch.empty_like(chain).normal_(generator=generator)
                    chain.add_(noise, alpha=self._deviation)
        self.iteration += 1
        self.record.iterations = self.iteration  # type: ignore[misc]

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit.

        Returns
        -------
        dict
            Fit for a checkpoint.
        """
        return {**super().state(), "weights": [g.get_state() for g in self._weight_generators]}

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the dynamics that gave this state.

        Parameters
        ----------
        state : dict
            From `state`.
        """
        super().load(state)
        self.record.iterations = self.iteration  # type: ignore[misc]
        for generator, content in zip(self._weight_generators, state["weights"], strict=True):
            generator.set_state(content)


class _Unrecorded(Record):
    """Stands for a fit's record, since chains keep their own."""

    iterations = 0  # the engine compares it; set from outside

    def __init__(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


# On the device: at full image size a transfer would take longer than the step.
def _generators(stream: str, seeds: Sequence[int], device: torch.device) -> list[torch.Generator]:
    return [torch.Generator(device=device).manual_seed(derive(stream, seed)) for seed in seeds]
