"""Posteriors of other laws of errors: densities against SciPy's, chains against quadrature."""

import functools
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from dipkernels import ImagePrior, Task, fit, sampling, tasks
from dipkernels.tasks import misfits
from helpers.linear_network import LinearImage

SHAPE, SIGMA, DEVIATION = (1, 2, 8), 0.25, 0.8
PEAK, BACKGROUND = 15.0, 0.05
PATTERN = torch.linspace(0.2, 1.0, 16, dtype=torch.float64)


def student(prediction: Tensor, measurement: Tensor) -> Tensor:
    """Student's t with three degrees of freedom and a scale of 0.1."""
    return 2 * torch.log1p(((prediction - measurement) / 0.1).square() / 3).sum()


def of_laplace(seen: np.ndarray, measured: np.ndarray) -> float:
    return scipy.stats.laplace.logpdf(measured, seen, SIGMA / 2**0.5).sum()


def of_counts(seen: np.ndarray, measured: np.ndarray) -> float:
    mean = PEAK * (seen + BACKGROUND)
    return scipy.stats.poisson.logpmf(np.round(PEAK * measured), mean).sum()


def of_student(seen: np.ndarray, measured: np.ndarray) -> float:
    return scipy.stats.t.logpdf(measured, 3, seen, 0.1).sum()


LAWS: dict[str, tuple[object, float, Callable[[np.ndarray, np.ndarray], float]]] = {
    "l1": ("l1", SIGMA, of_laplace),
    "poisson": (misfits.Poisson(PEAK, BACKGROUND), 0.0, of_counts),
    "own": (student, SIGMA, of_student),
}


@functools.cache
def problem(name: str) -> tuple[ImagePrior, Task]:
    """An image of one parameter, its brightness, under a blur."""
    prior = ImagePrior(
        lambda: LinearImage(PATTERN[:, None], SHAPE), torch.ones(1, dtype=torch.float64)
    )
    operator = tasks.Blur(SHAPE, torch.tensor([[0.2, 0.5, 0.3]]).double())
    clean = (0.7 * PATTERN).reshape(SHAPE)
    law, sigma, _ = LAWS[name]
    return prior, tasks.measure(operator, clean, noise_sigma=sigma, misfit=law)


def log_density(name: str, brightness: np.ndarray) -> np.ndarray:
    task, found = problem(name)[1], []
    for w in brightness:
        image = (float(w) * PATTERN).reshape(SHAPE)
        likelihood = LAWS[name][2](task.forward(image).numpy(), task.measurement.numpy())
        found.append(likelihood - w**2 / (2 * DEVIATION**2))
    return np.array(found)


@pytest.mark.parametrize("name", LAWS)
def test_log_densities_are_those_of_scipy(name: str) -> None:
    prior, task = problem(name)
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION, temperature=0.5)
    at = np.array([0.3, 0.6, 0.9])
    weights = ({"weights": torch.tensor([w], dtype=torch.float64)} for w in at)
    found = np.array([float(posterior.log_density(w)) for w in weights])
    expected = log_density(name, at) / 0.5
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["l1", "poisson"])
def test_chains_have_the_moments_of_quadrature(name: str) -> None:
    prior, task = problem(name)
    grid = np.linspace(0.01, 1.6, 801)
    density = np.exp(log_density(name, grid) - log_density(name, grid).max())
    density /= density.sum()
    mean = float(density @ grid)
    deviation = float(density @ (grid - mean) ** 2) ** 0.5
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    result = sampling.sample(
        posterior, method="sgld", iterations=450, burn_in=50, thin=2, chains=8,
        step_size=0.3 * deviation**2, seed=2, start={"weights": torch.full((8, 1), mean)},
    )  # fmt: skip
    draws = result.draws.values[..., 0, 1, 7].ravel()  # where the pattern is 1
    # Some 500 independent draws: 0.045 deviations of a mean, 3 % of a deviation. The step widens a
    # Gaussian by 1 / (1 - 0.15) in variance.
    assert draws.mean() == pytest.approx(mean, abs=0.2 * deviation)
    assert draws.std() == pytest.approx(1.08 * deviation, rel=0.15)
    assert ("noise_sigma" in result.attrs["target"]) == (name == "l1")
    # the default step, from the curvature, is stable and of that order
    step = posterior.stable_step({"weights": torch.tensor([mean], dtype=torch.float64)})
    assert 0.01 * deviation**2 < step < 2 * deviation**2


def test_a_weight_decay_is_the_prior_that_it_stands_for() -> None:
    for name in LAWS:
        prior, task = problem(name)
        weights = sampling.weight_decay_prior(prior, task, 0.02)
        posterior = sampling.WeightPosterior(prior, task, weight_prior=weights)
        w = torch.tensor([0.4], dtype=torch.float64)
        fitted = task.misfit(prior.image({"weights": w})) + 0.02 * w.square().sum() / 2
        potential = -posterior.log_density({"weights": w})
        assert float(potential) == pytest.approx(posterior.scale * float(fitted), rel=1e-12)


def test_a_fit_finds_the_mode() -> None:
    grid = np.linspace(0.3, 1.2, 901)
    for name in ("poisson", "own"):
        prior, task = problem(name)
        result = fit(prior, task, iterations=12, optimiser="l-bfgs")
        best = grid[np.argmax(log_density(name, grid) + grid**2 / (2 * DEVIATION**2))]
        # the grid's half step, and L-BFGS's own tolerance
        assert float(result.final.values[0, 1, 7]) == pytest.approx(best, abs=1e-3)
