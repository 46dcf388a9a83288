"""A wide network's chains against the Gaussian process that it becomes at infinite width.

The weight prior is the initialisation, and all weights are sampled. The code is a set of Fourier
modes, so that the limit is stationary without an average over codes, and `infinite_width` gives
it exactly. Moments of outputs differ from the limit's by a term of the order of 1/width: the
kernel of a draw of the network fluctuates by width^-1/2, and the mean of that is 0.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import ImagePrior, Task, sampling, tasks
from dipkernels.gp import GaussianProcess
from dipkernels.kernels import infinite_width
from dipkernels.networks.generators import ConvNet
from dipkernels.networks.layers import Style

SIGMA = 0.1


def fourier_code(size: tuple[int, ...]) -> Tensor:
    """Cosines and sines of few frequencies: their products over channels depend on lags alone."""
    grids = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) / n for n in size], indexing="ij")
    waves = [(1, 1.0), (2, 0.7), (3, 0.4)] if len(size) == 1 else []
    turns = [f * grids[0] for f, _ in waves]
    amplitudes = [a for _, a in waves]
    if len(size) == 2:
        modes = [(0, 1, 0.8), (1, 0, 0.8), (1, 1, 0.6), (1, -1, 0.6), (2, 1, 0.3), (1, 2, 0.3)]
        turns = [a * grids[0] + b * grids[1] for a, b, _ in modes]
        amplitudes = [c for *_, c in modes]
    parts = [torch.full(size, 0.5, dtype=torch.float64)]
    for turn, amplitude in zip(turns, amplitudes, strict=True):
        angle = 2 * math.pi * turn
        parts += [amplitude * angle.cos(), amplitude * angle.sin()]
    return torch.stack(parts)[None]


def he_deviation(shape: tuple[int, ...]) -> float:
    return math.sqrt(2 / math.prod(shape[1:]))


def make_prior(size: tuple[int, ...], width: int, layers: int) -> ImagePrior:
    code = fourier_code(size)
    style = Style(
        dims=len(size), normalisation="none", activation="relu", padding="circular", bias=False
    )

    def draw(net: nn.Module) -> None:
        for kernel in net.parameters():
            nn.init.normal_(kernel, std=he_deviation(tuple(kernel.shape)))

    channels = code.shape[1]
    return ImagePrior(
        lambda: ConvNet(1, channels, width=width, layers=layers, kernel_size=3, style=style),
        code,
        initialisation=draw,
        name=f"width {width}",
    )


def make_task(size: tuple[int, ...], process: GaussianProcess) -> Task:
    image = process.sample((1, *size), 1, seed=3)[0]
    clean = (image - image.min()) / (image.max() - image.min())
    order = torch.randperm(clean.numel(), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(clean.numel(), dtype=torch.bool)
    mask[order[: clean.numel() // 3]] = False
    return tasks.inpaint(clean, mask.reshape(size), noise_sigma=SIGMA)


@dataclass
class Distance:
    """Of a network's posterior from its limit's; pixels in units of the limit's deviation."""

    mean: np.ndarray
    variance: np.ndarray
    mean_error: np.ndarray
    variance_error: np.ndarray

    def largest(self) -> float:
        """Root mean square over pixels, of the worse of mean and variance."""
        return max(float(np.sqrt(np.square(x).mean())) for x in (self.mean, self.variance))


