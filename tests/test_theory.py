"""Predicted learning curves, against dense formulas, Monte Carlo and the fits themselves."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, Task, fit, images, tasks
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.linalg import Lanczos
from dipkernels.theory import (
    Dynamics,
    Expansion,
    GradientDescent,
    GradientFlow,
    expand,
    learning_curve,
    resolved_stretch,
)
from dipkernels.theory.expansion import default_times

# Dynamics


EIGENVALUES = np.array([0.0, 1e-300, 1e-17, 1e-14, 1e-9, 1e-4, 0.03, 0.4, 0.5, 0.7, 1.0])


def both(eigenvalue: float, time: int) -> list[tuple[float, float]]:
    """Decay and accumulated of the flow and of descent with step 0.9, in 60 digits."""
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(400):
        x, step = mpmath.mpf(eigenvalue), mpmath.mpf(0.9)
        flow, descent = mpmath.exp(-time * x), (1 - step * x) ** time
        out = []
        for decay, limit in ((flow, mpmath.mpf(time)), (descent, step * time)):
            out.append((float(decay), float((1 - decay) / x if x else limit)))
        return out


@pytest.mark.parametrize("time", [0, 1, 2, 77, 100_000])
def test_scalar_functions_are_right_to_the_last_digits(time: int) -> None:
    flow = GradientFlow(np.array([float(time)]))
    descent = GradientDescent(0.9, np.array([time]))
    exact = np.array([both(x, time) for x in EIGENVALUES])  # (eigenvalue, dynamics, function)
    for i, dynamics in enumerate((flow, descent)):
        # time roundings in a power; none to speak of in what accumulates, however small
        np.testing.assert_allclose(
            dynamics.decay(EIGENVALUES)[0], exact[:, i, 0], rtol=0, atol=1e-15 * max(time, 1)
        )
        np.testing.assert_allclose(dynamics.accumulated(EIGENVALUES)[0], exact[:, i, 1], rtol=1e-13)


def test_what_accumulates_is_the_integral_of_the_decay() -> None:
    eigenvalues, times, h = np.array([0.0, 1e-3, 0.2, 1.7, 30.0]), np.array([0.3, 1.0, 9.0]), 1e-5
    after, before = (GradientFlow(times + d).accumulated(eigenvalues) for d in (h, -h))
    # central differences: error h^2 x^2 / 6, here below 2e-8
    np.testing.assert_allclose(
        (after - before) / (2 * h), GradientFlow(times).decay(eigenvalues), atol=3e-8
    )
    descent = GradientDescent(1 / 20, np.arange(40))
    steps = np.diff(descent.accumulated(eigenvalues), axis=0)
    np.testing.assert_allclose(steps, descent.decay(eigenvalues)[:-1] / 20, atol=1e-14)


def test_small_steps_of_descent_are_the_flow() -> None:
    eigenvalues, times = np.array([0.0, 0.1, 1.0, 3.0]), np.array([0.5, 2.0])
    flow = GradientFlow(times)
    for step in (1e-3, 1e-5):
        descent = GradientDescent(step, np.rint(times / step).astype(int))
        # relative error of first order, t x^2 step / 2
        for name in ("decay", "accumulated"):
            np.testing.assert_allclose(
                getattr(descent, name)(eigenvalues),
                getattr(flow, name)(eigenvalues),
                rtol=10 * step,
            )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientFlow(np.array([])), "non-empty"),
        (lambda: GradientFlow(np.array([1.0, -1.0])), "aren't negative"),
        (lambda: GradientFlow(np.array([np.nan])), "finite"),
        (lambda: GradientFlow(np.ones((2, 2))), "non-empty array"),
        (lambda: GradientDescent(1.0, np.array([-1])), "aren't negative"),
        (lambda: GradientDescent(1.0, np.array([1.0])), "iterations must be integers, got float64"),
        (lambda: GradientDescent(0.0, np.arange(3)), "positive and finite, got 0.0"),
        (lambda: GradientDescent(math.inf, np.arange(3)), "positive and finite, got inf"),
        (lambda: GradientDescent(math.nan, np.arange(3)), "positive and finite, got nan"),
    ],
)
def test_dynamics_validate_their_settings(make: Callable[[], Dynamics], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        make()


# A network whose kernel is known: linear in its parameters


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
}


def filters(kernel: np.ndarray, task: Task, dynamics: Dynamics) -> np.ndarray:
    """The linear map from the measured ``y - f_0`` to ``f - f_0``, per time."""
    measured = np.flatnonzero(task.measured.numpy().ravel())
    block = kernel[np.ix_(measured, measured)]
    identity = np.eye(len(block))
    out = np.zeros((len(dynamics.times), N, N))
    for i, t in enumerate(dynamics.times):
        if isinstance(dynamics, GradientDescent):
            step = dynamics.step
            left = np.linalg.matrix_power(identity - step * block, int(t))
        else:
            left = scipy.linalg.expm(-t * block)
        # the kernel here is well conditioned enough for an inverse (1e5)
        learned = kernel[:, measured] @ np.linalg.solve(block, identity - left)
        out[i][:, measured] = learned
    return out


def dense_curve(
    kernel: np.ndarray, task: Task, residual: np.ndarray, dynamics: Dynamics
) -> tuple[np.ndarray, np.ndarray]:
    """Bias and variance of every region, (time, region), from the formula's matrices."""
    maps = filters(kernel, task, dynamics)
    bias = np.square(residual - maps @ residual)
    variance = task.noise_sigma**2 * np.square(maps).sum(axis=2)
    regions = flat_regions(task).values()
    return tuple(np.array([x[:, r].mean(axis=1) for r in regions]).T for x in (bias, variance))


