"""Conformal intervals: coverage by simulation and by enumeration, and what can't be promised."""

import itertools
import math

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.sampling import conformal
from dipkernels.sampling.summaries import describe_measurement


@pytest.mark.parametrize("level", [0.3, 0.5, 0.75, 0.8])
def test_all_orders_of_exchangeable_scores(level: float) -> None:
    """Of all orders of five scores the last is covered as often as promised: exactly."""
    orders = list(itertools.permutations([0.1, 0.2, 0.4, 0.8, 1.6]))
    covered = np.mean([last <= conformal.quantile(known, level) for *known, last in orders])
    assert covered == pytest.approx(math.ceil(round(level * 5, 9)) / 5)
    assert level - 1e-12 <= covered <= level + 1 / 5


def test_groups_are_covered_on_average() -> None:
    """Each group in turn is the further one; scores within a group are all but equal."""
    rng = np.random.default_rng(0)
    groups = rng.exponential(size=(9, 1)) + 1e-3 * rng.random((9, 3))
    for level in (0.3, 0.6, 0.85):
        shares = [
            np.mean(groups[i] <= conformal.quantile(np.delete(groups, i, axis=0), level, groups=8))
            for i in range(9)
        ]
        assert level <= np.mean(shares) <= level + 1 / 9 + 1e-12


def test_too_few_scores_promise_nothing() -> None:
    assert conformal.quantile(np.arange(8.0), 0.9) == math.inf
    assert conformal.quantile(np.arange(9.0), 0.9) == 8.0
    assert conformal.quantile([1.0, math.inf], 0.5) == math.inf
    assert conformal.radius([-0.001, -0.002], 0.5) == 0.0
    for scores, level, groups, message in (
        ([], 0.5, 0, "got 0 of them"),
        ([1.0, math.nan], 0.5, 0, "each of scores must be a finite number"),
        ([1.0], 1.0, 0, "levels must be"),
        ([1.0], 0.5, 2, "1 scores can't be 2 groups"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            conformal.quantile(scores, level, groups=groups)


SHAPE, SIGMA = (2, 12, 14), 0.1


def drawn(task: tasks.Task, factor: float, seed: int) -> xr.Dataset:
    """Draws that are wrong: biased, of a wrong width that differs between pixels."""
    rng = np.random.default_rng(seed)
    assert task.clean is not None
    scale = 0.02 + 0.2 * rng.random(SHAPE)
    mean = task.clean.numpy() / task.data_range + 0.05 + 0.08 * rng.standard_normal(SHAPE)
    values = mean + factor * scale * rng.standard_normal((2, 20, *SHAPE))
    return xr.Dataset(
        {"draws": (("chain", "draw", "channel", "y", "x"), values)},
        attrs=describe_measurement(task),
    )


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.1, 3.0])
def test_other_pixels_are_covered_whatever_the_draws_are(factor: float) -> None:
    """Pixels that were neither fitted nor held out, over 60 noises and choices: 8000 entries."""
    clean = torch.full(SHAPE, 0.5, dtype=torch.float64)
    levels, shares, gaussian = (0.5, 0.9), [], []
    for seed in range(60):
        task = tasks.denoise(clean, noise_sigma=SIGMA, seed=seed).hold_out(0.6, seed=seed)
        found = conformal.intervals(drawn(task, factor, seed), task, levels=levels)
        y, other = task.measurement.numpy(), task.counted.numpy()
        inside = (found.lower.values <= y) & (y <= found.upper.values)
        shares.append(inside[:, other].mean(axis=1))
        narrow = np.abs(y - found["mean"].values) <= found.gaussian.values[1] * found["std"].values
        gaussian.append(narrow[other].mean())
        assert found.attrs["pixels"] == 101
    # Means over 60 sets of 101 held-out and 67 other pixels: standard errors of 0.009 and 0.005.
    mean = np.mean(shares, axis=0)
    assert mean[0] == pytest.approx(0.5 + 0.5 / 102, abs=0.03)
    assert mean[1] == pytest.approx(0.9 + 0.5 / 102, abs=0.02)
    assert abs(np.mean(gaussian) - 0.9) > 0.04  # the draws alone don't