def distance(
    size: tuple[int, ...],
    width: int,
    *,
    chains: int,
    iterations: int,
    layers: int = 1,
    method: str = "sghmc",
    step_size: float | None = None,
) -> Distance:
    """Run chains from draws of the weight prior; errors are from the spread of chains."""
    prior = make_prior(size, width, layers)
    process = GaussianProcess(infinite_width(prior, code="empirical").kernel, periodic=True)
    task = make_task(size, process)
    limit = process.posterior(task)
    mean, variance = (x.numpy() for x in (limit.mean, limit.variance("solves").value))
    deviation = {
        key: torch.tensor(he_deviation(shape), dtype=torch.float64)
        for key, shape in prior.parameter_shapes.items()
    }
    zeros = {key: torch.zeros_like(value) for key, value in deviation.items()}
    weights = sampling.WeightPrior(zeros, deviation, "initialisation")
    posterior = sampling.WeightPosterior(prior, task, weight_prior=weights)
    if step_size is None:
        step_size = min(posterior.stable_step(prior.init(seed)) for seed in range(3))
    result = sampling.sample(
        posterior, method=method, chains=chains, iterations=iterations, step_size=step_size,
        friction=0.1 if method == "sghmc" else None, burn_in=iterations // 5, thin=iterations // 20,
    )  # fmt: skip
    shifts = (result["mean"].values - mean) / np.sqrt(variance)
    squares = result["std"].values ** 2 / variance + shifts**2
    error = lambda x: x.std(axis=0, ddof=1) / np.sqrt(chains)  # noqa: E731
    shift = shifts.mean(axis=0)
    return Distance(shift, (squares.mean(axis=0) - shift**2) - 1, error(shifts), error(squares))


# Of a pixel's distance; measured, its root mean square over pixels is 2 / width.
def allowed(width: float, error: np.ndarray, deviations: float) -> np.ndarray:
    return deviations * error + 5 / width


@pytest.mark.slow
def test_a_wide_network_has_the_posterior_of_its_gaussian_process() -> None:
    width, chains = 32, 16
    wide = distance((16,), width, chains=chains, iterations=600)
    # 16 pixels, Student's t of 15 degrees of freedom: one above 5.5 in 1000
    assert (np.abs(wide.mean) < allowed(width, wide.mean_error, 5.5)).all()
    assert (np.abs(wide.variance) < allowed(width, wide.variance_error, 5.5)).all()
    # which is small enough to tell
    assert wide.mean_error.mean() < 0.15 and wide.variance_error.mean() < 0.15
    # of two channels it isn't true
    narrow = distance((16,), 2, chains=chains, iterations=300)
    assert narrow.largest() > 1.5 * wide.largest()
    assert np.abs(narrow.mean / narrow.mean_error).max() > 10


@pytest.mark.long
def test_the_distance_falls_with_the_width() -> None:
    found = {w: distance((16,), w, chains=32, iterations=3000) for w in (2, 8, 32)}
    far = [each.largest() for each in found.values()]
    assert far[0] > 1.5 * far[1] > 1.5**2 * far[2], far
    wide = found[32]
    assert wide.mean_error.mean() < 0.05 and wide.variance_error.mean() < 0.05
    # 16 pixels, Student's t of 31 degrees of freedom
    assert (np.abs(wide.mean) < allowed(32, wide.mean_error, 5)).all()
    assert (np.abs(wide.variance) < allowed(32, wide.variance_error, 5)).all()


@pytest.mark.long
def test_two_hidden_layers_on_an_image() -> None:
    width = 48
    wide = distance((6, 7), width, layers=2, chains=16, iterations=2500)
    # 42 pixels; twice the layers, twice the term in 1/width
    assert (np.abs(wide.mean) < allowed(width / 2, wide.mean_error, 5.5)).all()
    assert (np.abs(wide.variance) < allowed(width / 2, wide.variance_error, 5.5)).all()
    assert wide.mean_error.mean() < 0.15 and wide.variance_error.mean() < 0.15


@pytest.mark.long
def test_psgld_of_a_network_errs_by_its_step() -> None:
    """Of a metric in which steps are equal, the bias is in variances, and of the step's order."""
    steps = (0.001, 0.003, 0.01)
    found = [
        distance((16,), 32, method="psgld", step_size=step, chains=16, iterations=4000)
        for step in steps
    ]
    means = [float(each.variance.mean()) for each in found]
    assert abs(means[0]) < 0.15 < means[1] < means[2], means
    assert (np.abs(found[0].mean) < allowed(32, found[0].mean_error, 5.5)).all()