def with_exact_trace(expansion: Expansion, ntk: NTK, steps: int) -> Expansion:
    """Replace its random probes by orthogonal signs, over which a trace is the exact mean."""
    measured = expansion.measured
    count = int(measured.sum())
    signs = torch.zeros(N, count, dtype=torch.float64)
    signs[measured] = torch.from_numpy(scipy.linalg.hadamard(count, dtype=float))
    mask = None if bool(measured.all()) else measured
    spaces = Lanczos(ntk, signs, mask=mask).extend(steps).spaces()
    return dataclasses.replace(expansion, probes=spaces)


def kernel_and_ntk(seed: int = 0, length: float = 2.0) -> tuple[np.ndarray, NTK]:
    kernel = smooth_kernel(seed, length)
    prior = make_prior(kernel)
    return kernel, NTK(prior, prior.init(seed))


def test_the_linear_network_has_the_kernel_it_was_given() -> None:
    kernel, ntk = kernel_and_ntk()
    np.testing.assert_allclose(ntk.to_dense(), kernel, atol=1e-14)
    assert np.linalg.cond(kernel) < 1e5


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize("kind", ["denoise", "inpaint", "inpaint channelwise", "held out"])
@pytest.mark.parametrize("sigma", [0.0, SIGMA])
def test_curves_are_those_of_the_dense_formula(kind: str, sigma: float, name: str) -> None:
    kernel, ntk = kernel_and_ntk()
    task, dynamics = make_task(kind, sigma), DYNAMICS[name]
    expansion = expand(ntk, task, steps=N)
    assert len(expansion.probes) == (3 if sigma else 0)
    if sigma:
        expansion = with_exact_trace(expansion, ntk, N)
    bias, variance = dense_curve(kernel, task, expansion.residual.numpy(), dynamics)
    curve = learning_curve(expansion, dynamics)
    assert curve.region.values.tolist() == list(task.regions)
    assert curve[dynamics.dimension].values.tolist() == dynamics.times.tolist()
    # Lanczos has run to the end; the dense inverse rounds at 1e-11
    np.testing.assert_allclose(curve.bias, bias, atol=1e-9 * bias.max())
    np.testing.assert_allclose(curve.variance, variance, atol=1e-9)
    np.testing.assert_allclose(curve.mse, bias + variance, atol=1e-9)
    np.testing.assert_allclose(curve.psnr, -10 * np.log10(curve.mse), atol=1e-12)
    if sigma:
        assert variance.max() > 0.1 * SIGMA**2
        assert curve.psnr.units == "dB"


