"""Posteriors of all tasks against dense Gaussian processes, on small odd sizes."""

import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import AccuracyWarning, InvalidInputError
from dipkernels.gp import GaussianProcess, LagKernel, matern, rbf
from dipkernels.kernels import DenseKernel
from helpers.gaussian import dense
from helpers.gp_cases import CASES, image, phased, reference, scattered, smooth

SOLVED = [(name, solver) for name, (_, _, solvers) in CASES.items() for solver in solvers]


@pytest.mark.parametrize(("name", "solver"), SOLVED)
def test_mean_and_exact_variance(name: str, solver: str) -> None:
    process, task, exact = reference(name)
    posterior = process.posterior(task, solver=solver, tolerance=1e-12)
    # conjugate gradients to 1e-12 of their norm, prior deviations below 1
    torch.testing.assert_close(posterior.mean, exact.posterior_mean, rtol=0, atol=1e-10)
    variance = posterior.variance("fourier" if solver == "fourier" else "solves")
    expected = exact.posterior_covariance.diagonal().reshape(task.shape)
    torch.testing.assert_close(variance.value, expected, rtol=0, atol=1e-10)
    assert (variance.standard_error == 0).all()


@pytest.mark.parametrize("name", ["inpaint a block", "inpaint with phases", "super-resolve"])
def test_draws_have_the_posterior_s_moments(name: str) -> None:
    process, task, exact = reference(name)
    n = 1000
    posterior = process.posterior(task, tolerance=1e-6)
    deviations = (posterior.draws(n, seed=3) - posterior.mean).flatten(1)
    covariance = exact.posterior_covariance
    # sd of a mean of products of Gaussians, entry by entry
    deviation = (
        (covariance.diagonal()[:, None] * covariance.diagonal() + covariance**2) / n
    ) ** 0.5
    scores = (deviations.T @ deviations / n - covariance) / deviation
    # scores depend on each other: over seeds their rms was 0.9 to 1.2
    assert 0.7 < float(scores.square().mean().sqrt()) < 1.4
    assert float(scores.abs().max()) < 6
    means = deviations.mean(dim=0) / (covariance.diagonal() / n).sqrt()
    assert float(means.abs().max()) < 5


def test_variance_by_draws_is_within_its_error() -> None:
    process, task, exact = reference("inpaint channels apart")
    found = process.posterior(task, tolerance=1e-6).variance(draws=200, seed=1)
    truth = exact.posterior_covariance.diagonal().reshape(task.shape)
    scores = (found.value - truth) / found.standard_error
    assert found.matvecs == 200
    assert float(scores.abs().max()) < 5
    assert 0.5 < float(scores.square().mean().sqrt()) < 1.5


def test_draws_of_the_prior() -> None:
    process = GaussianProcess(phased(12, 10), mean=0.7)
    drawn = process.sample((2, 4, 5), 4000, seed=2)
    expected = process.covariance((4, 5)).to_dense()
    flat = (drawn - 0.7).flatten(2)
    deviation = (
        expected.diagonal()[:, None] * expected.diagonal() + expected**2
    ) ** 0.5 / 4000**0.5
    for channel in range(2):
        found = flat[:, channel].T @ flat[:, channel] / 4000
        assert float(((found - expected) / deviation).abs().max()) < 5
    mixed = flat[:, 0].T @ flat[:, 1] / 4000
    scale = float(expected.diagonal().max()) / 4000**0.5
    assert float(mixed.abs().max()) < 5 * scale


@pytest.mark.parametrize("name", list(CASES))
def test_covariance_is_that_of_the_kernel(name: str) -> None:
    process, task, exact = reference(name)
    covariance = process.covariance(task.shape[1:])
    one = exact.prior[: covariance.to_dense().shape[0], : covariance.to_dense().shape[0]]
    torch.testing.assert_close(covariance.to_dense(), one, rtol=0, atol=1e-14)
    torch.testing.assert_close(covariance.variance.flatten(), one.diagonal(), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("mask", "periodic", "solver"),
    [("scattered", True, "primal"), ("block", True, "dual"), ("scattered", False, "dual")],
)
def test_the_mask_chooses_the_system(mask: str, periodic: bool, solver: str) -> None:
    size = (24, 20)
    known = scattered(*size) if mask == "scattered" else tasks.region_mask(size, hole=9)
    task = tasks.inpaint(image(1, *size), known, noise_sigma=0.1)
    process = GaussianProcess(matern(3.0), periodic=periodic)
    chosen = process.posterior(task)
    assert chosen.solver == solver
    other = process.posterior(task, solver={"primal": "dual", "dual": "primal"}[solver])
    torch.testing.assert_close(chosen.mean, other.mean, rtol=0, atol=1e-6)
    assert chosen.solution.iterations < other.solution.iterations


