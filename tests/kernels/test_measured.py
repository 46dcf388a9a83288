"""Kernels seen through a task, against ``A K A^T`` of dense matrices; and the steps set by them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, Task, fit, sampling, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import ObservedKernel
from dipkernels.linalg import DenseOperator
from helpers.linear_network import N, clean_image, make_prior, smooth_kernel
from helpers.priors import draw

SIGMA, DEVIATION = 0.3, 0.5


class Gain:
    """A physics as deepinv has them: the image times a number, or its running sums times it."""

    def __init__(self, gain: float, *, sums: bool = False) -> None:
        self.gain, self.sums = gain, sums

    def A(self, x: Tensor) -> Tensor:  # noqa: N802
        return self.gain * (x.cumsum(dim=-1)[..., 1:] if self.sums else x)

    def A_adjoint(self, y: Tensor) -> Tensor:  # noqa: N802
        if not self.sums:
            return self.gain * y
        padded = torch.cat([torch.zeros_like(y[..., :1]), y], dim=-1)
        return self.gain * padded.flip(-1).cumsum(dim=-1).flip(-1)


def physics(clean: Tensor, gain: float = 3.0, *, sums: bool = False) -> Task:
    measure = Gain(gain, sums=sums)
    noisy = measure.A(clean[None])[0] + SIGMA * draw(*measure.A(clean[None])[0].shape, seed=9)
    return tasks.from_physics(measure, noisy, clean.shape, clean=clean, noise_sigma=SIGMA)


def image(*shape: int) -> Tensor:
    return 0.5 + 0.1 * draw(*shape, seed=4).clamp(-4, 4)


def masked(shape: tuple[int, ...]) -> Task:
    mask = torch.rand(shape[1:], generator=torch.Generator().manual_seed(0)) < 0.6
    return tasks.inpaint(image(*shape), mask, noise_sigma=SIGMA).hold_out(0.3)


TASKS: dict[str, Callable[[], Task]] = {
    "mask, held out": lambda: masked((2, 5, 7)),
    "mask, held out, 1D": lambda: masked((2, 13)),
    "denoising, 1D": lambda: tasks.denoise(image(1, 11), noise_sigma=SIGMA),
    "super-resolution": lambda: tasks.super_resolve(image(1, 12, 16), factor=4),
    "physics with gain": lambda: physics(image(2, 3, 5)),
    "physics of another size": lambda: physics(image(1, 4, 6), sums=True).hold_out(0.25),
}


def dense_operator(task: Task) -> Tensor:
    """The matrix of what counts, column by column; rows of the rest are 0."""
    size = int(np.prod(task.shape))
    columns = torch.eye(size, dtype=torch.float64).reshape(size, *task.shape)
    matrix = torch.stack([task.forward(column).flatten() for column in columns], dim=1)
    matrix[~task.counted.flatten()] = 0
    return matrix


@pytest.mark.parametrize("name", TASKS)
def test_a_measured_kernel_is_its_dense_matrix(name: str) -> None:
    task = TASKS[name]()
    n = int(np.prod(task.shape))
    factor = draw(n, n, seed=7)
    kernel = factor @ factor.T / n
    measured = ObservedKernel(DenseOperator(kernel), task)
    matrix = dense_operator(task)
    assert measured.shape == (len(matrix), len(matrix))
    block = draw(len(matrix), 3, seed=8)
    expected = matrix @ kernel @ matrix.T
    scale = float(expected.abs().max())
    # sums of some hundred terms in float64
    torch.testing.assert_close(measured @ block, expected @ block, rtol=1e-11, atol=1e-11 * scale)
    images = draw(n, 2, seed=9)
    torch.testing.assert_close(measured.seen(images), matrix @ images, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(
        measured.spread(block), kernel @ matrix.T @ block, rtol=1e-11, atol=1e-11 * scale
    )
    if "held out" in name:
        assert bool((expected[~task.counted.flatten()] == 0).all())
        assert 0 < int(task.counted.sum()) < len(matrix)


def test_a_kernel_over_other_images_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="of size 6, images of the task have 11"):
        ObservedKernel(DenseOperator(torch.eye(6).double()), TASKS["denoising, 1D"]())


# --- Steps ------------------------------------------------------------------------------------


def test_a_gain_makes_default_rates_smaller_by_its_square() -> None:
    prior, clean = make_prior(smooth_kernel(1, 1.5)), clean_image()
    options = {"optimiser": "gradient-descent", "iterations": 60}
    plain = fit(prior, physics(clean, 1.0), **options)
    strong = fit(prior, physics(clean, 3.0), **options)
    # two estimates of the largest eigenvalue, each to 1 %
    assert plain.learning_rate / strong.learning_rate == pytest.approx(9, rel=0.021)
    loss = strong.loss.values
    assert strong.status == "finished" and (np.diff(loss) <= 1e-12 * loss[0]).all()
    assert loss[-1] < 0.3 * loss[0]
    # the rate that took the operator's norm for 1 runs away
    wrong = fit(prior, physics(clean, 3.0), learning_rate=plain.learning_rate, **options)
    assert wrong.status == "diverged"


def test_the_default_rate_under_an_operator_is_that_of_the_dense_kernel() -> None:
    net = lambda: nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 1, 1))  # noqa: E731
    prior = ImagePrior(net, draw(1, 2, 4, 6))
    task = physics(image(1, 4, 6), sums=True)
    found = fit(prior, task, optimiser="gradient-descent", iterations=1, seed=3)
    jacobian = torch.func.jacrev(prior.image)(prior.init(3))
    rows = torch.cat([j.flatten(3).flatten(0, 2) for j in jacobian.values()], dim=1)
    matrix = dense_operator(task)
    largest = torch.linalg.eigvalsh(matrix @ rows @ rows.T @ matrix.T)[-1]
    # a fit descends the mean square: the Hessian is 2 / m times that
    assert found.learning_rate == pytest.approx(len(matrix) / (2 * float(largest)), rel=0.011)


def test_a_gain_makes_langevin_steps_smaller() -> None:
    prior, gain = make_prior(smooth_kernel(1, 1.5)), 3.0
    posterior = sampling.WeightPosterior(
        prior, physics(clean_image(), gain), weight_prior=DEVIATION
    )
    found = posterior.stable_step(prior.init(0), share=0.5)
    largest = gain**2 * np.linalg.eigvalsh(smooth_kernel(1, 1.5))[-1] / SIGMA**2
    assert found == pytest.approx(1 / (largest + DEVIATION**-2), rel=0.011)


def test_the_linearised_posterior_under_a_gain_is_the_dense_one() -> None:
    prior, task = make_prior(smooth_kernel(1, 1.5)), physics(clean_image(), 3.0)
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    result = sampling.linearised(
        posterior, prior.init(1), draws=2, tolerance=1e-12, max_iterations=100
    )
    kernel = DEVIATION**2 * smooth_kernel(1, 1.5)
    system = 9 * kernel + SIGMA**2 * np.eye(N)
    mean = 3 * kernel @ np.linalg.solve(system, task.measurement.numpy().ravel())
    np.testing.assert_allclose(result["mean"].values.ravel(), mean, atol=1e-9)


OPERATORS: dict[str, Callable[[tuple[int, ...]], tasks.Operator]] = {
    "blur": lambda shape: tasks.Blur(shape, tasks.gaussian_psf((0.3, 0.8)), "replicate"),
    "radon": lambda shape: tasks.Radon(shape, 5),
    "fourier": lambda shape: tasks.Fourier(shape, tasks.line_mask(shape[1:], known=0.5)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_linearised_posterior_under_an_operator_is_the_dense_one(name: str) -> None:
    prior, clean = make_prior(smooth_kernel(1, 1.5)), clean_image()
    operator = OPERATORS[name](tuple(clean.shape))
    task = tasks.measure(operator, clean, noise_sigma=SIGMA).hold_out(0.1)
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    result = sampling.linearised(
        posterior, prior.init(1), draws=400, tolerance=1e-12, max_iterations=200
    )
    kernel, matrix = DEVIATION**2 * smooth_kernel(1, 1.5), dense_operator(task).numpy()
    gain = np.linalg.solve(
        matrix @ kernel @ matrix.T + SIGMA**2 * np.eye(len(matrix)), matrix @ kernel
    ).T
    seen = (task.measurement * task.counted).numpy().ravel()
    np.testing.assert_allclose(result["mean"].values.ravel(), gain @ seen, atol=1e-9)
    variance = np.diag(kernel - gain @ matrix @ kernel)
    found = result["draws"].values.reshape(400, -1).var(axis=0)
    # the sample variance of 400 Gaussians, over 32 pixels: 5 standard errors
    np.testing.assert_allclose(found, variance, rtol=5 * np.sqrt(2 / 400))


def test_of_a_real_network_it_is_that_of_its_jacobian() -> None:
    net = lambda: nn.Sequential(  # noqa: E731
        nn.Conv1d(2, 4, 3, padding=1), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 1)
    )
    prior = ImagePrior(net, draw(1, 2, 9))
    task = masked((2, 9))
    w = prior.init(2)
    jacobian = torch.func.jacrev(prior.image)(w)
    rows = torch.cat([j.flatten(2).flatten(0, 1) for j in jacobian.values()], dim=1)
    measured = ObservedKernel(NTK(prior, w), task)
    seen = dense_operator(task) @ rows
    block = torch.eye(len(seen), dtype=torch.float64)
    torch.testing.assert_close(measured @ block, seen @ seen.T, rtol=1e-9, atol=1e-10)