@pytest.mark.parametrize("name", ["flow", "descent"])
@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_curves_are_the_mean_over_noise_of_the_dynamics(kind: str, name: str) -> None:
    kernel, ntk = kernel_and_ntk(1)
    task, dynamics = make_task(kind), DYNAMICS[name]
    expansion = with_exact_trace(expand(ntk, task, steps=N), ntk, N)
    curve = learning_curve(expansion, dynamics)
    # 3000 fits at once, each by its own noise, stepped and not by a formula
    rng = np.random.default_rng(2)
    start = ntk.image.numpy().ravel()
    clean = task.clean.numpy().ravel()
    measured = np.tile(task.mask.numpy().ravel(), CHANNELS).astype(float)
    y = (clean + SIGMA * rng.standard_normal((3000, N))) * measured
    for i, time in enumerate(dynamics.times[:5]):
        if isinstance(dynamics, GradientDescent):
            f = np.tile(start, (3000, 1))
            for _ in range(int(time)):
                f -= dynamics.step * (f * measured - y) @ kernel
        else:
            # the flow df/dt = -K M (f - y) by one exponential, of a matrix that isn't symmetric
            generator = -time * kernel * measured
            step = scipy.linalg.expm(np.block([[generator, np.eye(N)], [np.zeros((N, 2 * N))]]))
            f = start @ step[:N, :N].T + time * (y @ kernel) @ step[:N, N:].T
        for name_, region in flat_regions(task).items():
            errors = np.square(f - clean)[:, region].mean(axis=1)
            mse = float(curve.mse.sel(region=name_)[i])
            # 25 comparisons of means over 3000 draws: within four standard errors
            margin = 4 * errors.std() / np.sqrt(len(errors)) + 1e-12
            assert abs(errors.mean() - mse) < margin
            if time >= 2:
                assert margin < 0.1 * mse  # not vacuous


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_a_linear_network_is_fitted_exactly_as_predicted(kind: str) -> None:
    _, ntk = kernel_and_ntk(2)
    task = make_task(kind, 0.0)
    rate = 1.4 * stable_learning_rate(ntk)
    measured = fit(
        ntk.prior, task, optimiser="gradient-descent", learning_rate=rate, iterations=60, seed=2
    )
    dynamics = GradientDescent.of_fit(rate, 60, N)
    curve = learning_curve(expand(ntk, task, steps=N), dynamics)
    # without noise the expectation is the fit itself: rounding, of 60 steps and in dB
    np.testing.assert_allclose(curve.psnr, measured.psnr_clean, atol=1e-8)
    assert curve.region.values.tolist() == measured.region.values.tolist()
    assert float(curve.psnr[-1, 0] - curve.psnr[0, 0]) > 3


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
@pytest.mark.parametrize("name", ["flow", "descent"])
def test_the_band_holds_the_truth_at_any_number_of_steps(kind: str, name: str) -> None:
    kernel, ntk = kernel_and_ntk(3)
    task, dynamics = make_task(kind), DYNAMICS[name]
    maps, regions = filters(kernel, task, dynamics), flat_regions(task).values()
    mask = None if task.mask.all() else torch.from_numpy(np.tile(task.mask.ravel(), CHANNELS))
    signs = ntk.rademacher(1, 5)
    widths = []
    for steps in (2, 4, 8, 16, N):
        quiet = expand(ntk, make_task(kind, 0.0), steps=steps)
        # one probe twice: no spread over the probes, which would hide a wrong bound
        (probe,) = Lanczos(ntk, signs, mask=mask).extend(steps).spaces()
        expansion = dataclasses.replace(quiet, probes=[probe, probe], noise_sigma=SIGMA)
        curve = learning_curve(expansion, dynamics)
        v = (probe.norm * probe.basis[0]).numpy()
        squares = np.square(quiet.residual.numpy() - maps @ quiet.residual.numpy())
        squares += SIGMA**2 * np.square(maps @ v)
        truth = np.array([squares[:, region].mean(axis=1) for region in regions]).T
        assert (curve.mse_lower <= truth * (1 + 1e-9)).all()
        assert (curve.mse_upper >= truth * (1 - 1e-9)).all()
        assert (curve.mse_lower <= curve.mse * (1 + 1e-12)).all()
        assert (curve.mse <= curve.mse_upper * (1 + 1e-12)).all()
        widths.append(((curve.mse_upper - curve.mse_lower) / truth).values)
    # few steps tell little of late times and much of early ones, more tell more, all tell all
    assert (widths[0][3:] > 0.1).all()
    assert (widths[2][:3] < 0.01).all()
    assert (widths[3][:4] < 0.01).all()
    np.testing.assert_allclose(widths[-1], 0, atol=1e-7)


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_random_probes_err_as_the_band_says(kind: str) -> None:
    # a rough field: many eigenvalues count, so that means over probes are nearly normal
    kernel, ntk = kernel_and_ntk(4, length=0.5)
    task, dynamics = make_task(kind), GradientFlow(np.array([1.0, 4.0]))
    expansion = expand(ntk, make_task(kind, 0.0), steps=N)
    mask = None if bool(expansion.measured.all()) else expansion.measured
    spaces = Lanczos(ntk, ntk.rademacher(640, 1), mask=mask).extend(12).spaces()
    truth = sum(dense_curve(kernel, task, expansion.residual.numpy(), dynamics))
    scores = []
    for group in range(40):
        probes = spaces[16 * group : 16 * (group + 1)]
        noisy = dataclasses.replace(expansion, probes=probes, noise_sigma=SIGMA)
        curve = learning_curve(noisy, dynamics)
        scores.append((4 * (curve.mse - truth) / (curve.mse_upper - curve.mse_lower)).values)
    scores = np.array(scores)
    # Student's t with 15 degrees of freedom spreads by 1.07; times and regions hang together
    assert abs(scores.mean()) < 4 / np.sqrt(len(scores))
    assert 0.75 < scores.std() < 1.45


