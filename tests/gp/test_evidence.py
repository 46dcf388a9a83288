"""Evidence, its derivatives and its maximum, against dense matrices and finite differences."""

import math
from dataclasses import replace

import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import AccuracyWarning, InvalidInputError, NotSymmetricError
from dipkernels.gp import GaussianProcess, LagKernel, fit_hyperparameters, matern, rbf
from dipkernels.kernels.stationary import StationaryKernel
from helpers.gaussian import dense
from helpers.gp_cases import CASES, MEAN, SIGMA, image, reference, scattered

STEP = 1e-5


def differences(process: GaussianProcess, task: tasks.Task) -> dict[str, float]:
    """Central differences of the dense evidence; exact to about 1e-8, relatively."""
    kernel = process.kernel

    def evidence(noise: float = 0.0, output: float = 0.0, length: float = 0.0, mean=0.0) -> float:
        changed = kernel
        if isinstance(kernel, LagKernel):
            changed = replace(kernel, lengthscale=kernel.lengthscale * math.exp(length))
        exact = dense(changed, task, MEAN + mean, SIGMA * math.exp(noise / 2))
        return replace(exact, prior=exact.prior * math.exp(output)).log_evidence

    names = {"noise": "log_noise_variance", "output": "log_outputscale", "mean": "mean"}
    if isinstance(kernel, LagKernel):
        names["length"] = "log_lengthscale"
    return {
        name: (evidence(**{key: STEP}) - evidence(**{key: -STEP})) / (2 * STEP)
        for key, name in names.items()
    }


@pytest.mark.parametrize("name", list(CASES))
def test_exact_evidence_and_its_derivatives(name: str) -> None:
    process, task, exact = reference(name)
    posterior = process.posterior(task, tolerance=1e-12)
    slopes = differences(process, task)
    for method in ("dense", *(["fourier"] if posterior.solver == "fourier" else [])):
        found = posterior.log_evidence(method)
        assert found.value.value == pytest.approx(exact.log_evidence, rel=1e-10)
        assert found.bounds == (found.value.value, found.value.value)
        assert found.gradient.keys() == slopes.keys()
        for key, slope in slopes.items():
            # central differences with steps of 1e-5
            assert found.gradient[key].value == pytest.approx(slope, rel=1e-6, abs=1e-6), key


def test_periodic_length_scales_are_differentiated_too() -> None:
    task = tasks.denoise(image(1, 9, 8), noise_sigma=SIGMA)

    def evidence(log_lengthscale: float, method: str = "fourier") -> object:
        kernel = matern(math.exp(log_lengthscale), 0.1)
        return GaussianProcess(kernel, MEAN, periodic=True).posterior(task).log_evidence(method)

    found = evidence(1.0)
    assert found.value.value == pytest.approx(evidence(1.0, "dense").value.value, rel=1e-12)
    slope = (evidence(1 + STEP).value.value - evidence(1 - STEP).value.value) / (2 * STEP)
    assert found.gradient["log_lengthscale"].value == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", ["inpaint channels apart", "super-resolve", "inpaint a torus"])
def test_probes_are_right_within_their_errors(name: str) -> None:
    process, task, exact = reference(name)
    posterior = process.posterior(task, tolerance=1e-10)
    found = posterior.log_evidence("lanczos", probes=40, steps=12, seed=5)
    low, high = sorted(found.bounds)
    # 12 steps may be exact: then the bounds meet, up to rounding
    assert 0 <= high - low < 0.3 * found.value.standard_error
    scores = [(found.value.value - exact.log_evidence) / found.value.standard_error]
    for key, slope in differences(process, task).items():
        if key != "mean":
            scores.append((found.gradient[key].value - slope) / found.gradient[key].standard_error)
    assert max(map(abs, scores)) < 4
    assert found.gradient["mean"].value == pytest.approx(
        posterior.log_evidence("dense").gradient["mean"].value, rel=1e-6
    )


def test_errors_of_probes_are_calibrated() -> None:
    process, task, exact = reference("inpaint a torus")
    posterior = process.posterior(task)
    scores = []
    for seed in range(20):
        found = posterior.log_evidence("lanczos", probes=8, steps=12, seed=seed)
        scores.append((found.value.value - exact.log_evidence) / found.value.standard_error)
    # Student's t of 7 degrees has a deviation of 1.18; of 20 such the rms is within 0.6 to 2
    assert 0.6 < torch.tensor(scores).square().mean().sqrt() < 2


