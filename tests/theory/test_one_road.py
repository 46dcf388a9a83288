"""One road from a kernel to a prediction: Krylov and exact expansions against dense algebra."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.linalg
import torch

from dipkernels import NTK, Task, fit, networks, tasks
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.stopping import stopping_time
from dipkernels.theory import (
    Dynamics,
    FrozenAdam,
    GradientDescent,
    GradientFlow,
    KernelSpectrum,
    Momentum,
    expand,
    kernel_spectrum,
    learning_curve,
    linear_fit,
    predicted_peak,
)
from dipkernels.theory.curves import RESOLVED_DB, resolved_stretch
from helpers.linear_network import SIGMA, N, kernel_and_ntk, make_prior, make_task
from helpers.priors import draw

STEPS = {
    "descent": GradientDescent(0.9, np.array([0, 1, 2, 15, 400])),
    "overshooting": GradientDescent(1.9, np.array([0, 1, 2, 7, 80])),
    "momentum": Momentum(1.2, 0.7, np.array([0, 1, 2, 7, 80])),
    "adam": FrozenAdam(0.5, np.array([0, 1, 2, 7, 80])),
    "late adam": FrozenAdam(0.5, np.array([0, 1, 2, 7, 80]), taken=5),
}
FLOW = GradientFlow(np.array([0.0, 0.3, 2.0, 15.0, 150.0, 4e3]))


def dense_maps(kernel: np.ndarray, dynamics: Dynamics) -> np.ndarray:
    """``I - E`` as matrices: the optimiser's own steps, or SciPy's exponential."""
    identity = np.eye(len(kernel))
    if isinstance(dynamics, GradientFlow):
        return np.array([identity - scipy.linalg.expm(-t * kernel) for t in dynamics.times])
    learned = [np.zeros_like(kernel)]
    memory = 0 * identity
    taken = getattr(dynamics, "taken", 0)
    if taken:
        memory = identity * (1 - dynamics.beta**taken)
    for i in range(int(dynamics.times.max())):
        gradient = identity - learned[-1]
        if isinstance(dynamics, FrozenAdam):
            memory = dynamics.beta * memory + (1 - dynamics.beta) * gradient
            step = dynamics.step / (1 - dynamics.beta ** (i + 1 + taken)) * memory
        elif isinstance(dynamics, Momentum):
            memory = dynamics.momentum * memory + gradient
            step = dynamics.step * memory
        else:
            step = dynamics.step * gradient
        learned.append(learned[-1] + kernel @ step)
    return np.array([learned[i] for i in dynamics.times])


def residual_and_noise(task: Task, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    clean, seen = task.clean.numpy().ravel(), task.measurement.numpy().ravel()
    return clean - start, seen - clean


@pytest.mark.parametrize("sigma", [SIGMA, 0.0])
@pytest.mark.parametrize("noise", ["expected", "realised"])
@pytest.mark.parametrize("name", ["flow", *STEPS])
def test_both_roads_are_dense_algebra(name: str, noise: str, sigma: float) -> None:
    kernel, ntk = kernel_and_ntk(7)
    task, dynamics = make_task("denoise", sigma), STEPS.get(name, FLOW)
    residual, realised = residual_and_noise(task, ntk.image.numpy().ravel())
    krylov = expand(ntk, task, noise=noise, steps=N, tolerance=0)
    given = {"noise": realised} if noise == "realised" else {}
    exact = KernelSpectrum.of_matrix(kernel).expand(residual, 0.0 if given else sigma, **given)
    maps = dense_maps(kernel, dynamics)
    error = residual - maps @ (residual + realised if given else residual)
    truth = np.square(error).mean(axis=1)
    if not given:
        truth = truth + sigma**2 * np.square(maps).sum(axis=(1, 2)) / N
    for expansion in (krylov, exact):
        curve = learning_curve(expansion, dynamics)
        # a kernel of norm 1, in float64: an eigenvalue's rounding, N eps, moves the error of a
        # fit by itself times the time, 4e3 at most: below 1e-10
        np.testing.assert_allclose(curve.mse[:, 0], truth, rtol=0, atol=1e-10)
        assert curve.outputs == N
        assert curve.noise == noise
        assert (curve.mse_lower[:, 0] <= truth + 1e-10).all()
        assert (curve.mse_upper[:, 0] >= truth - 1e-10).all()
        if not given:
            np.testing.assert_allclose(curve.bias + curve.variance, curve.mse, rtol=1e-13)
    if sigma and not given:  # a trace of the same map
        learned = np.trace(maps, axis1=1, axis2=2)
        for expansion in (krylov, exact):
            np.testing.assert_allclose(expansion.degrees_of_freedom(dynamics), learned, atol=1e-10)


@pytest.mark.parametrize("kind", ["inpaint", "held out"])
def test_a_hole_is_dense_algebra_and_its_expansion_is_that_of_the_images(kind: str) -> None:
    _, ntk = kernel_and_ntk(5)
    task = make_task(kind, 0.1)
    linear = linear_fit(ntk, task, steps=N)
    other = expand(ntk, task, noise="realised", steps=N, tolerance=0)
    curve = learning_curve(linear.expansion(task), FLOW)
    assert curve.identical(learning_curve(other, FLOW))
    # the error of the images themselves
    errors = linear.images(FLOW) - task.clean.flatten()
    for name, region in task.regions.items():
        mse = errors[:, region.flatten()].square().mean(dim=1).numpy()
        np.testing.assert_allclose(curve.mse.sel(region=name), mse, rtol=0, atol=1e-10)


@pytest.mark.parametrize("noise", ["expected", "realised"])
def test_both_roads_agree_at_parameters_that_a_fit_has_reached(noise: str) -> None:
    prior = networks.create("conv", image_size=(5, 7), channels=1, width=6)
    prior = prior.to(dtype=torch.float64)
    task = tasks.denoise(draw(1, 5, 7, seed=3).sigmoid(), noise_sigma=0.1)
    reached: dict[str, torch.Tensor] = {}
    fit(prior, task, iterations=5, callback=lambda _, __, now: reached.update(now))
    ntk = NTK(prior, {key: value.clone() for key, value in reached.items()})
    assert float((ntk.image - prior.image(prior.init(0))).abs().max()) > 1e-3
    residual, realised = residual_and_noise(task, ntk.image.numpy().ravel())
    given = {"noise": realised} if noise == "realised" else {}
    exact = kernel_spectrum(ntk).expand(residual, 0.0 if given else 0.1, **given)
    krylov = expand(ntk, task, noise=noise, steps=35, tolerance=0)
    for dynamics in (
        GradientFlow(np.geomspace(0.1, 1e4, 7) / exact.largest),
        GradientDescent(1 / exact.largest, np.array([0, 1, 30, 1000])),
        Momentum(0.5 / exact.largest, 0.5, np.array([0, 1, 30, 1000])),
    ):
        one, other = (learning_curve(each, dynamics) for each in (exact, krylov))
        # roundings of the kernel, 35 eps of its largest eigenvalue, times at most 1e4 over that
        name = "bias" if noise == "expected" else "mse"
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-10)


def dense_peak(kernel: np.ndarray, residual: np.ndarray, sigma: float) -> tuple[float, float]:
    """The best PSNR and time by search alone, a thousandth of the grid's spacing apart."""
    values, vectors = np.linalg.eigh(kernel)
    along = vectors.T @ residual
    low, high = 1e-1, 1e7
    for _ in range(4):  # finer and finer around the best
        times = np.geomspace(low, high, 2001)
        left = np.exp(-np.outer(times, np.maximum(values, 0)))
        mse = (np.square(left * along).sum(axis=1) + sigma**2 * np.square(1 - left).sum(axis=1)) / N
        best = int(mse.argmin())
        low, high = times[max(best - 2, 0)], times[min(best + 2, 2000)]
    return -10 * math.log10(mse[best]), float(times[best])