# The noise of one measurement


def clipped_task() -> Task:
    """Noise that is far from white where the image is nearly black or white."""
    return tasks.denoise(clean_image(), noise_sigma=0.6, clip=True)


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize("kind", ["denoise", "inpaint", "held out", "clipped"])
def test_realised_noise_is_that_of_the_measurement(kind: str, name: str) -> None:
    kernel, ntk = kernel_and_ntk(1)
    task = clipped_task() if kind == "clipped" else make_task(kind)
    dynamics, regions = DYNAMICS[name], flat_regions(task).values()
    maps = filters(kernel, task, dynamics)
    residual, seen = (
        (image - ntk.image).flatten().numpy() for image in (task.clean, task.measurement)
    )
    truth = np.array([np.square(residual - maps @ seen)[:, r].mean(axis=1) for r in regions]).T
    widths = []
    for steps in (4, 8, N):
        expansion = expand(ntk, task, noise="realised", steps=steps)
        assert expansion.products == len(expansion.bias.alpha) <= steps
        assert not expansion.probes
        curve = learning_curve(expansion, dynamics)
        assert curve.noise == "realised"
        assert "bias" not in curve
        # the band is wider than the error by orders of magnitude where few steps tell little
        assert (curve.mse_lower <= truth * (1 + 1e-9)).all()
        assert (curve.mse_upper >= truth * (1 - 1e-9)).all()
        widths.append(((curve.mse_upper - curve.mse_lower) / truth).values)
    assert (widths[0][4:] > 0.1).all()
    assert (widths[1][:3] < 0.01).all()
    # to the end: the dense formula's inverse rounds at 1e-11
    np.testing.assert_allclose(curve.mse, truth, rtol=1e-9)


def test_a_fit_that_has_begun_goes_on_as_predicted_from_where_it_is() -> None:
    _, ntk = kernel_and_ntk(2)
    task = make_task("denoise", 0.1)
    rate = stable_learning_rate(ntk)
    leaves = {key: value.clone().requires_grad_() for key, value in ntk.parameters.items()}

    def step_with(engine: torch.optim.Optimizer, steps: int) -> list[float]:
        errors = []
        for _ in range(steps):
            image = ntk.prior.image(leaves)
            errors.append(float(task.mse(image.detach())))
            engine.zero_grad()
            task.misfit(image).backward()
            engine.step()
        return errors

    step_with(torch.optim.Adam(leaves.values(), lr=0.05), 300)
    later = NTK(ntk.prior, {key: leaf.detach().clone() for key, leaf in leaves.items()})
    measured = step_with(torch.optim.SGD(leaves.values(), lr=rate), 80)
    dynamics = GradientDescent.of_fit(rate, 79, N)
    one = learning_curve(expand(later, task, noise="realised", steps=N), dynamics)
    # one linear network, stepped by torch: rounding of 80 steps
    np.testing.assert_allclose(one.mse[:, 0], measured, rtol=1e-9)
    # the residual there knows the noise, which the mean over noises takes for independent: as if
    # noise that has been fitted could be unlearned
    late = GradientFlow(np.geomspace(1, 1e6, 30))
    one = learning_curve(expand(later, task, noise="realised", steps=N), late)
    mean = with_exact_trace(expand(later, task, steps=N), later, N)
    assert float(abs(learning_curve(mean, late).psnr - one.psnr).max()) > 1


