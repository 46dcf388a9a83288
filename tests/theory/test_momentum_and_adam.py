"""Momentum and Adam in a frozen metric, against torch's own optimisers on a linear network."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from dipkernels import NTK, ImagePrior, Task, fit, tasks
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.kernels import adam_metric_of
from dipkernels.linalg import DenseOperator, Lanczos
from dipkernels.stopping import stopping_time
from dipkernels.theory import (
    Dynamics,
    FrozenAdam,
    GradientDescent,
    GradientFlow,
    Momentum,
    expand,
    learning_curve,
)
from helpers.linear_network import N, filters, kernel_and_ntk, make_task

Leaves = dict[str, torch.Tensor]
EIGENVALUES = np.array([0.0, 1e-12, 1e-5, 0.02, 0.3, 1.0])


def stepped(make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], steps: int) -> np.ndarray:
    """Errors of torch's optimiser on ``x e^2 / 2`` by eigenvalue, from 1; (steps + 1, m)."""
    values = torch.from_numpy(EIGENVALUES)
    leaf = torch.ones(len(values), dtype=torch.float64, requires_grad=True)
    optimiser, out = make([leaf]), [leaf.detach().numpy().copy()]
    for _ in range(steps):
        optimiser.zero_grad()
        (values * leaf.square() / 2).sum().backward()
        optimiser.step()
        out.append(leaf.detach().numpy().copy())
    return np.array(out)


@pytest.mark.parametrize(("step", "momentum"), [(0.7, 0.9), (3.0, 0.8), (0.5, 0.0), (0.002, 0.9)])
def test_momentum_steps_as_torch_does(step: float, momentum: float) -> None:
    exact = stepped(lambda leaves: torch.optim.SGD(leaves, lr=step, momentum=momentum), 300)
    dynamics = Momentum(step, momentum, np.arange(301))
    # rounding of 300 steps
    np.testing.assert_allclose(dynamics.decay(EIGENVALUES), exact, atol=1e-12)
    # the same by jumps, in any order, some twice
    few = np.array([300, 0, 7, 7, 129])
    jumped = Momentum(step, momentum, few)
    for name in ("decay", "accumulated"):
        np.testing.assert_allclose(
            getattr(jumped, name)(EIGENVALUES),
            getattr(dynamics, name)(EIGENVALUES)[few],
            rtol=1e-11,
            atol=1e-13,
        )


def test_momentum_of_nothing_is_descent_and_of_much_a_faster_flow() -> None:
    times = np.array([0, 3, 50, 4000])
    plain, none = GradientDescent(0.8, times), Momentum(0.8, 0.0, times)
    np.testing.assert_allclose(none.accumulated(EIGENVALUES), plain.accumulated(EIGENVALUES))
    # small eigenvalues see the flow, sped up by 1 / (1 - momentum), but for the start
    late = Momentum(0.8, 0.9, np.array([20_000]))
    flow = GradientFlow(np.array([20_000 * 0.8 / 0.1]))
    small = np.array([1e-6, 1e-5])
    np.testing.assert_allclose(late.decay(small), flow.decay(small), rtol=1e-3)


def test_what_accumulates_keeps_its_digits_over_many_iterations() -> None:
    mpmath = pytest.importorskip("mpmath")
    times = np.array([1, 1000, 1_000_000])
    found = Momentum(0.9, 0.95, times).accumulated(np.array([1e-13, 1e-8, 1e-3]))
    with mpmath.workdps(60):
        step, keep = mpmath.mpf(0.9), mpmath.mpf(0.95)
        for j, x in enumerate((1e-13, 1e-8, 1e-3)):
            # p_i = (a r^i - b s^i), the solution of the recurrence by its two roots
            middle = 1 + keep - step * mpmath.mpf(x)
            root = mpmath.sqrt(middle**2 - 4 * keep)
            r, s = (middle + root) / 2, (middle - root) / 2
            first = 1 - step * mpmath.mpf(x)
            a, b = (first - s) / (r - s), (r - first) / (r - s)
            for i, t in enumerate(times):
                exact = float((1 - a * r ** int(t) - b * s ** int(t)).real / mpmath.mpf(x))
                assert found[i, j] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("beta", [0.9, 0.0])
