"""What an expansion costs, holds, reuses and refuses."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.linalg import Lanczos
from dipkernels.theory import GradientFlow, expand, learning_curve
from helpers.linear_network import (
    DYNAMICS,
    SIGMA,
    N,
    clean_image,
    dense_curve,
    flat_regions,
    kernel_and_ntk,
    make_task,
)


def test_an_expansion_says_what_it_cost_and_holds() -> None:
    kernel, ntk = kernel_and_ntk(5)
    task = make_task("denoise")
    expansion = expand(ntk, task, steps=12, probe_steps=5, probes=4)
    assert expansion.matvecs == 12 + 4 * 5
    assert [len(space.alpha) for space in expansion.probes] == [5] * 4
    assert expand(ntk, task, steps=12, probes=2).matvecs == 12 + 2 * 6
    assert expand(ntk, make_task("denoise", 0.0), steps=12).matvecs == 12
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
        assert expansion.matvecs == 10
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
    assert expansion.matvecs == 0
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
        ("denoise", {"noise": "realised", "seed": 1}, "realised noise needs no probes"),
    ],
)
def test_expand_validates_its_settings(kind: str, settings: dict[str, Any], message: str) -> None:
    _, ntk = kernel_and_ntk()
    with pytest.raises(InvalidInputError, match=message):
        expand(ntk, make_task(kind), **settings)


def test_a_task_of_another_shape_is_an_error() -> None:
    _, ntk = kernel_and_ntk()
    message = r"shape \(2, 8, 2\), the prior makes images of shape \(2, 2, 8\)"
    with pytest.raises(InvalidInputError, match=message):
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
