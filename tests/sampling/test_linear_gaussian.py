"""Samplers where the answer is known: a Gaussian target, whose covariance under a finite step is.

Oracles: dense Bayesian linear regression, the closed form of the unadjusted Langevin algorithm's
stationary covariance, SciPy's discrete Lyapunov equation. Tolerances are 4.5 standard errors.
"""

import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch.func import hessian

from dipkernels import ImagePrior, Task, sampling, tasks
from dipkernels.sampling.langevin import Langevin
from dipkernels.sampling.settings import resolved
from dipkernels.sampling.steps import DAMPING, SAMPLERS, StepState
from dipkernels.storage.checkpoints import read_checkpoint
from helpers.linear_network import N, clean_image, half_mask, make_prior, smooth_kernel

SIGMA, DEVIATION = 0.3, 0.5
ERRORS = 4.5


@functools.cache
def model() -> tuple[ImagePrior, Task, np.ndarray]:
    """A linear prior, an inpainting task with held-out pixels, the factor of the image."""
    prior = make_prior(smooth_kernel(1, 1.5))
    task = tasks.inpaint(clean_image(), half_mask(3), noise_sigma=SIGMA).hold_out(0.25, seed=1)
    return prior, task, prior.structure.factor.numpy()  # type: ignore[union-attr]