def test_known_spaces_serve_a_realised_measurement() -> None:
    kernel, ntk = kernel_and_ntk(6)
    task, dynamics = make_task("denoise", 0.1), GradientFlow(np.geomspace(0.1, 1e4, 60))
    spaces = Lanczos(ntk, ntk.rademacher(3, 9)).extend(16).spaces()
    expansion = expand(ntk, task, noise="realised", steps=10, spaces=spaces)
    assert expansion.known is not None
    assert expansion.products == 10
    curve = learning_curve(expansion, dynamics)
    error = expansion.residual.numpy() - filters(kernel, task, dynamics) @ expansion.start.numpy()
    truth = np.square(error).mean(axis=1, keepdims=True)
    # deflated eigenvectors are good to 1e-3, and so is the bound
    assert (curve.mse_lower <= truth * (1 + 1e-3)).all()
    assert (curve.mse_upper >= truth * (1 - 1e-3)).all()
    np.testing.assert_allclose(curve.mse, truth, rtol=0.02)
    alone = learning_curve(expand(ntk, task, noise="realised", steps=10), dynamics)
    assert float(abs(alone.mse / truth - 1).max()) > 0.2


# The expansion


def test_an_expansion_says_what_it_cost_and_holds() -> None:
    kernel, ntk = kernel_and_ntk(5)
    task = make_task("denoise")
    expansion = expand(ntk, task, steps=12, probe_steps=5, probes=4)
    assert expansion.products == 12 + 4 * 5
    assert [len(space.alpha) for space in expansion.probes] == [5] * 4
    assert expand(ntk, task, steps=12, probes=2).products == 12 + 2 * 6
    assert expand(ntk, make_task("denoise", 0.0), steps=12).products == 12
    residual = (task.clean - ntk.image).flatten()
    np.testing.assert_allclose(expansion.residual, residual, atol=1e-15)
    assert expansion.largest == pytest.approx(np.linalg.eigvalsh(kernel)[-1], rel=1e-6)
    other = expand(ntk, task, steps=12, probe_steps=5, probes=4, seed=1)
    assert not torch.equal(other.probes[0].basis[0], expansion.probes[0].basis[0])
    masked = expand(ntk, make_task("inpaint"), steps=12)
    assert masked.score_region == "hole"
    for name, region in flat_regions(make_task("inpaint")).items():
        assert masked.regions[name].tolist() == region.tolist()
    assert (masked.bias.basis[:, ~masked.measured] == 0).all()


def test_known_spaces_save_steps() -> None:
    kernel, ntk = kernel_and_ntk(6)
    task, dynamics = make_task("denoise", 0.0), GradientFlow(np.geomspace(0.1, 1e4, 60))
    spaces = Lanczos(ntk, ntk.rademacher(3, 9)).extend(16).spaces()
    gaps = {}
    for known in (None, spaces):
        expansion = expand(ntk, task, steps=10, spaces=known)
        assert expansion.products == 10
        assert expansion.largest == pytest.approx(1, rel=1e-6)
        curve = learning_curve(expansion, dynamics)
        truth = sum(dense_curve(kernel, task, expansion.residual.numpy(), dynamics))
        # deflated eigenvectors are good to 1e-3, and so are the bounds
        assert (curve.mse_lower <= truth * (1 + 1e-3)).all()
        assert (curve.mse_upper >= truth * (1 - 1e-3)).all()
        gaps[known is None] = float((curve.psnr_upper - curve.psnr_lower).max())
    assert gaps[False] < 0.1 * gaps[True]