@pytest.mark.parametrize(
    ("name", "solver"), [("blur", "dual"), ("valid", "dual"), ("radon", "primal")]
)
def test_the_operator_chooses_the_system(name: str, solver: str) -> None:
    """Of an image that isn't periodic."""
    shape = (1, 24, 20)
    psf = tasks.gaussian_psf(1.0)
    operator = {
        "blur": lambda: tasks.Blur(shape, psf, "zero"),
        "valid": lambda: tasks.Blur(shape, psf, "valid"),
        "radon": lambda: tasks.Radon(shape, 20),
    }[name]()
    task = tasks.measure(operator, image(*shape), noise_sigma=0.05)
    process = GaussianProcess(matern(3.0))
    chosen = process.posterior(task)
    other = process.posterior(task, solver={"primal": "dual", "dual": "primal"}[solver])
    assert chosen.solver == solver
    torch.testing.assert_close(chosen.mean, other.mean, rtol=0, atol=1e-5)
    assert chosen.solution.iterations < other.solution.iterations
    if name == "blur":  # a circulant on the image's own grid takes some 150
        assert chosen.solution.iterations < 60


@pytest.mark.parametrize("name", ["blur", "radon"])
def test_a_matrix_serves_through_any_operator(name: str) -> None:
    shape, kernel = (1, 7, 6), matern(2.0)
    operators = {"blur": tasks.Blur(shape, tasks.gaussian_psf(0.8)), "radon": tasks.Radon(shape, 4)}
    task = tasks.measure(operators[name], image(*shape), noise_sigma=0.1)
    exact = dense(kernel, task, 0.0, 0.1)
    prior = GaussianProcess(kernel).covariance(shape[1:]).to_dense()
    process = GaussianProcess(DenseKernel(prior, prior, shape[1:]))
    for solver in ("auto", "primal", "dual"):
        found = process.posterior(task, solver=solver, tolerance=1e-12)
        torch.testing.assert_close(found.mean, exact.posterior_mean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengthscale", [3.0, 8.0])
def test_mean_is_exact_where_the_torus_has_no_process(lengthscale: float) -> None:
    kernel = rbf(lengthscale)
    task = tasks.denoise(image(1, 12, 11), noise_sigma=0.3)
    process = GaussianProcess(kernel)
    posterior = process.posterior(task, tolerance=1e-12)
    exact = dense(kernel, task, 0.0, 0.3)
    torch.testing.assert_close(posterior.mean, exact.posterior_mean, rtol=0, atol=1e-9)
    if lengthscale == 3:  # a larger torus helps
        assert posterior.draws(2).shape == (2, 1, 12, 11)
        return
    with pytest.raises(InvalidInputError, match="no process on its torus"):
        posterior.draws()
    with pytest.raises(InvalidInputError, match="takes the root of a spectrum"):
        process.posterior(task, solver="primal")


def test_no_noise_interpolates() -> None:
    kernel = matern(2.0, smoothness=0.5)
    task = tasks.inpaint(image(1, 9, 7), scattered(9, 7))
    posterior = GaussianProcess(kernel).posterior(task, tolerance=1e-12)
    exact = dense(kernel, task, 0.0, 0.0)
    torch.testing.assert_close(posterior.mean, exact.posterior_mean, rtol=0, atol=1e-9)
    known = task.measured
    torch.testing.assert_close(posterior.mean[known], task.measurement[known], atol=1e-9, rtol=0)


def test_dataset_says_what_was_done() -> None:
    process, task, exact = reference("inpaint with phases")
    found = process.posterior(task).dataset(draws=100)
    assert found["mean"].dims == ("channel", "y", "x")
    assert found.attrs["iterations"] > 0
    assert found.attrs["residual"] <= 1e-8
    truth = exact.posterior_covariance.diagonal().sqrt().reshape(task.shape).numpy()
    scores = (found.standard_deviation - truth) / found.standard_deviation_standard_error
    assert float(abs(scores).max()) < 5


def test_a_solver_that_stops_early_says_so() -> None:
    task = tasks.inpaint(image(1, 16, 16), scattered(16, 16), noise_sigma=1e-3)
    posterior = GaussianProcess(matern(3.0)).posterior(task, max_iterations=3)
    with pytest.warns(AccuracyWarning, match="NOT converged in 3 iterations"):
        _ = posterior.mean


def test_what_can_t_be_done_is_refused() -> None:
    task = tasks.inpaint(image(1, 6, 8), scattered(6, 8), noise_sigma=0.1)
    process = GaussianProcess(rbf(1.0))
    with pytest.raises(InvalidInputError, match="solver must be one of"):
        process.posterior(task, solver="cholesky")
    with pytest.raises(InvalidInputError, match="all of whose pixels"):
        process.posterior(task, solver="fourier")
    with pytest.raises(InvalidInputError, match="needs noise"):
        process.posterior(task, 0.0, solver="primal")
    with pytest.raises(InvalidInputError, match="not negative"):
        process.posterior(task, -0.1)
    with pytest.raises(InvalidInputError, match="all of whose pixels"):
        process.posterior(task).variance("fourier")
    with pytest.raises(InvalidInputError, match="at least 2 draws"):
        process.posterior(task).variance(draws=1)
    with pytest.raises(InvalidInputError, match="at least 11x15"):
        GaussianProcess(smooth(10, 15)).posterior(task)
    with pytest.raises(InvalidInputError, match="must be equal"):
        GaussianProcess(smooth(10, 15), periodic=True).posterior(task)
    with pytest.raises(InvalidInputError, match="mean must be a finite number, got nan"):
        GaussianProcess(LagKernel("flat", torch.ones_like, 1.0), float("nan"))
