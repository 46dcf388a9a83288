"""Fits in step: one evaluation of the network, then one step of the optimiser, for all runs."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.checkpoint import PARAMETERS
from dipkernels.fitting.optimisers import default_learning_rate, make_optimiser
from dipkernels.fitting.regularisers import half_squared_norms, total_variation
from dipkernels.fitting.schedules import learning_rate_factor
from dipkernels.fitting.settings import OPTIMISERS, FitSettings
from dipkernels.priors.linearised import linearised_image
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.priors.tangents import Tangents
from dipkernels.tasks import Task

# Where one batched evaluation of all runs beats one after another: a CPU is busy with one, and
# took up to 1.5 times as long for a batch.
BATCHING_DEVICES = ("cuda",)


class Descent:
    """Runs of one network on several tasks from several initialisations, fitted together.

    Every tensor of a run is a slice of one with a leading axis over runs (task by task, and seed
    by seed within a task): parameters, images, losses. The runs share nothing, so that together
    they give what they give apart, up to rounding.
    """

    def __init__(
        self,
        prior: ImagePrior,
        tasks: Sequence[Task],
        seeds: Sequence[int],
        settings: FitSettings,
        rates: list[float] | None = None,
        twins: Sequence[Task] = (),
    ) -> None:
        self.prior, self.seeds, self.settings = prior, list(seeds), settings
        # Twins are tasks whose runs a monitor looks at, and nobody else.
        self.tasks, self._twins = [*tasks, *twins], len(twins)
        self.iteration = 0
        self.rates = rates or self._learning_rates()
        self.leaves = self._initial_leaves()
        self._stepper = make_optimiser(settings, self.leaves, max(self.rates))
        self._group_rates = [group["lr"] for group in self._stepper.param_groups]
        # One optimiser steps all runs: a smaller rate of one is a smaller gradient of it.
        shares = [rate / max(self.rates) for rate in self.rates] * len(self.tasks)
        self._relative = torch.tensor(shares, device=prior.device, dtype=prior.dtype)
        self._generators = self._noise_generators()
        # Where this iteration is evaluated: the generators before its noise was drawn.
        self._before: list[Tensor] = []
        self._accepted: dict[str, Tensor] = {}
        self._accepted_mse: Tensor | None = None
        self.rollbacks = torch.zeros(self.runs, dtype=torch.int64, device=prior.device)
        self._code = _in_layout(prior.code) if settings.channels_last else prior.code
        self.batched = self.runs > 1 and prior.device.type in BATCHING_DEVICES
        self._network = self._make_network()
        # Where each run's network was linearised last, and its derivatives there once asked for.
        self._origins: Parameters = {}
        self._tangents: list[Tangents] = []

    @property
    def runs(self) -> int:
        """Number of runs."""
        return len(self.tasks) * len(self.seeds)

    @property
    def own_runs(self) -> int:
        """Number of runs without those of twins, which come last."""
        return self.runs - self._twins * len(self.seeds)

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs to continue bit by bit."""
        leaves, own = self.leaves.items(), self.own_runs
        beside = {"twins": {key: leaf.detach()[own:] for key, leaf in leaves}}
        return {
            PARAMETERS: {key: leaf.detach()[:own] for key, leaf in leaves},
            **(beside if self._twins else {}),
            **({"origins": self._origins} if self._origins else {}),
            "optimiser": self._stepper.state_dict()["state"],
            **self._own_groups(),
            "rates": self.rates,
            "iteration": self.iteration,
            # A finished fit that is extended evaluates its last iteration once more.
            "generators": self._before or [g.get_state() for g in self._generators],
            "accepted": self._accepted,
            "accepted_mse": self._accepted_mse,
            "rollbacks": self.rollbacks,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take the place of the descent that gave this state."""
        leaves = list(self.leaves.values())
        for key, value in state[PARAMETERS].items():
            leaf = self.leaves[key].data
            leaf[: self.own_runs].copy_(value)
            if self._twins:
                leaf[self.own_runs :].copy_(state["twins"][key])
        here = {key: value.to(self.prior.device) for key, value in state.get("origins", {}).items()}
        self._origins, self._tangents = here, []
        groups = self._stepper.state_dict()["param_groups"]
        for fresh, kept in zip(groups, state.get("groups", groups), strict=True):
            # a tuple comes back as a list
            fresh |= {
                k: tuple(v) if isinstance(fresh.get(k), tuple) else v for k, v in kept.items()
            }
        # Tensors in the layout that a step would have given them.
        moments = {
            index: {key: _like_leaf(value, leaves[index]) for key, value in content.items()}
            for index, content in state["optimiser"].items()
        }
        self._stepper.load_state_dict({"state": moments, "param_groups": groups})
        self.iteration, self._before = state["iteration"], []
        if len(state["generators"]) < len(self._generators):
            raise InvalidInputError(
                "this checkpoint has lost where its input noise stood (dipkernels 0.1 wrote it so "
                "when a finished fit was run once more): remove it to start afresh"
            )
        for generator, content in zip(self._generators, state["generators"], strict=True):
            generator.set_state(content)
        device = self.prior.device
        self._accepted = {
            key: _like_leaf(value.to(device), self.leaves[key])
            for key, value in state["accepted"].items()
        }
        mse = state["accepted_mse"]
        self._accepted_mse = None if mse is None else mse.to(device)
        self.rollbacks = state["rollbacks"].to(device)

    # Optimisers of one's own may count there, too.
    def _own_groups(self) -> dict[str, Any]:
        if OPTIMISERS[self.settings.optimiser] is None:
            return {}
        kept = (bool, int, float, str, list, tuple, Tensor)
        groups = self._stepper.state_dict()["param_groups"]
        return {"groups": [{k: v for k, v in g.items() if isinstance(v, kept)} for g in groups]}

    def _learning_rates(self) -> list[float]:
        given, name = self.settings.learning_rate, self.settings.optimiser
        if given is not None:
            return [given] * len(self.seeds)
        if name not in ("sgd", "gradient-descent"):
            return [default_learning_rate(name, self.prior, {})] * len(self.seeds)
        inits = (self.prior.start(seed) for seed in self.seeds)
        # one rate for all images: masks don't change it, other operators may
        own = self.tasks[: len(self.tasks) - self._twins]
        tasks = [t for t in own if t.operator.mask is None] or own[:1]
        return [
            min(default_learning_rate(name, self.prior, parameters, task) for task in tasks)
            for parameters in inits
        ]

    def _initial_leaves(self) -> Parameters:
        starts = [self.prior.start(seed) for seed in self.seeds]
        leaves = {}
        for key in self.prior.parameter_shapes:
            value = torch.stack([start[key] for start in starts])
            leaf = value.repeat(len(self.tasks), *[1] * (value.dim() - 1))
            if self.settings.channels_last and leaf.dim() == 5:
                leaf = leaf[0].contiguous(memory_format=torch.channels_last)[None]
            leaves[key] = leaf.requires_grad_()
        return leaves

    def _noise_generators(self) -> list[torch.Generator]:
        if not self.settings.input_noise:
            return []
        # On the device: at full image size a transfer would take longer than the step.
        device = self.prior.device
        streams = [derive("input-noise", seed) for seed in self.seeds]
        return [torch.Generator(device=device).manual_seed(stream) for stream in streams]

    def _make_network(self) -> Callable[[Parameters, Any], Tensor]:
        prior, noisy = self.prior, bool(self._generators)

        def network(leaves: Parameters, code: Any) -> Tensor:
            if self.batched:
                return prior.images(leaves, code if noisy else None)
            # Views of each run's parameters, whose gradients are stacked in one go.
            slices = [leaf.unbind() for leaf in leaves.values()]
            codes = code.unbind() if noisy else [code] * self.runs
            images = [
                prior.image(dict(zip(leaves, values, strict=True)), each)
                for *values, each in zip(*slices, codes, strict=True)
            ]
            return torch.stack(images)

        if self.settings.compile is None:
            return network
        compiled: Callable[[Parameters, Any], Tensor] = torch.compile(
            network, mode=self.settings.compile
        )
        return compiled

    def _perturbed_code(self) -> Any:
        if not self._generators:
            return self._code
        self._before = [generator.get_state() for generator in self._generators]
        draws = [torch.empty_like(self._code).normal_(generator=g) for g in self._generators]
        codes = [self._code + self.settings.input_noise * draw for draw in draws]
        return torch.stack(codes * len(self.tasks))

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Run the network: misfits ``(runs,)`` and images ``(runs, channels, *spatial)``."""
        if self.iteration % (self.settings.relinearise or 1):
            images = self._linearised()
        else:
            with _autocast(self.settings.precision, self.prior.device):
                images = self._network(self._weights(), self._perturbed_code())
            self._linearise_here()
        images = images.to(self.prior.dtype)
        parts = images.split(len(self.seeds))
        misfits = [task.misfit(part) for task, part in zip(self.tasks, parts, strict=True)]
        return misfits[0] if len(misfits) == 1 else torch.cat(misfits), images

    # Where a network is linearised it has the image and the gradient of its linearisation: the
    # derivative is needed from the next step on.
    def _linearise_here(self) -> None:
        if (self.settings.relinearise or 1) > 1:
            self._origins = {key: leaf.detach().clone() for key, leaf in self.leaves.items()}
            self._tangents = []

    def _linearised(self) -> Tensor:
        for run in range(len(self._tangents), self.runs):
            at = {key: origin[run] for key, origin in self._origins.items()}
            self._tangents.append(Tangents(self.prior.image, at, chunk=1, traced=False))
        slices = [leaf.unbind() for leaf in self.leaves.values()]
        images = [
            linearised_image(tangents, dict(zip(self.leaves, values, strict=True)))
            for tangents, *values in zip(self._tangents, *slices, strict=True)
        ]
        return torch.stack(images)

    # The parameters that make the images.
    def _weights(self) -> Parameters:
        return self.leaves

    # What is descended: the sum over runs, which share no parameter.
    def _objective(self, losses: Tensor, images: Tensor) -> Tensor:
        settings = self.settings
        if settings.total_variation_weight:
            dims = images.dim() - 2
            variation = total_variation(images, settings.total_variation_kind, spatial_dims=dims)
            losses = losses + settings.total_variation_weight * variation
        if settings.weight_decay:
            losses = losses + settings.weight_decay * half_squared_norms(self.leaves)
        return (losses * self._relative).sum()

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Take a step of the optimiser from what `evaluate` gave, and count it."""
        objective = self._objective(losses, images)
        objective.backward()
        if self.settings.optimiser == "l-bfgs":
            self._search(objective.detach())
        else:
            self._descend_gradient(losses.detach())
        for leaf in self.leaves.values():  # here, so that no gradient lives beside the next pass
            leaf.grad = None
        self._before = []
        self.iteration += 1

    def _descend_gradient(self, losses: Tensor) -> None:
        settings = self.settings
        if settings.backtracking is not None:
            self._roll_back(losses, settings.backtracking)
        if settings.gradient_clip is not None:
            self._clip(settings.gradient_clip)
        if settings.schedule != "constant":
            factor = learning_rate_factor(settings.schedule, self.iteration, settings.iterations)
            for group, rate in zip(self._stepper.param_groups, self._group_rates, strict=True):
                group["lr"] = rate * factor
        self._stepper.step()

    # L-BFGS asks for the objective again and again; the first answer is there already.
    def _search(self, objective: Tensor) -> None:
        answers = [objective]

        def closure() -> Tensor:
            if answers:
                return answers.pop()
            self._stepper.zero_grad()
            again = self._objective(*self.evaluate())
            again.backward()
            return again.detach()

        self._stepper.step(closure)  # type: ignore[arg-type]  # torch says float, means Tensor

    # Ulyanov et al.: where the fit has suddenly become worse, the step is taken from the last
    # parameters that were accepted, with the gradient of the bad ones.
    def _roll_back(self, mse: Tensor, decibels: float) -> None:
        if self._accepted_mse is None:
            self._accepted_mse = mse.clone()
            self._accepted = {key: leaf.detach().clone() for key, leaf in self.leaves.items()}
            return
        # in absolute value: one's own misfit may be negative
        allowed = (10 ** (decibels / 10) - 1) * self._accepted_mse.abs()
        fallen = ~(mse <= self._accepted_mse + allowed)  # NaN has fallen, too
        self._accepted_mse = torch.where(fallen, self._accepted_mse, mse)
        self.rollbacks += fallen
        for key, leaf in self.leaves.items():
            choose = fallen.reshape(-1, *[1] * (leaf.dim() - 1))
            self._accepted[key].copy_(torch.where(choose, self._accepted[key], leaf.detach()))
            leaf.data.copy_(self._accepted[key])

    # To a Euclidean norm, over all parameters of a run.
    def _clip(self, largest: float) -> None:
        gradients = [leaf.grad for leaf in self.leaves.values() if leaf.grad is not None]
        squares = [g.reshape(len(g), -1).square().sum(dim=1) for g in gradients]
        norms = torch.stack(squares).sum(dim=0).sqrt() / self._relative
        factors = (largest / norms).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(factors.reshape(-1, *[1] * (gradient.dim() - 1)))


def _in_layout(tensor: Tensor) -> Tensor:
    return tensor.contiguous(memory_format=torch.channels_last)


# A value of the optimiser's state; those of the leaf's shape take its memory layout.
def _like_leaf(value: Any, leaf: Tensor) -> Any:
    if isinstance(value, Tensor) and value.shape == leaf.shape:
        return torch.empty_like(leaf, requires_grad=False).copy_(value)
    return value


def _autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    if precision != "bf16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
