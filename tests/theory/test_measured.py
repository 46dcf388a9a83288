"""Predictions through operators: against dense ``A Theta A^T``, and against gradient descent."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import NTK, ImagePrior, Task, fit, tasks
from dipkernels.errors import AccuracyWarning, InvalidInputError
from dipkernels.fitting import stable_learning_rate
from dipkernels.kernels import ObservedKernel
from dipkernels.stages.audits import audit
from dipkernels.tasks import Blur, Fourier, Radon, RandomSensing, as_operator, measure
from dipkernels.theory import (
    Dynamics,
    GradientDescent,
    GradientFlow,
    expand,
    learning_curve,
    linear_fit,
    score,
    unseen_error,
)
from helpers.priors import draw

SHAPE, SIGMA = (1, 6, 7), 0.05
N = 42

OPERATORS: dict[str, Callable[[], tasks.Operator]] = {
    "blur": lambda: Blur(SHAPE, tasks.gaussian_psf(0.8)),
    "few angles": lambda: Radon(SHAPE, 3),
    "more numbers than pixels": lambda: Radon(SHAPE, 9),
    "Fourier": lambda: Fourier(SHAPE, tasks.line_mask(SHAPE[1:], known=0.4)),
    "random": lambda: RandomSensing(SHAPE, 17),
    "a function": lambda: as_operator(lambda x: 5 * x.diff(dim=1), SHAPE),
}


@cache
def kernel_of() -> tuple[ImagePrior, NTK, np.ndarray]:
    net = lambda: nn.Sequential(  # noqa: E731
        nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 1, 3, padding=1)
    )
    prior = ImagePrior(net, draw(1, 2, *SHAPE[1:]))
    ntk = NTK(prior, prior.init(0))
    jacobian = torch.func.jacrev(prior.image)(prior.init(0))
    rows = torch.cat([j.reshape(N, -1) for j in jacobian.values()], dim=1).numpy()
    return prior, ntk, rows @ rows.T


def image() -> Tensor:
    return 0.5 + 0.2 * draw(*SHAPE, seed=4).clamp(-2, 2)


def made(name: str, *, held_out: bool = False) -> Task:
    task = measure(OPERATORS[name](), image(), noise_sigma=SIGMA, seed=1)
    return task.hold_out(0.2) if held_out else task


class Dense:
    """All of a prediction by matrices of float64."""

    def __init__(self, task: Task) -> None:
        _, ntk, self.kernel = kernel_of()
        basis = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
        counted = task.counted.flatten()
        self.matrix = (task.forward(basis).reshape(N, -1).T * counted[:, None]).numpy()
        self.y = (task.measurement * task.counted).numpy().ravel()
        self.begun, self.clean = ntk.image.numpy().ravel(), image().numpy().ravel()
        values, self.vectors = np.linalg.eigh(self.matrix @ self.kernel @ self.matrix.T)
        self.values = np.maximum(values, 0)

    def maps(self, dynamics: Dynamics) -> np.ndarray:
        """From what is measured to what is learned, by times."""
        middle = (self.vectors * dynamics.accumulated(self.values)[:, None, :]) @ self.vectors.T
        return self.kernel @ self.matrix.T @ middle

    def bias(self, dynamics: Dynamics) -> np.ndarray:
        residual = self.clean - self.begun
        return residual - self.maps(dynamics) @ self.matrix @ residual

    def image(self, dynamics: Dynamics) -> np.ndarray:
        return self.begun + self.maps(dynamics) @ (self.y - self.matrix @ self.begun)


def dynamics_of(dense: Dense) -> list[Dynamics]:
    largest = dense.values[-1]
    return [
        GradientFlow(np.array([0.0, 1.0, 30.0, 1e3, 1e5]) / largest),
        GradientDescent(1.9 / largest, np.array([0, 1, 5, 60, 2000])),
    ]


@pytest.mark.parametrize("held_out", [False, True], ids=["all", "held out"])
@pytest.mark.parametrize("name", OPERATORS)
def test_curves_are_those_of_dense_matrices(name: str, held_out: bool) -> None:
    task, ntk = made(name, held_out=held_out), kernel_of()[1]
    dense = Dense(task)
    expected, realised = (expand(ntk, task, noise=n, steps=90, tolerance=0) for n in
                          ("expected", "realised"))  # fmt: skip
    for dynamics in dynamics_of(dense):
        curve = learning_curve(expected, dynamics).sel(region="whole")
        bias = np.square(dense.bias(dynamics)).mean(axis=1)
        variance = SIGMA**2 * np.square(dense.maps(dynamics)).sum(axis=(1, 2)) / N
        # float64: roundings of sums of some ten thousand terms
        np.testing.assert_allclose(curve.bias, bias, rtol=1e-10)
        np.testing.assert_allclose(curve.variance, variance, rtol=1e-10, atol=1e-20)
        learned = dynamics.learned(dense.values).sum(axis=1)
        np.testing.assert_allclose(expected.degrees_of_freedom(dynamics), learned, atol=1e-9)
        one = learning_curve(realised, dynamics).sel(region="whole")
        mse = np.square(dense.image(dynamics) - dense.clean).mean(axis=1)
        np.testing.assert_allclose(one.mse, mse, rtol=1e-10)
        assert bool((one.mse_lower <= mse * (1 + 1e-10)).all() and (mse <= one.mse_upper).all())
        found = linear_fit(ntk, task, steps=60).images(dynamics)
        np.testing.assert_allclose(found, dense.image(dynamics), atol=1e-9)
    assert curve.attrs["outputs"] == task.measurement.numel()


@pytest.mark.parametrize("name", ["blur", "few angles", "Fourier"])
def test_gradient_descent_of_the_linearised_network_follows_them(name: str) -> None:
    prior, ntk, _ = kernel_of()
    task = made(name)
    rate = stable_learning_rate(ObservedKernel(ntk, task))
    linear = prior.linearised(prior.init(0))
    run = fit(
        linear, task, seed=0, optimiser="gradient-descent", iterations=150, learning_rate=rate
    )
    expansion = expand(ntk, task, noise="realised", steps=90, tolerance=0)
    dynamics = GradientDescent.of_fit(rate, 150, task.measurement.numel())
    curve = learning_curve(expansion, dynamics)
    measured = run.psnr_clean.sel(region="whole").values
    np.testing.assert_allclose(curve.psnr.sel(region="whole"), measured, rtol=0, atol=1e-8)
    assert np.ptp(measured) > 0.5


@pytest.mark.parametrize("name", OPERATORS)
def test_bands_of_few_products_hold_the_truth(name: str) -> None:
    task, ntk = made(name), kernel_of()[1]
    dense = Dense(task)
    dynamics = GradientFlow(np.geomspace(0.1, 1e4, 12) / dense.values[-1])
    truth = np.square(dense.bias(dynamics)).mean(axis=1) + (
        SIGMA**2 * np.square(dense.maps(dynamics)).sum(axis=(1, 2)) / N
    )
    for steps in (3, 8):
        expansion = expand(ntk, task, steps=steps, tolerance=0, probes=4, seed=1)
        curve = learning_curve(expansion, dynamics).sel(region="whole")
        inside = (curve.mse_lower <= truth) & (truth <= curve.mse_upper)
        assert float(inside.mean()) > 0.8  # an estimate where the operator isn't a mask


@pytest.mark.parametrize("name", OPERATORS)
def test_errors_are_split_by_the_null_space(name: str) -> None:
    task, ntk = made(name), kernel_of()[1]
    dense, threshold = Dense(task), 1e-2
    dynamics = dynamics_of(dense)[0]
    expansion = expand(ntk, task, steps=90, tolerance=0)
    found = unseen_error(expansion, task, dynamics, threshold=threshold)
    _, values, right = np.linalg.svd(dense.matrix)
    values = np.pad(values, (0, N - len(values)))
    share = values**2 / (values**2 + (threshold * values[0]) ** 2)
    along = np.square(dense.bias(dynamics) @ right.T) / N
    # the norm is a power iteration's, to some 1e-4; by it the threshold is off
    np.testing.assert_allclose(found.seen, along @ share, rtol=2e-3, atol=1e-12)
    np.testing.assert_allclose(found.seen + found.unseen, along.sum(axis=1), rtol=1e-10)
    if name in ("Fourier", "random"):  # where it is sharp
        np.testing.assert_allclose(found.unseen, along[:, values < 0.5].sum(axis=1), rtol=2e-2)
        assert float(found.unseen[-1]) > 5 * float(found.seen[-1])
    with pytest.raises(InvalidInputError, match="threshold must be in"):
        unseen_error(expansion, task, dynamics, threshold=1.0)


def test_a_split_that_products_do_not_resolve_is_said() -> None:
    task, prior = made("blur"), kernel_of()[0]
    single = prior.to(dtype=torch.float32)
    expansion = expand(NTK(single, single.init(0)), task, steps=6, tolerance=0)
    early, late = (GradientFlow(np.array([t / expansion.largest])) for t in (1e-2, 1e12))
    found = unseen_error(expansion, task, early)
    assert (found.unresolved < 1e-4 * (found.seen + found.unseen)).all()
    with pytest.warns(AccuracyWarning, match="don't resolve"):
        found = unseen_error(expansion, task, late)
    assert (found.unresolved > 0.01 * (found.seen + found.unseen)).all()


@pytest.mark.slow
def test_scores_and_audits_take_operators() -> None:
    prior = kernel_of()[0]
    task = made("blur")
    dense = Dense(task)
    times = np.geomspace(0.1, 1e8, 800) / dense.values[-1]
    flow = GradientFlow(times)
    mse = np.square(dense.bias(flow)).mean(axis=1) + (
        SIGMA**2 * np.square(dense.maps(flow)).sum(axis=(1, 2)) / N
    )
    found = score(prior, task, steps=90)
    assert found.attrs["method"] == "lanczos" and bool(found.resolved.all())
    # between the times of the score's grid, a twentieth of a decade apart
    assert float(found.psnr[0, 0]) == pytest.approx(-10 * np.log10(mse.min()), abs=0.02)
    with pytest.raises(InvalidInputError, match="another operator than the identity"):
        score(prior, task, method="dense")
    linear = prior.linearised(prior.init(0))
    checked = audit(linear, task, iterations=20, steps=60, optimisers=["gradient-descent"], modes=3)
    # the linearised network is its own prediction
    assert float(checked.largest_gap[0]) < 1e-5
    assert bool((checked.mode_energy >= 0).all())


def test_what_kernels_do_not_predict_is_refused() -> None:
    prior, ntk, _ = kernel_of()
    task = tasks.dejpeg(image())
    for call in (expand, linear_fit):
        with pytest.raises(
            InvalidInputError, match=r"kernel predictions don't apply .* JPEG rounds"
        ):
            call(ntk, task)
    with pytest.raises(InvalidInputError, match="Fits and samplers take it"):
        score(prior, task)
