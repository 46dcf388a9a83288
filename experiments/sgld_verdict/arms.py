"""What is run: Cheng et al.'s recipe, the parts of it, and chains whose target is known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels import images, networks, tasks
from dipkernels.base.seeds import derive
from dipkernels.fitting import FitSettings
from dipkernels.images.metrics import mse_to_psnr
from dipkernels.priors.prior import ImagePrior
from dipkernels.sampling import ChainSettings
from dipkernels.sampling.descents import GpDip
from dipkernels.sampling.langevin import Langevin
from dipkernels.sampling.posterior import WeightPosterior
from dipkernels.tasks import Task

LEARNING_RATE = 0.01  # these are the published ones
WEIGHT_DECAY = 5e-8
INPUT_NOISE = 1 / 30
BACKTRACKING = 5.0
DECAY = 0.99  # of the moving average
NORMS_EVERY = 25  # iterations from one look at the norm of the weights to the next


@dataclass(frozen=True)
class Arm:
    """Which parts of the recipe are on; ``weight_noise`` is in units of the learning rate."""

    input_noise: bool = False
    weight_decay: bool = False
    weight_noise: float = 0.0
    backtracking: bool = False
    hold_norms: bool = False
    optimiser: str = "adam"


RECIPE = Arm(input_noise=True, weight_decay=True, weight_noise=2.0, backtracking=True)
ARMS = {
    "sgd": Arm(),
    "sgd+wd": Arm(weight_decay=True),
    "sgd+input": Arm(input_noise=True),
    "sgd+input+wd": Arm(input_noise=True, weight_decay=True),
    "recipe": RECIPE,
    "recipe-input": Arm(weight_decay=True, weight_noise=2.0, backtracking=True),
    "recipe-wd": Arm(input_noise=True, weight_noise=2.0, backtracking=True),
    "recipe-backtracking": Arm(input_noise=True, weight_decay=True, weight_noise=2.0),
    "recipe, noise/10": Arm(True, True, 0.2, True),
    "recipe, norms held": Arm(True, True, 2.0, True, hold_norms=True),
    "recipe, noise/10, norms held": Arm(True, True, 0.2, True, hold_norms=True),
    "recipe-adam": Arm(True, True, 2.0, True, optimiser="gradient-descent"),
}


@dataclass(frozen=True)
class Network:
    """A SkipNet, and the size of the images."""

    size: int
    width: int
    scales: int
    code_channels: int

    def prior(self, channels: int, device: torch.device) -> ImagePrior:
        """Make the prior; the code is the same for all seeds."""
        return networks.create(
            "skip",
            image_size=self.size,
            channels=channels,
            width=self.width,
            scales=self.scales,
            code_channels=self.code_channels,
        ).to(device=device)


def denoising(name: str, size: int) -> Task:
    """Noise of 25/255, clipped, as published."""
    return tasks.denoise(images.load(name, size=size), clip=True)


class Recipe(GpDip):
    """The published chain, parts of which may be off; the norms of kernels may be held.

    Where they are held, each tensor of four axes is scaled back after every step to the norm that
    it had at initialisation. A convolution that is normalised afterwards makes the same image at
    any norm, so that this changes how far noise and step turn it, not what it can make.
    """

    def __init__(self, prior: ImagePrior, task: Task, seed: int, arm: Arm, iterations: int) -> None:
        adam = arm.optimiser == "adam"
        settings = FitSettings(
            optimiser=arm.optimiser,
            learning_rate=LEARNING_RATE if adam else None,
            weight_decay=WEIGHT_DECAY * arm.weight_decay,
            input_noise=INPUT_NOISE * arm.input_noise,
            backtracking=BACKTRACKING if arm.backtracking else None,
            iterations=iterations,
        )
        super().__init__(prior, task, [seed], settings, noise=arm.weight_noise * LEARNING_RATE)
        self.kernels = self._kernels
        if not arm.weight_noise:
            self._kernels = []  # they get none
        self._held = [leaf.detach().norm() for leaf in self.kernels] if arm.hold_norms else []

    def step(self, losses: Tensor, images: Tensor) -> None:
        """Take a step, then scale kernels back where their norms are held."""
        super().step(losses, images)
        with torch.no_grad():
            for leaf, norm in zip(self.kernels, self._held, strict=False):
                leaf.mul_(norm / leaf.norm())

    def norm(self) -> Tensor:
        """Root of the summed squares of all tensors of four axes."""
        return torch.stack([leaf.detach().square().sum() for leaf in self.kernels]).sum().sqrt()


class Scores:
    """PSNR of the image, of its moving average and of the mean of the draws, as `gp_dip` has it."""

    NAMES = ("iterate", "moving", "average")

    def __init__(self, task: Task, burn_in: int, thin: int, *, pasted: bool = False) -> None:
        self.task, self.burn_in, self.thin, self.pasted = task, burn_in, thin, pasted
        self.moving = self.mean = torch.zeros(0)
        self.rows: list[Tensor] = []

    def add(self, image: Tensor) -> None:
        """Take the image of one more iteration."""
        count = len(self.rows)
        self.moving = image if count == 0 else DECAY * self.moving + (1 - DECAY) * image
        draws, rest = divmod(count - self.burn_in, self.thin)
        if draws == 1 and rest == 0:
            self.mean = image
        elif draws > 1 and rest == 0:
            self.mean = self.mean + (image - self.mean) / draws
        averaged = self.mean if draws > 0 else torch.full_like(image, math.nan)
        self.rows.append(self.psnr(torch.stack([image, self.moving, averaged])))

    def psnr(self, pictures: Tensor) -> Tensor:
        """Over the whole image; with the known pixels put back where that is asked for."""
        errors = pictures - self.task.clean
        errors = errors * ~self.task.measured if self.pasted else errors
        return mse_to_psnr(errors.square().mean(dim=(1, 2, 3)))


def run_arm(
    prior: ImagePrior, task: Task, arm: Arm, seed: int, iterations: int, burn_in: int, thin: int
) -> xr.Dataset:
    """Follow one run: scores of every iteration, norm of its kernels, what was rolled back."""
    task = task.to(device=prior.device, dtype=prior.dtype)
    dynamics = Recipe(prior, task, seed, arm, iterations)
    masked = not bool(task.counted.all())  # then known pixels can be put back
    scores = [Scores(task, burn_in, thin)] + [Scores(task, burn_in, thin, pasted=True)] * masked
    losses, norms = [], torch.full((iterations,), math.nan)
    for i in range(iterations):
        loss, image = dynamics.evaluate()
        for each in scores:
            each.add(image.detach()[0])
        losses.append(loss.detach()[0])
        if i % NORMS_EVERY == 0:
            norms[i] = dynamics.norm()
        dynamics.step(loss, image)
    found = {}
    for prefix, each in zip(("", "pasted_"), scores, strict=False):
        table = torch.stack(each.rows).cpu().numpy()
        for column, name in enumerate(Scores.NAMES):
            found[prefix + name] = ("iteration", table[:, column], {"units": "dB"})
    found["loss"] = ("iteration", torch.stack(losses).cpu().numpy())
    found["norm"] = ("iteration", norms.numpy())
    attributes = {"seed": seed, "rollbacks": int(dynamics.rollbacks.sum()), "burn_in": burn_in}
    attributes["thin"] = thin
    return xr.Dataset(found, {"iteration": np.arange(iterations)}, attributes)


class NoisyLangevin(Langevin):
    """Langevin dynamics where every step sees the code with new noise.

    The target is that of the potential averaged over this noise; a step's gradient is an unbiased
    estimate of its gradient, as in SGLD proper, and its own noise is not taken off.
    """

    def __init__(
        self, posterior: WeightPosterior, settings: ChainSettings, start: dict, seeds: Sequence
    ):
        super().__init__(posterior, settings, start, seeds)
        device = posterior.prior.device
        streams = [derive("input-noise", seed) for seed in seeds]
        self._codes = [torch.Generator(device=device).manual_seed(s) for s in streams]

    def evaluate(self) -> tuple[Tensor, Tensor]:
        """Run the network on the perturbed code."""
        prior = self.posterior.prior
        found = []
        for index, generator in enumerate(self._codes):
            noise = torch.empty_like(prior.code).normal_(generator=generator)
            leaves = {key: leaf[index] for key, leaf in self.leaves.items()}
            found.append(prior.image(leaves, prior.code + INPUT_NOISE * noise))
        pictures = torch.stack(found)
        return self.posterior.task.misfit(pictures), pictures