def test_intervals_are_of_what_is_measured() -> None:
    clean = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task = tasks.denoise(clean, noise_sigma=SIGMA).hold_out(0.3)
    result = drawn(task, 1.0, 0)
    found = conformal.intervals(result, task, levels=[0.9, 0.999])
    pooled = result.draws.values.reshape(40, *SHAPE)
    deviation = np.sqrt(pooled.var(axis=0, ddof=1) + SIGMA**2)
    np.testing.assert_allclose(found["std"], deviation)
    assert task.held_out is not None
    held = task.held_out.numpy()
    scores = np.sort((np.abs(task.measurement.numpy() - pooled.mean(axis=0)) / deviation)[held])
    pixels = held.any(axis=0).sum()
    assert float(found.factor[0]) == scores[math.ceil(0.9 * (pixels + 1) * 2) - 1]
    assert np.isinf(found.factor[1])
    assert np.isinf(found.upper[1]).all()
    assert np.isinf(found.lower[1]).all()
    np.testing.assert_allclose(
        found.upper[0] - found.lower[0], 2 * float(found.factor[0]) * deviation
    )
    wide = conformal.intervals(result, task.in_range(255.0), levels=[0.9, 0.999])
    xr.testing.assert_allclose(wide, found)
    shrunk = tasks.super_resolve(clean, factor=2, noise_sigma=0.1).hold_out(0.4)
    small = conformal.intervals(drawn(shrunk, 1.0, 0), shrunk, levels=[0.5])
    assert small["mean"].dims == ("measured_0", "measured_1", "measured_2")
    assert small["mean"].shape == (2, 6, 7)


def test_a_certain_draw_has_no_width_but_may_be_right() -> None:
    clean = torch.full(SHAPE, 0.5, dtype=torch.float64)
    task = tasks.inpaint(clean, tasks.bernoulli_mask(SHAPE[1:], known=0.5)).hold_out(0.5)
    same = np.full((1, 3, *SHAPE), 0.5)
    result = xr.Dataset({"draws": (("chain", "draw", "channel", "y", "x"), same)})
    found = conformal.intervals(result, task, levels=[0.5])
    assert float(found.factor[0]) == 0.0
    wrong = conformal.intervals(result.assign(draws=result.draws + 0.1), task, levels=[0.5])
    assert np.isinf(wrong.upper).all()


def test_what_has_no_conformal_intervals() -> None:
    clean = torch.full(SHAPE, 0.5, dtype=torch.float64)
    task = tasks.denoise(clean, noise_sigma=SIGMA)
    with pytest.raises(InvalidInputError, match="this task holds out no pixels"):
        conformal.intervals(drawn(task, 1.0, 0), task)
    with pytest.raises(InvalidInputError, match="another measurement"):
        conformal.intervals(drawn(task, 1.0, 0), task.hold_out(0.2))
    held = task.hold_out(0.2)
    with pytest.raises(InvalidInputError, match="at least 2 draws"):
        conformal.intervals(drawn(held, 1.0, 0).isel(chain=[0], draw=[0]), held)


def test_the_radius_holds_the_error_of_other_images() -> None:
    """Risks by SURE of linear smoothers, M images in turn: coverage within one image of exact."""
    rng, n, images, level = np.random.default_rng(0), 400, 24, 0.8
    waves = np.cos(np.outer(np.arange(n), np.arange(40)) * np.pi / n)
    basis = np.linalg.qr(waves)[0]
    risks, errors = [], []
    for _ in range(images):
        clean = basis @ rng.standard_normal(40) * rng.exponential()
        kept = basis[:, :30]
        noisy = clean + 0.3 * rng.standard_normal(n)
        restored = kept @ (kept.T @ noisy)
        risks.append(np.mean((restored - noisy) ** 2) - 0.09 + 2 * 0.09 * 30 / n)
        errors.append(np.mean((restored - clean) ** 2))
    risks_, errors_ = np.array(risks), np.array(errors)
    held = [errors_[i] <= conformal.radius(np.delete(risks_, i), level) for i in range(images)]
    exact = [errors_[i] <= conformal.radius(np.delete(errors_, i), level) for i in range(images)]
    assert abs(np.mean(held) - np.mean(exact)) <= 2 / images
    assert np.mean(exact) == pytest.approx(math.ceil(level * images) / images, abs=1e-9)