def test_spaces_that_know_all_leave_nothing_to_do() -> None:
    kernel, ntk = kernel_and_ntk(6)
    spaces = Lanczos(ntk, ntk.rademacher(2, 9)).extend(N).spaces()
    task, dynamics = make_task("denoise"), DYNAMICS["descent"]
    expansion = expand(ntk, task, steps=10, spaces=spaces)
    assert expansion.products == 0
    bias, variance = dense_curve(kernel, task, expansion.residual.numpy(), dynamics)
    curve = learning_curve(expansion, dynamics)
    # nothing is left to the probes either: no error bar
    np.testing.assert_allclose(curve.bias, bias, atol=1e-9)
    np.testing.assert_allclose(curve.variance, variance, atol=1e-9)
    np.testing.assert_allclose(curve.mse_upper, curve.mse_lower, atol=1e-12)


def test_known_eigenvalues_count_exactly_and_the_rest_without_bias() -> None:
    kernel, ntk = kernel_and_ntk(4, length=0.5)
    task, dynamics, seeds = make_task("denoise"), GradientFlow(np.array([1.0, 4.0])), 24
    spaces = Lanczos(ntk, ntk.rademacher(2, 99)).extend(8).spaces()
    errors, bars = [], []
    for seed in range(seeds):
        expansion = expand(ntk, task, steps=2, probe_steps=10, probes=8, seed=seed, spaces=spaces)
        assert 3 <= len(expansion.probes[0].deflated.nodes) <= 12
        bias = learning_curve(dataclasses.replace(expansion, noise_sigma=0.0), dynamics)
        curve = learning_curve(expansion, dynamics)
        _, truth = dense_curve(kernel, task, expansion.residual.numpy(), dynamics)
        errors.append((curve.variance - truth).values[:, 0])
        bars.append((curve.mse_upper - bias.mse_upper - curve.variance).values[:, 0] / 2)
    mean, spread = np.mean(errors, axis=0), np.std(errors, axis=0)
    assert (abs(mean) < 4 * spread / np.sqrt(seeds)).all()
    # 24 draws know a deviation to 15 %
    told = np.sqrt(np.mean(np.square(bars), axis=0))
    np.testing.assert_allclose(told, spread, rtol=0.45)
    # and a smaller one than of as many probes without what is known
    values, vectors = np.linalg.eigh(kernel)
    for i, time in enumerate(dynamics.times):
        learned = (vectors * np.square(np.expm1(-time * values))) @ vectors.T
        off = learned - np.diag(np.diag(learned))
        assert told[i] < 0.8 * SIGMA**2 * np.sqrt(2 / 8) * np.linalg.norm(off) / N


def test_probes_are_independent_of_known_spaces_of_the_same_seed() -> None:
    _, ntk = kernel_and_ntk(4)
    spaces = Lanczos(ntk, ntk.rademacher(2, 5)).extend(4).spaces()
    expansion = expand(ntk, make_task("denoise"), steps=4, probes=2, seed=5, spaces=spaces)
    union, _ = torch.linalg.qr(torch.cat([space.basis for space in spaces]).T)
    for probe in expansion.probes:
        start = probe.basis[0]
        assert float((start - union @ (union.T @ start)).norm()) > 0.5


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("denoise", {"probes": 1}, "at least 2 probes are needed for an error bar, got 1"),
        ("denoise", {"steps": 1}, "at least 2 Lanczos steps are needed, got steps=1"),
        ("denoise", {"probe_steps": 0}, "at least 2 Lanczos steps .* probe_steps=0"),
        ("inpaint", {"spaces": []}, "no use with missing pixels"),
        ("denoise", {"noise": "realised", "probes": 3}, "realised noise needs no probes"),
        ("denoise", {"noise": "realised", "probe_steps": 9}, "realised noise needs no probes"),
    ],
)
def test_expand_validates_its_settings(kind: str, settings: dict[str, Any], message: str) -> None:
    _, ntk = kernel_and_ntk()
    with pytest.raises(InvalidInputError, match=message):
        expand(ntk, make_task(kind), **settings)


