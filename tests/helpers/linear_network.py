"""A network that is linear in its parameters, so that its kernel is known, and dense formulas."""

import functools
import math
from collections.abc import Iterator

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, Task, images, tasks
from dipkernels.theory import Dynamics, GradientDescent, GradientFlow, Momentum

SIZE, CHANNELS = (2, 8), 2
N = 32
SIGMA = 0.3


class LinearImage(nn.Module):
    """The image ``factor @ weights``."""

    def __init__(self, factor: Tensor, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(factor.shape[1], dtype=torch.float64) / 4)
        self.register_buffer("factor", factor)
        self.shape = shape

    def forward(self, code: Tensor) -> Tensor:
        return code * (self.factor @ self.weights).reshape(1, *self.shape)


def smooth_kernel(seed: int, length: float) -> np.ndarray:
    """Kernel of a smooth random field on the grid, times a mixing of the channels; norm 1."""
    rng = np.random.default_rng(seed)
    y, x = (axis.ravel() for axis in np.mgrid[: SIZE[0], : SIZE[1]])
    distance = np.hypot(y[:, None] - y, x[:, None] - x)
    field = (1 + distance / length) * np.exp(-distance / length)
    mixing = rng.standard_normal((CHANNELS, CHANNELS))
    kernel = np.kron(mixing @ mixing.T + 0.3 * np.eye(CHANNELS), field)
    return kernel / np.linalg.eigvalsh(kernel)[-1]


def make_prior(kernel: np.ndarray) -> ImagePrior:
    values, vectors = np.linalg.eigh(kernel)
    factor = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0)))
    shape = (CHANNELS, *SIZE)
    return ImagePrior(lambda: LinearImage(factor, shape), torch.ones(1, dtype=torch.float64))


@functools.cache
def clean_image() -> Tensor:
    return images.load("astronaut", size=SIZE)[:CHANNELS].double()


def half_mask(seed: int, shape: tuple[int, ...] = SIZE) -> Tensor:
    """Half of the pixels, so that 16 outputs are measured."""
    order = torch.randperm(math.prod(shape), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(math.prod(shape), dtype=torch.bool)
    mask[order[: len(mask) // 2]] = True
    return mask.reshape(shape)


def make_task(kind: str, sigma: float = SIGMA) -> Task:
    if kind == "denoise":
        return tasks.denoise(clean_image(), noise_sigma=sigma)
    if kind == "several":
        return tasks.several(
            [
                tasks.denoise(channel[None], noise_sigma=sigma, seed=i)
                for i, channel in enumerate(clean_image())
            ]
        )
    if kind == "held out":
        return tasks.denoise(clean_image(), noise_sigma=sigma).hold_out(0.5)
    mask = half_mask(3, SIZE if kind == "inpaint" else (CHANNELS, *SIZE))
    return tasks.inpaint(clean_image(), mask, noise_sigma=sigma)


def flat_regions(task: Task) -> dict[str, np.ndarray]:
    return {k: mask.numpy().ravel() for k, mask in task.regions.items()}


DYNAMICS = {
    "flow": GradientFlow(np.array([0.0, 0.3, 2.0, 15.0, 150.0, 4e3])),
    "descent": GradientDescent(0.9, np.array([0, 1, 2, 15, 150, 4000])),
    "overshooting": GradientDescent(1.9, np.array([0, 1, 2, 7, 80, 4000])),
    "momentum": Momentum(1.2, 0.7, np.array([0, 1, 2, 7, 80, 3000])),
    "overdamped": Momentum(0.02, 0.7, np.array([0, 1, 9, 80, 3000])),
}


def filters(kernel: np.ndarray, task: Task, dynamics: Dynamics) -> np.ndarray:
    """The linear map from the measured ``y - f_0`` to ``f - f_0``, per time."""
    measured = np.flatnonzero(task.measured.numpy().ravel())
    block = kernel[np.ix_(measured, measured)]
    out = np.zeros((len(dynamics.times), N, N))
    for i, accumulated in enumerate(_accumulated(block, dynamics)):
        out[i][:, measured] = kernel[:, measured] @ accumulated
    return out


def _accumulated(block: np.ndarray, dynamics: Dynamics) -> Iterator[np.ndarray]:
    identity = np.eye(len(block))
    if isinstance(dynamics, Momentum):
        # stepped one by one, as matrices
        total = velocity = np.zeros_like(block)
        states = [total]
        for _ in range(int(dynamics.times.max())):
            velocity = dynamics.momentum * velocity + identity - block @ total
            total = total + dynamics.step * velocity
            states.append(total)
        yield from (states[int(t)] for t in dynamics.times)
        return
    for t in dynamics.times:
        if isinstance(dynamics, GradientDescent):
            left = np.linalg.matrix_power(identity - dynamics.step * block, int(t))
        else:
            left = scipy.linalg.expm(-t * block)
        # the kernel here is well conditioned enough for an inverse (1e5)
        yield np.linalg.solve(block, identity - left)


def dense_curve(
    kernel: np.ndarray, task: Task, residual: np.ndarray, dynamics: Dynamics
) -> tuple[np.ndarray, np.ndarray]:
    """Bias and variance of every region, (time, region), from the formula's matrices."""
    maps = filters(kernel, task, dynamics)
    bias = np.square(residual - maps @ residual)
    variance = task.noise_sigma**2 * np.square(maps).sum(axis=2)
    regions = flat_regions(task).values()
    return tuple(np.array([x[:, r].mean(axis=1) for r in regions]).T for x in (bias, variance))


@functools.cache
def kernel_and_ntk(seed: int = 0, length: float = 2.0) -> tuple[np.ndarray, NTK]:
    kernel = smooth_kernel(seed, length)
    prior = make_prior(kernel)
    return kernel, NTK(prior, prior.init(seed))
