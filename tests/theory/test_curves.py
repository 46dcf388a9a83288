"""Predicted learning curves, against dense formulas, Monte Carlo and fits of a linear network."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch

from dipkernels import fit
from dipkernels.fitting import stable_learning_rate
from dipkernels.theory import GradientDescent, GradientFlow, expand, learning_curve
from dipkernels.theory.growing import expansion_of, golub_kahan
from helpers.linear_network import (
    CHANNELS,
    DYNAMICS,
    SIGMA,
    N,
    dense_curve,
    filters,
    flat_regions,
    kernel_and_ntk,
    make_task,
)


def test_the_linear_network_has_the_kernel_it_was_given() -> None:
    kernel, ntk = kernel_and_ntk()
    np.testing.assert_allclose(ntk.to_dense(), kernel, atol=1e-14)
    assert np.linalg.cond(kernel) < 1e5


@pytest.mark.parametrize("name", DYNAMICS)
@pytest.mark.parametrize(
    ("kind", "sigma"),
    [
        ("denoise", SIGMA),
        ("denoise", 0.0),
        ("inpaint", SIGMA),
        ("inpaint channelwise", SIGMA),
        ("held out", SIGMA),
        ("several", SIGMA),
    ],
)
def test_curves_are_those_of_the_dense_formula(kind: str, sigma: float, name: str) -> None:
    kernel, ntk = kernel_and_ntk()
    task, dynamics = make_task(kind, sigma), DYNAMICS[name]
    expansion = expand(ntk, task, steps=N, tolerance=0)
    assert expansion.probes == (16 if sigma else 0)  # for a small image
    assert expansion.space.complete
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
    expansion = expand(ntk, task, steps=N, tolerance=0)
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
    curve = learning_curve(expand(ntk, task, steps=N, tolerance=0), dynamics)
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
    measured = np.tile(task.mask.numpy().ravel(), CHANNELS).astype(bool)
    widths = []
    for steps in (1, 2, 4, 8, N):
        # two signs alone, as the truth has them: their spread would hide a wrong bound
        signs = ntk.rademacher(2, 5)
        residual = (task.clean - ntk.image).flatten()
        starts = torch.cat([residual[:, None], signs], dim=1)
        space = golub_kahan(ntk, task, starts).extend(steps).space()
        space = dataclasses.replace(space, size=N + 1)  # no trace by eigenvalues
        expansion = expansion_of(task, ntk.image, "expected", space)
        errors = expansion._errors(dynamics, 0.0)
        squares = np.square(residual.numpy() - maps @ residual.numpy())
        seen = signs.numpy() * measured[:, None]
        squares += SIGMA**2 * np.square(maps @ seen).mean(axis=2)
        truth = np.array([squares[:, region].mean(axis=1) for region in regions]).T
        assert (errors.lower <= truth * (1 + 1e-9)).all()
        assert (errors.upper >= truth * (1 - 1e-9)).all()
        assert (errors.lower <= errors.middle * (1 + 1e-12)).all()
        assert (errors.middle <= errors.upper * (1 + 1e-12)).all()
        widths.append((errors.upper - errors.lower) / truth)
    # few steps tell little of late times and much of early ones, more tell more, all tell all
    assert (widths[0][3:] > 0.1).all()
    assert (widths[2][:3] < 0.01).all()
    assert (widths[3][:4] < 0.01).all()
    np.testing.assert_allclose(widths[-1], 0, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_random_probes_err_as_the_band_says(kind: str) -> None:
    # a rough field: many eigenvalues count, so that means over probes are nearly normal
    kernel, ntk = kernel_and_ntk(4, length=0.5)
    task, dynamics = make_task(kind), GradientFlow(np.array([1.0, 4.0]))
    residual = (task.clean - ntk.image).flatten()
    truth = sum(dense_curve(kernel, task, residual.numpy(), dynamics))
    scores = []
    for seed in range(24):
        signs = ntk.rademacher(4, seed)
        starts = torch.cat([residual[:, None], signs], dim=1)
        space = golub_kahan(ntk, task, starts).extend(N).space()
        space = dataclasses.replace(space, size=N + 1)  # no trace by eigenvalues
        curve = learning_curve(expansion_of(task, ntk.image, "expected", space), dynamics)
        scores.append((4 * (curve.mse - truth) / (curve.mse_upper - curve.mse_lower)).values)
    scores = np.array(scores)
    # in standard errors: right on a whole image, too wide over missing pixels
    assert abs(scores.mean()) < 4 / np.sqrt(len(scores))
    spread = scores.std()
    assert 0.6 < spread < 1.4 if kind == "denoise" else 0.05 < spread < 1.2