def test_frozen_adam_steps_as_torch_does_with_second_moments_that_stand_still(beta: float) -> None:
    step = 0.05

    # an epsilon beside which the second moments are nothing: the metric is one over it
    epsilon = 1e9
    exact = stepped(
        lambda leaves: torch.optim.Adam(
            leaves, lr=step * epsilon, betas=(beta, 0.999), eps=epsilon
        ),
        400,
    )
    dynamics = FrozenAdam(step, np.arange(401), beta=beta)
    assert abs(exact[400, 4]) < 0.02 < exact[100, 4]
    np.testing.assert_allclose(dynamics.decay(EIGENVALUES), exact, atol=1e-7)


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_a_fit_with_momentum_is_as_predicted(kind: str) -> None:
    _, ntk = kernel_and_ntk(2)
    task = make_task(kind)
    rate, momentum = 1.6 * N / 2, 0.6  # beyond what plain descent would do in 60 steps
    measured = fit(
        ntk.prior,
        task,
        optimiser="sgd",
        learning_rate=rate,
        momentum=momentum,
        iterations=60,
        seed=2,
    )
    curve = learning_curve(
        expand(ntk, task, noise="realised", steps=N, tolerance=0),
        Momentum.of_fit(rate, momentum, 60, N),
    )
    # rounding of 60 steps, in dB
    np.testing.assert_allclose(curve.psnr, measured.psnr_clean, atol=1e-8)
    assert float(curve.psnr.max() - curve.psnr[0, 0]) > 3


def test_quadrature_bounds_momentum_only_where_nothing_swings() -> None:
    eigenvalues = torch.linspace(0.01, 1, 60, dtype=torch.float64)
    operator = DenseOperator(torch.diag(eigenvalues))
    start, times = torch.ones(60, 1, dtype=torch.float64), np.array([3, 5, 8, 13, 20])
    threshold = (1 - np.sqrt(0.7)) ** 2
    calm, swinging = (Momentum(x * threshold, 0.7, times) for x in (1.0, 100.0))
    assert calm.monotone(1.0)
    assert not swinging.monotone(1.0)
    assert swinging.limit > 1  # it is stable

    def violations(dynamics: Dynamics) -> tuple[int, int]:
        exact = np.square(dynamics.decay(eigenvalues.numpy())).sum(axis=1)
        below = above = 0
        for steps in range(2, 12):
            (space,) = Lanczos(operator, start).extend(steps).spaces()
            low, high = (
                rule(lambda x: dynamics.decay(x) ** 2)
                for rule in (space.gauss(), space.gauss_radau())
            )
            below += int((low > exact * (1 + 1e-9) + 1e-12).sum())
            above += int((high < exact * (1 - 1e-9) - 1e-12).sum())
        return below, above

    assert violations(calm) == (0, 0)
    low, high = violations(swinging)
    assert low > 0
    assert high > 0


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
@pytest.mark.parametrize("noise", ["expected", "realised"])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_band_of_momentum_holds_the_truth(kind: str, noise: str, scale: float) -> None:
    kernel, ntk = kernel_and_ntk(3)
    task = make_task(kind)
    quiet = task if noise == "realised" else dataclasses.replace(task, noise_sigma=0.0)
    threshold = (1 - np.sqrt(0.7)) ** 2
    dynamics = Momentum(scale * threshold, 0.7, np.array([0, 3, 30, 300, 3000]))
    maps, regions = filters(kernel, task, dynamics), task.regions.values()
    widths = []
    for steps in (3, 6, 12, N):
        expansion = expand(ntk, quiet, noise=noise, steps=steps, tolerance=0)
        begun = (task.measurement - ntk.image).numpy().ravel()
        seen = begun if noise == "realised" else expansion.residual.numpy()
        squares = np.square(expansion.residual.numpy() - maps @ seen)
        truth = np.array([squares[:, r.numpy().ravel()].mean(axis=1) for r in regions]).T
        curve = learning_curve(expansion, dynamics)
        assert (curve.mse_lower <= truth * (1 + 1e-9)).all()
        assert (curve.mse_upper >= truth * (1 - 1e-9)).all()
        widths.append(((curve.mse_upper - curve.mse_lower) / truth).values)
    assert (widths[0][4] > 0.1).all()
    assert (widths[2][:3] < 0.05).all()
    np.testing.assert_allclose(widths[-1], 0, atol=1e-7)


def adam_run(ntk: NTK, task: Task, rate: float, steps: int, at: int) -> tuple[np.ndarray, NTK]:
    """Error of every iteration of torch's Adam, and the kernel in its metric at one of them."""
    leaves: Leaves = {k: v.clone().requires_grad_() for k, v in ntk.parameters.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=rate)
    errors, kernel = [], ntk
    for i in range(steps + 1):
        image = ntk.prior.image(leaves)
        errors.append(float(task.mse(image.detach())))
        optimiser.zero_grad()
        task.misfit(image).backward()
        optimiser.step()
        if i + 1 == at:
            kernel = NTK(ntk.prior, ntk.parameters, metric=adam_metric_of(optimiser, leaves))
    return np.array(errors), kernel


