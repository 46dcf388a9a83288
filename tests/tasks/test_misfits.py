"""What errors cost: laws of noise against SciPy and torch, weights, and who takes which."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats
import torch
import xarray as xr
from torch import Tensor

from dipkernels import NTK, Task, fit, gp, tasks
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.fitting.optimisers import default_learning_rate
from dipkernels.sampling import WeightPosterior, conformal, linearised, uncertainty
from dipkernels.stopping.twins import Twin
from dipkernels.tasks import misfits
from dipkernels.theory import GradientFlow, expand, learning_curve, linear_fit, score
from helpers.linear_network import clean_image, half_mask, make_prior, smooth_kernel

RANDOM = torch.Generator().manual_seed(4)
SHAPE = (2, 2, 8)  # of the helpers' images


def huber(prediction: Tensor, measurement: Tensor) -> Tensor:
    """Not separable, negative, and convex."""
    error = prediction - measurement
    return torch.log1p(error.square()).sum() + error.sum() ** 2 - 500


LAWS: dict[str, misfits.Misfit] = {
    "squares": misfits.SQUARES,
    "l1": misfits.Laplace(),
    "poisson": misfits.Poisson(peak=30.0, background=0.1),
    "own": misfits.OwnMisfit(huber),
}


def task_of(law: object, noise_sigma: float = 0.2) -> Task:
    clean = 0.2 + 0.7 * clean_image()
    operator = tasks.Blur(clean.shape, torch.tensor([[0.2, 0.5, 0.3]]).double())
    sigma = 0.0 if isinstance(law, misfits.Poisson) else noise_sigma
    return tasks.measure(operator, clean, noise_sigma=sigma, misfit=law)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_gradients_are_those_of_finite_differences(law: misfits.Misfit) -> None:
    task = task_of(law)
    image = torch.rand((3, *SHAPE), generator=RANDOM, dtype=torch.float64, requires_grad=True)
    # gradcheck's own tolerances, for steps of 1e-6 in float64; no error is within a step of a kink
    assert torch.autograd.gradcheck(task.misfit, (image,))
    alone = torch.stack([task.misfit(each) for each in image])
    torch.testing.assert_close(task.misfit(image), alone, rtol=1e-12, atol=0)
    mapped = torch.func.vmap(task.misfit)(image)
    torch.testing.assert_close(mapped, alone, rtol=1e-12, atol=0)


def test_counts_cost_what_scipy_and_torch_say() -> None:
    law = misfits.Poisson(peak=50.0, background=0.02)
    counts = torch.tensor([0.0, 1.0, 3.0, 60.0, 200.0], dtype=torch.float64)
    prediction = torch.tensor([0.3, 0.01, 0.5, 1.1, 0.2], dtype=torch.float64)
    mean, measured = 50 * (prediction + 0.02), counts / 50
    cost = law.cost(prediction, measured)
    pmf = scipy.stats.poisson.logpmf(counts, mean) - scipy.stats.poisson.logpmf(counts, counts)
    # float64, and differences of logarithms of factorials up to 860
    np.testing.assert_allclose(cost.numpy(), -pmf, rtol=1e-11, atol=1e-11)
    theirs = torch.nn.PoissonNLLLoss(log_input=False, reduction="none", eps=0.0)
    constant = torch.special.xlogy(counts, counts) - counts
    np.testing.assert_allclose(cost, theirs(mean, counts) + constant, rtol=1e-11, atol=1e-11)
    assert float(law.cost(counts[3:] / 50 - 0.02, measured[3:]).abs().max()) < 1e-12


def test_images_without_light_are_driven_back() -> None:
    law, dark = misfits.Poisson(peak=10.0), misfits.DARK / 10
    for counts in (0.0, 0.4, 5.0):
        measured = torch.tensor(counts / 10, dtype=torch.float64)
        at = torch.tensor([dark * (1 - 1e-7), dark * (1 + 1e-7)], dtype=torch.float64)
        slope = torch.func.vmap(torch.func.grad(lambda p, y=measured: law.cost(p, y)))
        # value and slope go on across the edge, where the second derivative is up to 1e5 as large
        torch.testing.assert_close(*law.cost(at, measured), rtol=1e-4, atol=0)
        torch.testing.assert_close(*slope(at), rtol=1e-4, atol=0)
        below = torch.linspace(-3, 0, 50, dtype=torch.float64)
        assert bool((slope(below) < 0).all())


def test_absolute_errors_are_laplace_noise() -> None:
    law, sigma = misfits.Laplace(), 0.3
    errors = torch.tensor([-2.0, 0.1, 0.7], dtype=torch.float64)
    density = scipy.stats.laplace.logpdf(errors, scale=sigma / math.sqrt(2))
    found = -law.scale(sigma) * law.cost(errors, torch.zeros(3, dtype=torch.float64))
    np.testing.assert_allclose(found - found[0], density - density[0], rtol=1e-13)
    assert float(scipy.stats.laplace.std(scale=sigma / math.sqrt(2))) == pytest.approx(sigma)


N = 40_000


@pytest.mark.parametrize("name", ["l1", "poisson", "weighted"])
def test_simulated_noise_has_the_law(name: str) -> None:
    clean = torch.full((1, N), 0.3, dtype=torch.float64)
    operator = tasks.as_operator(torch.ones(1, N, dtype=torch.bool), clean.shape)
    weights = torch.linspace(0.5, 4.0, N, dtype=torch.float64)[None]
    law = {"l1": "l1", "poisson": misfits.Poisson(20.0, 0.1), "weighted": misfits.Weighted(weights)}
    sigma = 0.0 if name == "poisson" else 0.2
    task = tasks.measure(operator, clean, noise_sigma=sigma, misfit=law[name])
    exact = task.forward(clean)
    noise, variance = task.measurement - exact, sigma**2
    if name == "poisson":
        noise, variance = noise - 0.1, 0.4 / 20  # the mean over the peak
        counts = 20 * task.measurement
        torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-9)
    # errors of a mean and a mean square, with the excess kurtosis: 3 of Laplace, 1/8 of counts
    assert abs(float(noise.mean())) < 5 * (variance / N) ** 0.5
    assert float(noise.square().mean()) == pytest.approx(variance, rel=5 * (5 / N) ** 0.5)
    kurtosis = float(noise.pow(4).mean()) / variance**2 - 3
    expected = {"l1": 3.0, "poisson": 1 / 8, "weighted": 0.0}[name]
    assert kurtosis == pytest.approx(expected, abs=5 * (2500 / N) ** 0.5)  # of Laplace's 8th moment
    second = task.measured_twice(seed=3).second
    assert float((second - task.measurement).square().mean()) == pytest.approx(
        2 * variance, rel=0.05
    )


def test_weights_are_least_squares_of_several_levels_of_noise() -> None:
    # The oracle is dense generalised least squares; kernel and process are of 32 numbers.
    weights = torch.linspace(0.3, 3.0, 32, dtype=torch.float64).reshape(SHAPE)
    mask = half_mask(3, SHAPE)
    plain = tasks.inpaint(clean_image(), mask, noise_sigma=0.2)
    task = plain.with_misfit(misfits.Weighted(weights))
    assert task.beyond_kernels == ""
    assert torch.equal(task.counted, plain.counted)
    image = torch.rand(SHAPE, generator=RANDOM, dtype=torch.float64)
    expected = (weights * (image - plain.measurement).square() * mask).mean()
    assert float(task.misfit(image)) == pytest.approx(float(expected), rel=1e-12)

    kernel = smooth_kernel(0, 2.0)
    prior = make_prior(kernel)
    start = prior.init(0)
    begun = prior.image(start).numpy().ravel()
    seen, root = mask.numpy().ravel(), weights.numpy().ravel() ** 0.5
    whitened = root[seen, None] * kernel[np.ix_(seen, seen)] * root[seen]
    residual = root[seen] * (plain.measurement.numpy().ravel() - begun)[seen]
    for t in (0.5, 20.0):
        values, vectors = np.linalg.eigh(whitened)
        told = vectors @ (-np.expm1(-t * values) / values * (vectors.T @ residual))
        image = begun + kernel[:, seen] @ (root[seen] * told)
        error = np.square(image - clean_image().numpy().ravel()).mean()
        ntk = NTK(prior, start)
        found = linear_fit(ntk, task, steps=40).images(GradientFlow(np.array([t])))
        np.testing.assert_allclose(found[0].numpy(), image, atol=1e-9)
        expansion = expand(ntk, task, noise="realised", steps=40, tolerance=0)
        curve = learning_curve(expansion, GradientFlow(np.array([t])))
        assert float(curve.mse.sel(region="whole")[0]) == pytest.approx(error, rel=1e-6)


def test_a_gaussian_process_takes_weights() -> None:
    clean = clean_image()[:1]
    operator = tasks.Blur(clean.shape, torch.tensor([[0.2, 0.5, 0.3]]).double())
    weights = torch.linspace(0.3, 3.0, 16, dtype=torch.float64).reshape(clean.shape)
    task = tasks.measure(operator, clean, noise_sigma=0.1, misfit=misfits.Weighted(weights))
    process = gp.GaussianProcess(gp.matern(2.0, 0.1), 0.5)
    found = process.posterior(task, tolerance=1e-12).mean.numpy().ravel()
    units = torch.eye(16, dtype=torch.float64).reshape(16, *clean.shape)
    blur = operator.to(dtype=torch.float64).forward(units).reshape(16, 16).T.numpy()
    y, x = np.mgrid[:2, :8].reshape(2, -1)
    distance = np.hypot(y[:, None] - y, x[:, None] - x) * math.sqrt(3) / 2.0
    covariance = 0.1 * (1 + distance) * np.exp(-distance)
    noise = np.diag(0.1**2 / weights.numpy().ravel())
    measured = (task.measurement / weights.sqrt()).numpy().ravel()
    right = measured - blur @ np.full(16, 0.5)
    gain = covariance @ blur.T @ np.linalg.inv(blur @ covariance @ blur.T + noise)
    np.testing.assert_allclose(found, 0.5 + gain @ right, atol=1e-9)


@pytest.mark.parametrize("name", ["l1", "poisson", "own"])
def test_predictions_refuse_what_is_not_least_squares(name: str) -> None:
    task, prior = task_of(LAWS[name]), make_prior(smooth_kernel(0, 2.0))
    ntk, parameters = NTK(prior, prior.init(0)), prior.init(0)
    posterior = WeightPosterior(prior, task)
    calls: dict[str, Callable[[], object]] = {
        "expand": lambda: expand(ntk, task),
        "score": lambda: score(prior, task),
        "linear_fit": lambda: linear_fit(ntk, task),
        "gp": lambda: gp.GaussianProcess(gp.matern(2.0)).posterior(task, 0.1),
        "evidence": lambda: gp.fit_hyperparameters(task, gp.matern(2.0)),
        "linearised": lambda: linearised(posterior, parameters, draws=2),
        "twin": lambda: Twin().begin([task], seeds=1),
    }
    for what, call in calls.items():
        with pytest.raises(InvalidInputError, match=r"least squares.* misfit is ") as caught:
            call()
        assert LAWS[name].name in str(caught.value), what


def test_a_record_of_another_misfit_says_what_it_is() -> None:
    prior = make_prior(smooth_kernel(0, 2.0))
    for law in LAWS.values():
        task = task_of(law)
        result = fit(prior, task, iterations=30, learning_rate=0.02, optimiser="adam", seed=1)
        image = torch.from_numpy(result.final.values).double()
        assert result.status == "finished"
        assert float(result.loss[-1]) < float(result.loss[0])
        # the images of a result are float32
        error = float(task.squared_error(image))
        assert float(result.loss[-1]) == pytest.approx(float(task.misfit(image)), rel=1e-4)
        assert float(result.psnr_noisy[-1]) == pytest.approx(-10 * math.log10(error), abs=1e-3)
    assert float(result.loss[0]) < 0  # of one's own, which may be negative


@pytest.mark.parametrize("name", ["l1", "poisson", "own"])
def test_steps_of_gradient_descent_follow_the_curvature(name: str) -> None:
    # The oracle is the dense Gauss-Newton matrix of the loss: its largest eigenvalue, to 1 %.
    task, kernel = task_of(LAWS[name]), smooth_kernel(0, 2.0)
    prior = make_prior(kernel)
    start = prior.init(0)
    at = (0.3 + 0.5 * torch.rand(32, generator=RANDOM, dtype=torch.float64)).reshape(SHAPE)
    weights = torch.linalg.lstsq(prior.structure.factor, at.flatten()[:, None]).solution[:, 0]
    start = {"weights": weights}
    seen = task.forward(at).requires_grad_()
    count = seen.numel()
    if name == "l1":
        bend = torch.eye(count, dtype=torch.float64) * math.sqrt(2) / 0.2
    elif name == "poisson":
        bend = torch.diag(30.0**2 / (30 * (seen.detach().flatten() + 0.1)))
    else:
        whole = lambda x: huber(x.reshape(seen.shape), task.measurement)  # noqa: E731
        found = torch.autograd.functional.hessian(whole, seen.detach().flatten())
        bend = torch.eye(count, dtype=torch.float64) * float(torch.linalg.matrix_norm(found, 2))
    units = torch.eye(32, dtype=torch.float64).reshape(32, *SHAPE)
    blur = task.forward(units).reshape(32, 32).T
    whitened = bend.sqrt() @ blur @ torch.from_numpy(kernel) @ blur.T @ bend.sqrt()
    largest = float(torch.linalg.eigvalsh(whitened)[-1])
    rate = default_learning_rate("sgd", prior, start, task)
    assert rate == pytest.approx(count / largest, rel=0.02)
    result = fit(prior, task, iterations=5, optimiser="sgd", seed=1, learning_rate=rate / 2)
    assert float(result.loss[-1]) < float(result.loss[0])


def test_units_change_nothing_but_the_units() -> None:
    for law in LAWS.values():
        task = task_of(law)
        image = torch.rand(SHAPE, generator=RANDOM, dtype=torch.float64)
        prior = make_prior(smooth_kernel(0, 2.0))
        small = WeightPosterior(prior, task)
        large = WeightPosterior(prior, task.in_range(255))
        sizes = [p.scale * float(p.task.misfit(f * image)) for p, f in ((small, 1), (large, 255))]
        assert sizes[1] == pytest.approx(sizes[0], rel=1e-11)
        if isinstance(law, misfits.Poisson):
            continue  # the measurement there has its law already
        again = dataclasses.replace(task, law=misfits.SQUARES).in_range(255).with_misfit(law)
        assert float(again.misfit(255 * image)) == pytest.approx(
            float(large.task.misfit(255 * image)), rel=1e-12
        )


def test_entries_are_left_out_of_sums_alone() -> None:
    image = torch.rand(SHAPE, generator=RANDOM, dtype=torch.float64)
    plain = tasks.inpaint(clean_image(), half_mask(3, SHAPE))
    for law in (misfits.Laplace(), misfits.Poisson(40.0)):
        task = plain.with_misfit(law).hold_out(0.3, seed=1)
        cost = law.cost(image, task.measurement)[task.counted].sum() / 32
        assert float(task.misfit(image)) == pytest.approx(float(cost), rel=1e-12)
    with pytest.raises(InvalidInputError, match="sees the whole measurement"):
        plain.with_misfit(huber).hold_out(0.3)
    with pytest.raises(InvalidInputError, match="sees the whole measurement"):
        plain.hold_out(0.3).with_misfit(huber)


def test_several_tasks_share_their_misfit() -> None:
    channels = [tasks.denoise(each[None], noise_sigma=0.1) for each in clean_image()]
    together = tasks.several([each.with_misfit("l1") for each in channels])
    image = torch.rand(SHAPE, generator=RANDOM, dtype=torch.float64)
    assert float(together.misfit(image)) == pytest.approx(
        float((image - together.measurement).abs().mean()), rel=1e-12
    )
    weights = misfits.Weighted(torch.full((1, 2, 8), 2.0))
    weighted = tasks.several([each.with_misfit(weights) for each in channels])
    assert float(weighted.misfit(image)) == pytest.approx(
        float(2 * (image - torch.cat([c.measurement for c in channels])).square().mean()), rel=1e-7
    )
    with pytest.raises(InvalidInputError, match="must share their misfit"):
        tasks.several([channels[0].with_misfit("l1"), channels[1]])
    with pytest.raises(InvalidInputError, match="of one measurement"):
        tasks.several([each.with_misfit(huber) for each in channels])


def test_wrong_misfits_are_named() -> None:
    clean = clean_image()
    task, identity = tasks.denoise(clean, noise_sigma=0.1), torch.ones(SHAPE, dtype=torch.bool)
    operator = tasks.as_operator(identity, SHAPE)
    with pytest.raises(InvalidInputError, match=r"no level of its own.*noise_sigma 0.1"):
        task.with_misfit(misfits.Poisson(10.0))
    with pytest.raises(InvalidInputError, match=r"unknown misfit 'l2'.*squares"):
        task.with_misfit("l2")
    with pytest.raises(InvalidInputError, match="photons that white stands for"):
        task.with_misfit("poisson")
    with pytest.raises(ImageError, match="counts of photons aren't negative"):
        tasks.measure(operator, measurement=clean - 1, misfit=misfits.Poisson(10.0))
    with pytest.raises(ImageError, match="means that aren't negative"):
        tasks.measure(operator, clean - 1, misfit=misfits.Poisson(10.0))
    with pytest.raises(InvalidInputError, match="peak must be positive"):
        misfits.Poisson(0.0)
    with pytest.raises(InvalidInputError, match="positive and finite"):
        misfits.Weighted(torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidInputError, match="measurement's shape"):
        task.with_misfit(misfits.Weighted(torch.ones(3)))
    wrong = task.with_misfit(lambda p, y: p - y)
    with pytest.raises(InvalidInputError, match=r"must return one real number.*shape"):
        wrong.misfit(clean)
    failing = task.with_misfit(lambda p, y: p @ y.T[0] @ p)
    with pytest.raises(InvalidInputError, match="failed on shape"):
        failing.misfit(clean)
    prior = make_prior(smooth_kernel(0, 2.0))
    with pytest.raises(InvalidInputError, match="noise_sigma has no effect"):
        WeightPosterior(prior, task_of(misfits.Poisson(10.0)), noise_sigma=0.1)
    with pytest.raises(InvalidInputError, match="a kink and no curvature"):
        default_learning_rate("sgd", prior, prior.init(0), task_of("l1", 0.0))
    flat = task.with_misfit(lambda p, y: (p - y).sum())
    with pytest.raises(InvalidInputError, match="no curvature here"):
        WeightPosterior(prior, flat).stable_step(prior.init(0))


def test_held_out_entries_are_held_against_draws_by_their_own_law() -> None:
    clean = torch.full((1, 30, 30), 0.4, dtype=torch.float64)
    operator = tasks.as_operator(torch.ones(clean.shape, dtype=torch.bool), clean.shape)
    task = tasks.measure(operator, clean, misfit=misfits.Poisson(50.0)).hold_out(0.4)
    draws = 0.4 + 1e-9 * np.random.default_rng(0).random((1, 9, 1, 30, 30))
    result = xr.Dataset({"draws": (("chain", "draw", "channel", "y", "x"), draws)})
    assert list(uncertainty.calibration(result, task)) == ["truth"]
    blind = dataclasses.replace(task, clean=None)
    with pytest.raises(InvalidInputError, match="measured with Gaussian noise"):
        uncertainty.calibration(result, blind)
    # The only spread is that of the counts, which are nearly Gaussian here.
    found = conformal.intervals(result, task, levels=[0.8])
    np.testing.assert_allclose(found["std"], (0.4 / 50) ** 0.5, rtol=1e-6)
    assert float(found.factor[0]) == pytest.approx(float(found.gaussian[0]), rel=0.15)