@pytest.mark.parametrize(("seed", "sigma"), [(7, 0.3), (7, 0.03), (2, 0.02)])
def test_the_peak_is_that_of_a_dense_search(seed: int, sigma: float) -> None:
    kernel, ntk = kernel_and_ntk(seed)
    task = make_task("denoise", sigma)
    krylov = expand(ntk, task, steps=N, tolerance=0)
    residual = krylov.residual.numpy()
    psnr, time = dense_peak(kernel, residual, sigma)
    exact = predicted_peak(KernelSpectrum.of_matrix(kernel).expand(residual, sigma))
    # the search by halves stops at 1e-5 in log time; the value is flat there, to its square
    assert exact.psnr == pytest.approx(psnr, abs=1e-8)
    assert exact.time == pytest.approx(time, rel=1e-4)
    assert exact.lower <= exact.psnr <= exact.upper
    found = predicted_peak(krylov)
    # on a grid, 20 points a decade: below the peak, by thousandths of a dB
    assert psnr - 4e-3 < found.psnr <= psnr + 1e-8
    assert found.time == pytest.approx(time, rel=math.log(10) / 20)
    assert exact.resolved
    assert found.resolved
    # one answer, whoever asks
    curve = learning_curve(krylov)
    assert curve.peak_resolved
    assert (curve.peak_psnr_lower, curve.peak_psnr_upper) == (found.lower, found.upper)
    assert (curve.peak_psnr, curve.peak_time) == (found.psnr, found.time)
    assert stopping_time(curve).optimum == found.time