@pytest.mark.parametrize(("method", "periodic"), [("dense", False), ("fourier", True)])
def test_fitted_scales_are_at_a_maximum(method: str, periodic: bool) -> None:
    truth = GaussianProcess(rbf(1.5, 0.04), 0.5, periodic=periodic)
    field = truth.sample((1, 12, 14), seed=4)[0]
    task = tasks.denoise(field, noise_sigma=0.1)
    found = fit_hyperparameters(task, rbf(1.0), periodic=periodic, method=method)
    for slope in found.evidence.gradient.values():  # Brent's tolerance is 1e-4 in the logarithm
        assert abs(slope.value) < 0.05
    assert found.log_evidence == pytest.approx(found.evidence.value.value, abs=1e-6)
    at_truth = truth.posterior(task).log_evidence(method).value.value
    # twice the gain is chi-squared of 4 degrees of freedom
    assert 0 < found.log_evidence - at_truth < 10
    assert found.log_evidence == max(value for _, value in found.tried)


@pytest.mark.slow
def test_given_noise_and_mean_are_kept_and_probes_find_the_same() -> None:
    field = GaussianProcess(matern(3.0, 0.04), 0.5).sample((1, 14, 11), seed=4)[0]
    task = tasks.inpaint(field, scattered(14, 11), noise_sigma=0.05)
    options = {"mean": 0.5, "noise_sigma": 0.05, "bounds": (1.0, 6.0)}
    exact = fit_hyperparameters(task, matern(1.0), method="dense", **options)
    assert exact.process.mean == 0.5
    assert exact.noise_sigma == pytest.approx(0.05)
    assert abs(exact.evidence.gradient["log_lengthscale"].value) < 0.05
    assert abs(exact.evidence.gradient["log_outputscale"].value) < 0.05
    rough = fit_hyperparameters(task, matern(1.0), method="lanczos", probes=8, steps=24, **options)
    evidence = rough.process.posterior(task, 0.05).log_evidence("dense").value.value
    # what the probes' errors cost: little of one unit, that of a standard error of the scales
    assert exact.log_evidence - 0.5 < evidence <= exact.log_evidence + 1e-6


def test_what_can_t_be_done_is_refused() -> None:
    task = tasks.inpaint(image(1, 6, 8), scattered(6, 8), noise_sigma=0.1)
    posterior = GaussianProcess(rbf(1.0)).posterior(task)
    with pytest.raises(InvalidInputError, match="method must be one of"):
        posterior.log_evidence("exact")
    with pytest.raises(InvalidInputError, match="all of whose pixels"):
        posterior.log_evidence("fourier")
    quiet = GaussianProcess(rbf(30.0)).posterior(task, 0.0)
    with pytest.raises(InvalidInputError, match="pass noise_sigma"):
        quiet.log_evidence("lanczos")
    with pytest.raises(NotSymmetricError, match="raise noise_sigma"):
        whole = tasks.denoise(image(1, 20), noise_sigma=0.0)
        GaussianProcess(rbf(5.0), periodic=True).posterior(whole).log_evidence()
    with pytest.raises(InvalidInputError, match="ascending"):
        fit_hyperparameters(task, rbf(1.0), bounds=(3.0, 1.0))
    with pytest.raises(InvalidInputError, match="must be positive"):
        fit_hyperparameters(task, rbf(1.0), noise_sigma=0.0)


def test_what_has_no_fit_by_fft_is_refused() -> None:
    task = tasks.denoise(image(1, 5, 6))
    # a step of the distance is no covariance: its transform has negative lobes
    indefinite = LagKernel("step", lambda d: (d < 1.5).double() + 0 * d, 1.0)
    with pytest.raises(InvalidInputError, match="for a periodic image"):
        fit_hyperparameters(task, rbf(1.0), method="fourier")
    refused = pytest.raises(NotSymmetricError, match="no covariance on the image")
    with pytest.warns(AccuracyWarning), refused:
        fit_hyperparameters(task, indefinite, periodic=True, bounds=(1.0, 2.0))


@pytest.mark.parametrize("options", [{"mean": math.nan}, {"noise_sigma": math.inf}])
def test_numbers_of_a_fit_must_be_finite(options: dict) -> None:
    with pytest.raises(InvalidInputError, match=r"mean must be a finite|noise_sigma must"):
        fit_hyperparameters(tasks.denoise(image(1, 5, 6)), rbf(1.0), **options)


@pytest.mark.parametrize("shape", [(8,), (0, 4, 4), (1, 0, 4)])
def test_samples_have_the_shape_of_images(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"shape|size"):
        GaussianProcess(rbf(1.0)).sample(shape)


def test_a_constant_without_noise_is_the_measurements_mean() -> None:
    one = torch.ones(1, 8, dtype=torch.float64)  # of rank 1: all other eigenvalues are exactly 0
    kernel = StationaryKernel(one, torch.zeros_like(one), torch.zeros(1, dtype=torch.float64))
    task = tasks.denoise(image(1, 8))
    posterior = GaussianProcess(kernel, periodic=True).posterior(task, 0.0)
    expected = task.measurement.double().mean().expand(1, 8)
    torch.testing.assert_close(posterior.mean, expected, rtol=1e-12, atol=0)
    assert bool((posterior.variance().value == 0).all())