def test_a_task_of_another_shape_is_an_error() -> None:
    _, ntk = kernel_and_ntk()
    with pytest.raises(InvalidInputError, match=r"shape \(2, 8, 2\), .* over images \(2, 2, 8\)"):
        expand(ntk, tasks.denoise(clean_image().transpose(1, 2)))


def test_predictions_need_pixels_and_a_clean_image() -> None:
    _, ntk = kernel_and_ntk()
    clean = clean_image()
    blind = tasks.denoise(measurement=clean, noise_sigma=0.1)
    with pytest.raises(InvalidInputError, match="to a clean image; this task has none"):
        expand(ntk, blind)
    jpeg = tasks.dejpeg(clean, measurement=clean)
    with pytest.raises(InvalidInputError, match="has no mask: its operator is JPEG compression"):
        expand(ntk, jpeg)


# The curve


def test_default_times_span_the_kernel() -> None:
    _, ntk = kernel_and_ntk()
    expansion = expand(ntk, make_task("denoise"), steps=N, probe_steps=N)
    curve = learning_curve(expansion)
    np.testing.assert_array_equal(curve.time, default_times(expansion))
    span = curve.time.values[[0, -1]] * expansion.largest
    np.testing.assert_allclose(span, [0.1, 1e8], rtol=1e-12)
    # at the first time little was learned, and at the last everything
    assert float(curve.mse[0, 0]) == pytest.approx(
        float(expansion.residual.square().mean()), rel=0.2
    )
    assert float(curve.mse[-1, 0]) == pytest.approx(SIGMA**2, rel=1e-6)


def test_the_peak_is_that_of_the_curve() -> None:
    kernel, ntk = kernel_and_ntk(7)
    task, dynamics = make_task("denoise", 0.03), GradientFlow(np.geomspace(0.01, 1e6, 90))
    expansion = with_exact_trace(expand(ntk, task, steps=N), ntk, N)
    curve = learning_curve(expansion, dynamics)
    truth = -10 * np.log10(sum(dense_curve(kernel, task, expansion.residual.numpy(), dynamics)))
    assert 0 < truth.argmax() < len(truth) - 1
    assert curve.peak_psnr == pytest.approx(truth.max(), abs=1e-7)
    assert curve.peak_time == dynamics.times[truth.argmax()]
    assert curve.peak_psnr_lower <= curve.peak_psnr <= curve.peak_psnr_upper
    assert curve.peak_resolved == 1
    assert curve.score_region == "whole"
    assert curve.largest_eigenvalue == expansion.largest
    assert curve.products == expansion.products
    assert resolved_stretch(curve, "whole") == len(truth)


def test_a_peak_that_the_steps_cannot_resolve_is_a_lower_bound() -> None:
    kernel, ntk = kernel_and_ntk(7)
    task, dynamics = make_task("denoise", 0.02), GradientFlow(np.geomspace(0.01, 1e6, 90))
    expansion = with_exact_trace(expand(ntk, task, steps=4), ntk, 4)
    curve = learning_curve(expansion, dynamics)
    truth = -10 * np.log10(sum(dense_curve(kernel, task, expansion.residual.numpy(), dynamics)))
    assert curve.peak_resolved == 0
    assert curve.peak_psnr == curve.peak_psnr_lower == float(curve.psnr_lower.max())
    assert curve.peak_psnr <= truth.max() <= curve.peak_psnr_upper
    stretch = resolved_stretch(curve, "whole")
    band = (curve.psnr_upper - curve.psnr_lower).values[:, 0]
    assert 0 < stretch < len(band)
    assert (band[:stretch] <= 1).all()
    assert band[stretch] > 1


def synthetic_band(width: list[float]) -> xr.Dataset:
    half = np.array(width)[:, None] / 2
    over = ("time", "region")
    curves = {"psnr": np.full_like(half, 20), "psnr_lower": 20 - half, "psnr_upper": 20 + half}
    return xr.Dataset({k: (over, v) for k, v in curves.items()}, {"region": ["hole"]})