@pytest.mark.parametrize("steps", [3, 5, 8, 12, N])
@pytest.mark.parametrize("noise", ["expected", "realised"])
def test_a_curve_and_a_score_call_the_same_peaks_resolved(noise: str, steps: int) -> None:
    _, ntk = kernel_and_ntk(7)
    for sigma in (0.3, 0.02):
        expansion = expand(ntk, make_task("denoise", sigma), noise=noise, steps=steps, tolerance=0)
        curve, peak = learning_curve(expansion), predicted_peak(expansion)
        assert curve.peak_resolved == peak.resolved
        assert (curve.peak_psnr_lower, curve.peak_psnr_upper) == (peak.lower, peak.upper)
        if peak.resolved:
            assert peak.upper - peak.lower <= RESOLVED_DB
            assert (curve.peak_psnr, curve.peak_time) == (peak.psnr, peak.time)
        else:
            assert resolved_stretch(curve, "whole") < len(curve.time)
            assert curve.peak_psnr == peak.lower


def test_an_exact_peak_is_told_as_far_as_the_kernel_is() -> None:
    kernel, _ = kernel_and_ntk(7)
    residual = make_task("denoise").clean.numpy().ravel() - 0.4
    resolved = []
    for rounding in (1e-12, 1e-8, 1e-4, 1e-1):
        spectrum = KernelSpectrum.of_matrix(kernel, rounding=rounding)
        peak = predicted_peak(spectrum.expand(residual, 0.1))
        assert peak.resolved == (peak.upper - peak.lower <= RESOLVED_DB)
        resolved.append(peak.resolved)
    assert resolved[0]
    assert not resolved[-1]
    assert resolved == sorted(resolved, reverse=True)


def test_rounding_that_makes_a_kernel_indefinite_is_not_learned() -> None:
    # half of the eigenvalues are 0, and below it by rounding; times up to 1e15
    kernel, _ = kernel_and_ntk(3)
    values, vectors = np.linalg.eigh(kernel)
    values[: N // 2] = 0.0
    kernel = (vectors * values) @ vectors.T
    noise = np.random.default_rng(0).standard_normal((N, N)) * 1e-17
    kernel = kernel + noise + noise.T
    assert np.linalg.eigvalsh(kernel)[0] < 0
    residual = make_task("denoise").clean.numpy().ravel()
    within = vectors[:, N // 2 :].T @ residual
    exact = KernelSpectrum.of_matrix(kernel).expand(residual, 0.1)
    curve = learning_curve(exact, GradientFlow(np.array([1e15])))
    # what is outside of the kernel stays, what is within has been learned, noise and all
    truth = (np.square(residual).sum() - np.square(within).sum() + 0.1**2 * N / 2) / N
    assert float(curve.mse[0, 0]) == pytest.approx(truth, rel=1e-10)
    assert float(exact.degrees_of_freedom(GradientFlow(np.array([1e15])))[0]) == pytest.approx(
        N / 2
    )
    # and by products, of a network that starts at 0
    prior = make_prior((kernel + kernel.T) / 2)
    ntk = NTK(prior, {key: torch.zeros_like(value) for key, value in prior.init(0).items()})
    krylov = learning_curve(expand(ntk, make_task("denoise", 0.0), steps=N, tolerance=0), FLOW)
    alone = learning_curve(dataclasses.replace(exact, noise_sigma=0.0), FLOW)
    np.testing.assert_allclose(krylov.mse, alone.mse, rtol=0, atol=1e-10)


def test_an_exact_expansion_diverges_with_a_sentence_and_refuses_other_shapes() -> None:
    kernel, _ = kernel_and_ntk(7)
    spectrum = KernelSpectrum.of_matrix(kernel)
    exact = spectrum.expand(np.ones(N), 0.1)
    with pytest.raises(DivergenceError, match="use a step below"):
        learning_curve(exact, GradientDescent(2.2, np.array([0, 10_000])))
    with pytest.raises(InvalidInputError, match="residual must have shape"):
        spectrum.expand(np.ones(N - 1), 0.1)
