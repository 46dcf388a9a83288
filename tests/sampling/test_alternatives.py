"""The linearised posterior of a linear network is its posterior; ensembles are fits."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import ImagePrior, fit, sampling, tasks
from dipkernels.base.seeds import derive
from dipkernels.errors import DivergenceError, InvalidInputError
from helpers.linear_network import N, clean_image, half_mask, make_prior, smooth_kernel
from helpers.priors import draw

SIGMA, DEVIATION = 0.3, 0.5


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_a_linear_network_has_its_exact_posterior(temperature: float) -> None:
    prior = make_prior(smooth_kernel(1, 1.5))
    task = tasks.inpaint(clean_image(), half_mask(3), noise_sigma=SIGMA).hold_out(0.25, seed=1)
    draws = 3000
    posterior = sampling.WeightPosterior(
        prior, task, weight_prior=DEVIATION, temperature=temperature
    )
    # anywhere: the network is linear
    result = sampling.linearised(
        posterior, prior.init(5), draws=draws, tolerance=1e-12, max_iterations=100
    )
    units = torch.eye(N, dtype=torch.float64)
    factor = np.stack([prior.image({"weights": e}).numpy().ravel() for e in units], axis=1)
    seen = task.counted.numpy().ravel()
    y = task.measurement.numpy().ravel()[seen]
    precision = factor[seen].T @ factor[seen] / SIGMA**2 + np.eye(N) / DEVIATION**2
    mean = factor @ np.linalg.solve(precision, factor[seen].T @ y / SIGMA**2)
    np.testing.assert_allclose(result["mean"].values.ravel(), mean, atol=1e-9)
    covariance = temperature * factor @ np.linalg.solve(precision, factor.T)
    values, vectors = np.linalg.eigh(covariance)
    z = (result.draws.values.reshape(draws, N) - mean) @ vectors / np.sqrt(values)
    assert np.abs(z.mean(axis=0)).max() < 4.5 / np.sqrt(draws)
    errors = np.sqrt((np.ones((N, N)) + np.eye(N)) / draws)
    assert (np.abs(np.cov(z.T) - np.eye(N)) < 5 * errors).all()  # 528 entries
    with pytest.raises(InvalidInputError, match="draws must be at least 2"):
        sampling.linearised(posterior, prior.init(5), draws=1)


class Root(nn.Module):
    """Finite at 0, where its derivatives are infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 4, 5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.sqrt()


def test_derivatives_that_are_not_finite_are_said() -> None:
    prior = ImagePrior(Root, draw(1, 1, 4, 5), check=False)  # its weights are drawn alike
    task = tasks.denoise(draw(1, 4, 5, seed=1), noise_sigma=SIGMA)
    posterior = sampling.WeightPosterior(prior, task, weight_prior=DEVIATION)
    parameters = {"weight": torch.zeros(1, 1, 4, 5, dtype=torch.float64)}
    assert prior.image(parameters).isfinite().all()
    with pytest.raises(
        DivergenceError, match=r"derivative .* isn.t finite: that of sqrt is infinite"
    ):
        sampling.linearised(posterior, parameters, draws=3)


def dense_jacobian(prior: ImagePrior, w: dict[str, Tensor]) -> Tensor:
    jacobian = torch.func.jacrev(prior.image)(w)
    dims = len(prior.shape)
    return torch.cat([j.flatten(dims).flatten(0, dims - 1) for j in jacobian.values()], dim=1)


@pytest.mark.parametrize("through", ["a mask", "projections"])
def test_a_convolutional_network_has_the_posterior_of_its_jacobian(through: str) -> None:
    """Weight-space algebra: ``f(w0) + J (w - w0)`` with the Gaussian prior of the weights."""
    prior = ImagePrior(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(),
            nn.Conv2d(4, 1, 3, padding=1),
        ),
        draw(1, 2, 4, 5),
    )  # fmt: skip
    clean = 0.5 + 0.1 * draw(1, 4, 5, seed=1).clamp(-4, 4)
    if through == "a mask":
        task = tasks.inpaint(clean, half_mask(3, (4, 5)), noise_sigma=SIGMA)
    else:
        task = tasks.measure(tasks.Radon(clean.shape, 3), clean, noise_sigma=SIGMA)
    task = task.hold_out(0.2)
    posterior = sampling.WeightPosterior(prior, task)
    w = prior.init(3)
    draws = 1500
    result = sampling.linearised(
        posterior, w, draws=draws, tolerance=1e-12, max_iterations=100, seed=2
    )
    jacobian = dense_jacobian(prior, w).numpy()
    weights = posterior.weight_prior
    flat = lambda values: np.concatenate(  # noqa: E731
        [values[key].expand(v.shape).numpy().ravel() for key, v in w.items()]
    )
    centre, deviation = flat(weights.mean), flat(weights.deviation)
    start = prior.image(w).numpy().ravel() - jacobian @ flat(w)
    seen = task.counted.numpy().ravel()
    units = torch.eye(20, dtype=torch.float64).reshape(20, 1, 4, 5)
    matrix = task.forward(units).reshape(20, -1).numpy().T[seen]
    rows, y = matrix @ jacobian, task.measurement.numpy().ravel()[seen]
    precision = rows.T @ rows / SIGMA**2 + np.diag(deviation**-2)
    right = rows.T @ (y - matrix @ start) / SIGMA**2 + centre / deviation**2
    mean = start + jacobian @ np.linalg.solve(precision, right)
    # conjugate gradients to 1e-12, and matrices of condition 1e4
    np.testing.assert_allclose(result["mean"].values.ravel(), mean, atol=1e-8)
    covariance = jacobian @ np.linalg.solve(precision, jacobian.T)
    values, vectors = np.linalg.eigh(covariance)
    z = (result.draws.values.reshape(draws, -1) - mean) @ vectors / np.sqrt(values)
    assert values.min() > 1e-8 and np.abs(z.mean(axis=0)).max() < 4.5 / np.sqrt(draws)
    size = len(values)
    errors = np.sqrt((np.ones((size, size)) + np.eye(size)) / draws)
    assert (np.abs(np.cov(z.T) - np.eye(size)) < 5 * errors).all()  # 210 entries


def test_an_ensemble_is_fits_from_its_seeds() -> None:
    prior = make_prior(smooth_kernel(1, 1.5))
    task = tasks.denoise(clean_image(), noise_sigma=SIGMA)
    found = sampling.deep_ensemble(prior, task, members=3, iterations=7, seed=2)
    assert found.draws.shape == (1, 3, *task.shape)
    one = fit(prior, task, iterations=7, seed=derive("member-1", 2))
    np.testing.assert_allclose(found.draws[0, 1], one.final, rtol=1e-12)
    assert sampling.uncertainty.maps(found).attrs["draws"] == 3
    with pytest.raises(InvalidInputError, match="members must be at least 2"):
        sampling.deep_ensemble(prior, task, members=1)
    with pytest.raises(InvalidInputError, match="picture must be"):
        sampling.deep_ensemble(prior, task, picture="best")