@pytest.mark.slow
def test_adam_with_its_metric_frozen_peaks_about_where_adam_does() -> None:
    _, ntk = kernel_and_ntk(2)
    task, rate, steps, peaks = make_task("denoise"), 0.01, 1500, []
    measured, preconditioned = adam_run(ntk, task, rate, steps, at=20)
    expansion = expand(preconditioned, task, noise="realised", steps=N, tolerance=0)
    curve = learning_curve(expansion, FrozenAdam.of_fit(rate, steps, N)).mse.values[:, 0]
    for errors in (curve, measured):
        # a true peak: fallen to it, risen after it
        assert errors.min() < 0.7 * errors[0]
        assert errors[-1] > 1.03 * errors.min()
        peaks.append(errors.min())
    # The metric moves, so that this is a heuristic. Its height holds to 10 % in MSE (0.038 for
    # 0.036). That the optimum comes late (922 for 793) and that after it the error grows too
    # little (0.063 for 0.078 at 3000) isn't asserted: that is where the heuristic fails.
    assert peaks[0] == pytest.approx(peaks[1], rel=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Momentum(1.0, 1.0, np.arange(3)), r"momentum must be in \[0, 1\), got 1.0"),
        (lambda: Momentum(0.0, 0.5, np.arange(3)), "step must be positive"),
        (lambda: Momentum(1.0, 0.5, np.array([0.5])), "iterations must be integers"),
        (lambda: FrozenAdam(1.0, np.arange(3), beta=-0.1), r"beta must be in \[0, 1\), got -0.1"),
        (lambda: FrozenAdam(1.0, np.arange(3), taken=-1), "taken must not be negative, got -1"),
        (lambda: FrozenAdam(1.0, np.array([], dtype=int)), "non-empty"),
    ],
)
def test_settings_are_validated(make: Callable[[], Dynamics], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


def test_limits_of_stability_are_where_errors_begin_to_grow() -> None:
    times = np.array([3000])
    for dynamics in (
        Momentum(0.5, 0.8, times),
        FrozenAdam(0.5, times),
        GradientDescent(0.5, times),
    ):
        inside, outside = dynamics.decay(dynamics.limit * np.array([0.999, 1.001]))[0]
        assert abs(inside) < 1 < abs(outside)
    _, ntk = kernel_and_ntk()
    diverging = Momentum(2 * (1 + 0.8) * 1.1, 0.8, np.array([0, 100_000]))
    with pytest.raises(DivergenceError, match="Momentum is stable up to an eigenvalue of"):
        learning_curve(expand(ntk, make_task("denoise"), steps=N, tolerance=0), diverging)


def test_adam_that_has_begun_goes_on() -> None:
    # a constant gradient: eigenvalue 0, where what accumulates is the way gone
    begun = FrozenAdam(0.1, np.array([0, 1, 50]), taken=7).accumulated(np.zeros(1))
    np.testing.assert_allclose(begun[:, 0], [0, 0.1, 5], rtol=1e-12)
    fresh = FrozenAdam(0.1, np.array([0, 1, 50])).accumulated(np.zeros(1))
    np.testing.assert_allclose(fresh[:, 0], [0, 0.1, 5], rtol=1e-12)


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_signals_are_predicted_like_images(kind: str) -> None:
    # one convolution is linear in its parameters: the prediction is the fit
    code = torch.randn(1, 3, 37, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = ImagePrior(lambda: nn.Conv1d(3, 2, 5, padding=2).double(), code)
    wave = 0.5 + 0.4 * torch.sin(torch.linspace(0, 9, 74, dtype=torch.float64)).reshape(2, 37)
    if kind == "denoise":
        task = tasks.denoise(wave, noise_sigma=0.2, clip=True)
    else:
        task = tasks.inpaint(wave, torch.arange(37) % 3 > 0, noise_sigma=0.2)
    ntk = NTK(prior, prior.init(4))
    rate = 1.5 * stable_learning_rate(ntk)
    expansion = expand(ntk, task, noise="realised", steps=40, tolerance=0)
    curve = learning_curve(expansion, Momentum.of_fit(rate, 0.5, 50, 74))
    measured = fit(
        prior, task, optimiser="sgd", momentum=0.5, learning_rate=rate, iterations=50, seed=4
    )
    np.testing.assert_allclose(curve.psnr, measured.psnr_clean, atol=1e-8)
    assert stopping_time(curve).psnr > float(curve.psnr.sel(region=curve.score_region)[0]) + 1


def test_a_long_memory_asks_for_no_more_corrections_than_iterations() -> None:
    # the correction is 1 after 4e10 iterations, which is no reason to compute them all
    eigenvalues, times = np.array([0.0, 0.3]), np.array([0, 1, 2])
    found = FrozenAdam(0.5, times, beta=1 - 1e-9).decay(eigenvalues)
    # nearly all gradients count alike: the mean of those so far
    once = 1 - 0.5 * eigenvalues
    exact = [np.ones(2), once, once - 0.5 * eigenvalues * (1 + once) / 2]
    np.testing.assert_allclose(found, exact, atol=1e-6)