@pytest.mark.parametrize(
    ("width", "expected"),
    [([0.1, 1.0, 1.5, 0.2], 2), ([2.0, 0.1], 0), ([0.1, 0.3], 2), ([0.1, math.inf, 0.1], 1)],
)
def test_a_stretch_ends_where_the_band_first_widens(width: list[float], expected: int) -> None:
    assert resolved_stretch(synthetic_band(width), "hole") == expected


def test_descent_that_diverges_is_an_error_that_says_so() -> None:
    _, ntk = kernel_and_ntk()
    expansion = expand(ntk, make_task("denoise"), steps=30)
    limit = 2 / expansion.largest
    # beyond the limit it grows, which is a prediction as long as it's a number
    grown = learning_curve(expansion, GradientDescent(1.1 * limit, np.array([0, 50])))
    assert float(grown.mse[1, 0]) > 1e6 * float(grown.mse[0, 0])
    with pytest.raises(DivergenceError, match=f"largest eigenvalue, {limit:.3g}"):
        learning_curve(expansion, GradientDescent(1.1 * limit, np.array([0, 10_000])))


# Real networks under gradient descent


class WideDecoder(nn.Module):
    """Convolution, x4 bilinear upsampling, ReLU, convolution; outputs of size 1 at any width."""

    def __init__(self, code_channels: int, width: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(code_channels, width, 3, padding=1, bias=False)
        self.last = nn.Conv2d(width, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.last.weight, nonlinearity="linear")
        self.upsample = nn.Upsample(scale_factor=4, mode="bilinear")

    def forward(self, code: Tensor) -> Tensor:
        image: Tensor = self.last(torch.relu(self.upsample(self.first(code))))
        return image


@functools.cache
def stacked_crops(size: tuple[int, int], count: int) -> Tensor:
    """Crops of one photograph as channels of one image: many outputs of one small network."""
    photograph = images.load("astronaut", size=96)
    rng = np.random.default_rng(0)
    crops = []
    for _ in range(count):
        top, left = (int(rng.integers(0, 96 - side + 1)) for side in size)
        crops.append(photograph[:, top : top + size[0], left : left + size[1]])
    return torch.cat(crops)


def test_a_wide_decoder_peaks_where_its_kernel_says() -> None:
    # The prediction averages over the noise, which moves the peak of one fit of an RGB crop of
    # this size by 0.3 dB. So there are 8 crops, and the errors of 4 fits are averaged: 0.06 dB.
    # What the linearisation misses is less, with the noise of one fit: 0.02 dB at its peak (0.1 dB
    # at width 64, 0.005 dB at 512).
    size, width, iterations, seed = (16, 20), 256, 220, 0
    clean = stacked_crops(size, 8)
    code = torch.randn(1, 16, 4, 5, generator=torch.Generator().manual_seed(0))
    prior = ImagePrior(lambda: WideDecoder(16, width, len(clean)), code)
    ntk = NTK(prior, prior.init(seed))
    rate = stable_learning_rate(ntk)
    noisy = [tasks.denoise(clean, noise_sigma=0.5, seed=draw) for draw in range(4)]
    fits = [
        fit(
            prior,
            task,
            optimiser="gradient-descent",
            learning_rate=rate,
            iterations=iterations,
            seed=seed,
        ).psnr_clean.sel(region="whole")
        for task in noisy
    ]
    measured = -10 * np.log10(np.mean([10 ** (-0.1 * psnr.values) for psnr in fits], axis=0))
    dynamics = GradientDescent.of_fit(rate, iterations, clean.numel())
    curve = learning_curve(expand(ntk, noisy[0], steps=60, probes=8, seed=seed), dynamics)
    predicted = curve.psnr.sel(region="whole").values
    # a true peak of both: risen to it by decibels, and fallen again by the end
    for psnr in (predicted, measured):
        assert psnr.max() - psnr[0] > 5
        assert psnr.max() - psnr[-1] > 0.2
    assert abs(predicted.max() - measured.max()) < 0.2
    assert curve.peak_resolved == 1
    assert curve.peak_psnr == pytest.approx(predicted.max())
    # and the whole way there
    peak = max(predicted.argmax(), measured.argmax())
    np.testing.assert_allclose(predicted[: peak + 1], measured[: peak + 1], atol=0.2)
    assert predicted.argmax() == pytest.approx(measured.argmax(), rel=0.15)