def dense(temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Precision and mean of the parameters at temperature 1, by formula."""
    prior, task, _ = model()
    factor = np.stack(
        [prior.image({"weights": e}).numpy().ravel() for e in torch.eye(N).double()], 1
    )
    seen = task.counted.numpy().ravel()
    y = task.measurement.numpy().ravel()[seen]
    precision = factor[seen].T @ factor[seen] / SIGMA**2 + np.eye(N) / DEVIATION**2
    return precision, np.linalg.solve(precision, factor[seen].T @ y / SIGMA**2)


def test_log_density_is_that_of_bayesian_linear_regression() -> None:
    prior, task, _ = model()
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION, temperature=0.3)
    precision, mean = dense()
    density = lambda w: posterior.log_density({"weights": w})  # noqa: E731
    found = -hessian(density)(torch.zeros(N, dtype=torch.float64))
    np.testing.assert_allclose(found.numpy(), precision / 0.3, rtol=1e-10, atol=1e-10)
    gradient = torch.func.grad(density)(torch.from_numpy(mean))
    # relative to a gradient away from the mean, some hundreds
    np.testing.assert_allclose(gradient.numpy(), 0, atol=1e-9)


def test_the_default_step_is_a_tenth_of_the_limit_of_stability() -> None:
    prior, task, _ = model()
    seen = task.counted.numpy().ravel()
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    found = posterior.stable_step(prior.init(0), share=0.5)
    # half of 2 over the largest eigenvalue of the pixels that count, with that of the weights
    bound = np.linalg.eigvalsh(smooth_kernel(1, 1.5)[np.ix_(seen, seen)])[-1] / SIGMA**2
    assert found == pytest.approx(1 / (bound + 1 / DEVIATION**2), rel=0.011)  # eigenvalue to 1 %
    # which bounds that of the target
    assert found <= 1.01 / np.linalg.eigvalsh(dense()[0])[-1]


# Chains of a Gaussian target, by the pure functions: many at once, so that errors are small.
CHAINS, STEPS = 8000, 220
RNG = np.random.default_rng(5)
ROTATION = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
PRECISION = ROTATION @ np.diag([0.6, 1.0, 2.0, 3.5, 5.0]) @ ROTATION.T
CENTRE = RNG.standard_normal(5)
STEP, TEMPERATURE = 0.2, 0.7


def run_chains(name: str, squares: np.ndarray, friction: float) -> np.ndarray:
    generator = torch.Generator().manual_seed(0)
    H, m = torch.from_numpy(PRECISION), torch.from_numpy(CENTRE)
    w = {"w": torch.zeros(CHAINS, 5, dtype=torch.float64)}
    memory = {"w": torch.from_numpy(squares).expand(CHAINS, 5)} if name == "psgld" else {}
    now = StepState(STEP, TEMPERATURE, iteration=1, burn_in=0, friction=friction, memory=memory)
    for _ in range(STEPS):
        noise = {"w": torch.empty_like(w["w"]).normal_(generator=generator)}
        g = {"w": (w["w"] - m) @ H}
        w = SAMPLERS[name].step(w, g, noise, now)
    return w["w"].numpy()


def stationary(name: str, squares: np.ndarray, friction: float) -> np.ndarray:
    identity = np.eye(5)
    if name == "sghmc":
        A = np.block(
            [
                [identity - STEP * PRECISION, (1 - friction) * identity],
                [-STEP * PRECISION, (1 - friction) * identity],
            ]
        )
        ones = np.block([[identity, identity], [identity, identity]])
        noise = 2 * friction * STEP * TEMPERATURE * ones
        return scipy.linalg.solve_discrete_lyapunov(A, noise)[:5, :5]
    # x = G^(1/2) z: plain Langevin in z
    root = np.diag(1 / np.sqrt(DAMPING + np.sqrt(squares))) if name == "psgld" else identity
    H = root @ PRECISION @ root
    return TEMPERATURE * root @ np.linalg.inv(H @ (identity - STEP * H / 2)) @ root


@pytest.mark.parametrize("name", ["sgld", "psgld", "sghmc"])
def test_steps_leave_the_known_biased_gaussian_unchanged(name: str) -> None:
    squares, friction = np.array([0.5, 1.0, 2.0, 1.5, 0.8]), 0.4
    found = run_chains(name, squares, friction)
    expected = stationary(name, squares, friction)
    target = TEMPERATURE * np.linalg.inv(PRECISION)
    values, vectors = scipy.linalg.eigh(expected)
    z = (found - CENTRE) @ vectors / np.sqrt(values)
    assert np.abs(z.mean(axis=0)).max() < ERRORS / np.sqrt(CHAINS)
    covariance = np.cov(z.T)
    # independent chains: entries of the covariance err by sqrt(1/n), on the diagonal sqrt(2/n)
    errors = np.sqrt((np.ones((5, 5)) + np.eye(5)) / CHAINS)
    assert (np.abs(covariance - np.eye(5)) < ERRORS * errors).all()
    # the bias is seen: the target itself is far outside of the error
    ratio = np.linalg.eigvalsh(np.linalg.solve(target, expected)).max()
    assert ratio > 1 + 2 * ERRORS * np.sqrt(2 / CHAINS)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "step"), [("sgld", 0.03), ("sghmc", 0.02)])
def test_sampled_images_have_the_mean_and_covariance_of_the_posterior(
    method: str, step: float
) -> None:
    prior, task, factor = model()
    temperature, chains, burn_in, kept = 0.8, 24, 150, 900
    posterior = sampling.WeightPosterior(
        prior, task, weight_prior=DEVIATION, temperature=temperature
    )
    friction = 0.3 if method == "sghmc" else None
    result = sampling.sample(
        posterior, method=method, step_size=step, friction=friction, chains=chains,
        iterations=burn_in + 1 + kept, burn_in=burn_in, thin=1,
    )  # fmt: skip
    precision, mean = dense()
    values, vectors = np.linalg.eigh(precision)
    images = result.draws.values.reshape(chains, kept, N)
    z = (np.linalg.solve(factor, images.reshape(-1, N).T).T - mean) @ vectors
    z = z.reshape(chains, kept, N)
    if method == "sgld":
        variance = temperature / (values * (1 - step * values / 2))
    else:
        a = friction
        variance = np.array([_sghmc_variance(step * h, a) for h in values]) * temperature * step
    # Standard errors from the spread of chains, which are independent: 24 of them.
    for statistic, expected in ((z.mean(axis=1), 0.0), (np.square(z).mean(axis=1), variance)):
        error = statistic.std(axis=0, ddof=1) / np.sqrt(chains)
        deviation = (statistic.mean(axis=0) - expected) / error
        # 32 values of Student's t with 23 degrees of freedom: P(any above 5) < 0.2 %
        assert np.abs(deviation).max() < 5
        assert np.square(deviation).mean() < 2
    # streamed moments are those of the draws, which are all images here
    np.testing.assert_allclose(
        result["mean"].values.reshape(chains, N), images.mean(axis=1), rtol=1e-10, atol=1e-12
    )
    np.testing.assert_allclose(
        result["std"].values.reshape(chains, N), images.std(axis=1, ddof=1), rtol=1e-10
    )


def curvature() -> float:
    """The bound L of the step rule: of the pixels that count, with that of the weights."""
    seen = model()[1].counted.numpy().ravel()
    kernel = smooth_kernel(1, 1.5)[np.ix_(seen, seen)]
    return float(np.linalg.eigvalsh(kernel)[-1] / SIGMA**2 + 1 / DEVIATION**2)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "share"), [("sghmc", 0.9), ("sgld", 0.1)])
def test_the_chosen_step_is_a_share_of_the_limit_where_the_warm_up_ends(
    method: str, share: float, tmp_path: Path
) -> None:
    prior, task, _ = model()
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    options: dict[str, Any] = {"method": method, "chains": 2, "burn_in": 6, "thin": 2}
    whole = sampling.sample(posterior, iterations=20, **options)
    # a linear network has one curvature; of a largest eigenvalue to 1 %
    assert whole.step_size == pytest.approx(share * 2 / curvature(), rel=0.011)
    # a run that was ended soon or later after the warm-up goes on with the same bits
    for first in (10, 16):
        path = tmp_path / f"{first}"
        sampling.sample(posterior, iterations=first, checkpoint=path, **options)
        state = read_checkpoint(path)[1]["dynamics"]
        assert state["step_size"] == whole.step_size
        resumed = sampling.sample(posterior, iterations=20, checkpoint=path, **options)
        np.testing.assert_array_equal(resumed.draws, whole.draws)
        assert resumed.step_size == whole.step_size
    # with a step that is given nothing is chosen
    given = sampling.sample(posterior, iterations=20, step_size=1e-3, **options)
    assert given.step_size == 1e-3


@pytest.mark.long
def test_the_default_sampler_has_the_posterior_of_a_linear_network() -> None:
    """Mean and variance of each mode in closed form, with the bias of the step."""
    prior, task, factor = model()
    chains, burn_in, kept = 12, 900, 1100
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    result = sampling.sample(
        posterior, chains=chains, iterations=burn_in + 1 + kept, burn_in=burn_in, thin=5
    )
    assert result.method == "sghmc" and result.friction == 0.01
    precision, centre = dense()
    values, vectors = np.linalg.eigh(precision)
    step = result.step_size
    unit = step * np.array([_sghmc_variance(step * h, 0.01) for h in values])
    images = result.draws.values.reshape(-1, N)
    z = (np.linalg.solve(factor, images.T).T - centre) @ vectors / np.sqrt(unit)
    z = z.reshape(chains, -1, N)
    # chains are independent: Student's t with 11 degrees of freedom, 32 independent values each
    for statistic, expected in ((z.mean(axis=1), 0.0), (np.square(z).mean(axis=1), 1.0)):
        error = statistic.std(axis=0, ddof=1) / np.sqrt(chains)
        deviation = (statistic.mean(axis=0) - expected) / error
        assert np.abs(deviation).max() < 6 and np.square(deviation).mean() < 2.5
    ratio = unit * values
    assert ratio.min() >= 1 and ratio.max() < 1 / (1 - 0.9 / 2) + 0.01  # as documented
    # in each direction velocities are as much too hot as variances are too large
    heat = sampling.diagnose(result)["temperature"]
    assert float(heat.mean()) == pytest.approx(ratio.mean(), abs=0.06)


def test_an_unstable_step_is_said_to_heat() -> None:
    prior, task, _ = model()
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    options: dict[str, Any] = {"chains": 4, "iterations": 100, "burn_in": 20, "thin": 4}
    # a momentum is stable up to 2 (2 - friction) / L; beyond, velocities grow without bound
    limit = 3.98 / float(np.linalg.eigvalsh(dense()[0])[-1])
    hot = sampling.sample(posterior, step_size=1.05 * limit, **options)
    assert "heated: velocities have" in str(sampling.verdict(sampling.diagnose(hot)))
    cool = sampling.sample(posterior, step_size=0.1 * limit, **options)
    assert "heated" not in str(sampling.verdict(sampling.diagnose(cool)))


@pytest.mark.slow
def test_psgld_samples_the_posterior_in_the_metric_that_each_chain_ended_burn_in_with(
    tmp_path: Path,
) -> None:
    prior, task, factor = model()
    temperature, chains, burn_in, kept, step = 0.8, 24, 200, 700, 0.05
    posterior = sampling.WeightPosterior(
        prior, task, weight_prior=DEVIATION, temperature=temperature
    )
    result = sampling.sample(
        posterior, method="psgld", step_size=step, chains=chains,
        iterations=burn_in + 1 + kept, burn_in=burn_in, thin=1, checkpoint=tmp_path / "c",
    )  # fmt: skip
    squares = read_checkpoint(tmp_path / "c")[1]["dynamics"]["extra"]["weights"].numpy()
    precision, mean = dense()
    images = result.draws.values.reshape(chains, kept, N)
    w = np.linalg.solve(factor, images.reshape(-1, N).T).T.reshape(chains, kept, N)
    z = np.empty_like(w)
    bias = []
    for chain in range(chains):
        # x = G^(1/2) z: plain Langevin in z, a metric of its own in every chain
        root = 1 / np.sqrt(DAMPING + np.sqrt(squares[chain]))
        values, vectors = np.linalg.eigh(root[:, None] * precision * root)
        variance = temperature / (values * (1 - step * values / 2))
        z[chain] = ((w[chain] - mean) / root) @ vectors / np.sqrt(variance)
        bias.append(step * values.max() / 2)
    for statistic, expected in ((z.mean(axis=1), 0.0), (np.square(z).mean(axis=1), 1.0)):
        error = statistic.std(axis=0, ddof=1) / np.sqrt(chains)
        deviation = (statistic.mean(axis=0) - expected) / error
        # 32 values of Student's t with 23 degrees of freedom: P(any above 5) < 0.2 %
        assert np.abs(deviation).max() < 5
        assert np.square(deviation).mean() < 2
        assert error.mean() < 0.06
    # the metric matters: a plain step would have another bias, and be unstable
    assert 0.02 < min(bias) < max(bias) < 0.5
    assert step * np.linalg.eigvalsh(precision)[-1] / 2 > 0.2


def _sghmc_variance(eh: float, a: float) -> float:
    """Stationary variance of w in units of T e, for e H = eh and friction a."""
    A = np.array([[1 - eh, 1 - a], [-eh, 1 - a]])
    return float(scipy.linalg.solve_discrete_lyapunov(A, 2 * a * np.ones((2, 2)))[0, 0])


def test_the_metric_of_psgld_stands_still_after_burn_in() -> None:
    prior, task, _ = model()
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    settings = sampling.ChainSettings(
        method="psgld", iterations=12, burn_in=5, chains=2, step_size=1e-3
    )
    settings = resolved(settings, 1e-3)
    dynamics = Langevin(posterior, settings, prior.init_many([0, 1]), [0, 1])
    seen: list[Tensor] = []
    for _ in range(12):
        dynamics.step(*dynamics.evaluate())
        seen.append(dynamics.state()["extra"]["weights"].clone())
    moves = [not torch.equal(a, b) for a, b in itertools.pairwise(seen)]
    assert moves == [True] * 5 + [False] * 6


class WithToken(nn.Module):
    """Six pixels, and what is added to all of them: drawn at a millionth, as some tokens are."""

    def __init__(self) -> None:
        super().__init__()
        self.pixels = nn.Parameter(torch.randn(1, 1, 2, 3, dtype=torch.float64))
        self.token = nn.Parameter(1e-6 * torch.randn(4, dtype=torch.float64))

    def forward(self, code: Tensor) -> Tensor:
        return self.pixels + self.token.sum() * code.mean()


@pytest.mark.parametrize("method", ["sgld", "sghmc"])
def test_a_tensor_of_tiny_deviation_moves_in_its_own_unit(method: str) -> None:
    prior = ImagePrior(WithToken, torch.ones(1, 1, dtype=torch.float64))
    task = tasks.denoise(torch.rand(1, 2, 3, dtype=torch.float64), noise_sigma=SIGMA)
    posterior = sampling.WeightPosterior(prior, task)
    assert list(posterior.scales) == ["token"]
    step = posterior.stable_step(prior.init(0))
    # without the unit it would be 1e-13
    assert step == pytest.approx(0.2 / (1 / SIGMA**2 + 1), rel=0.2)
    chains = 60
    settings = sampling.ChainSettings(method=method, iterations=300, burn_in=5, chains=chains)
    start = {"pixels": torch.zeros(chains, 1, 1, 2, 3), "token": torch.zeros(chains, 4)}
    dynamics = Langevin(
        posterior,
        resolved(settings, step),
        {key: value.double() for key, value in start.items()},
        range(chains),
    )
    for _ in range(300):
        dynamics.step(*dynamics.evaluate())
    token = dynamics.leaves["token"].detach()
    # of the prior alone: the measurement says nothing of a millionth. Friction 0.01 forgets over
    # some 100 steps; 240 values know their deviation to 5 %, and a step widens it by up to 5 %
    assert token.std().item() == pytest.approx(
        float(posterior.weight_prior.deviation["token"]), rel=0.25
    )
