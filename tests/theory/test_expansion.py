"""What an expansion costs, holds, reuses and refuses."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.stages.registry import find_stage
from dipkernels.theory import expand, learning_curve, predicted_peak
from dipkernels.theory.krylov import BAND_ERRORS
from helpers.linear_network import (
    N,
    clean_image,
    flat_regions,
    kernel_and_ntk,
    make_task,
)


def test_an_expansion_says_what_it_cost_and_holds() -> None:
    kernel, ntk = kernel_and_ntk(5)
    task = make_task("denoise")
    expansion = expand(ntk, task, steps=3, tolerance=0, probes=4)
    assert expansion.matvecs == 3 * (1 + 4)
    assert expansion.probes == 4
    assert expand(ntk, task, steps=3, tolerance=0, probes=1).matvecs == 6
    assert expand(ntk, make_task("denoise", 0.0), steps=12, tolerance=0).matvecs == 12
    residual = (task.clean - ntk.image).flatten()
    np.testing.assert_allclose(expansion.residual, residual, atol=1e-15)
    assert expansion.largest == pytest.approx(np.linalg.eigvalsh(kernel)[-1], rel=1e-2)
    other = expand(ntk, task, steps=3, tolerance=0, probes=4, seed=1)
    assert not torch.equal(other.space.basis[1], expansion.space.basis[1])
    masked = expand(ntk, make_task("inpaint"), steps=3, tolerance=0, probes=4)
    assert masked.score_region == "hole"
    for name, region in flat_regions(make_task("inpaint")).items():
        assert masked.regions[name].tolist() == region.tolist()
    assert (masked.space.basis[:, ~masked.measured] == 0).all()


def test_steps_end_where_the_peak_is_told() -> None:
    _, ntk = kernel_and_ntk(7)
    task = make_task("denoise", 0.02)
    spent = {}
    for tolerance in (3.0, 0.3, 1e-3):
        found = expand(ntk, task, tolerance=tolerance, probes=1)
        low, high = found.peak_bounds()
        assert high - low <= 2 * tolerance
        spent[tolerance] = found.matvecs
    assert spent[3.0] <= spent[0.3] <= spent[1e-3] <= N


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("denoise", {"probes": 0}, "at least 1 probe is needed, got 0"),
        ("denoise", {"steps": 1}, "at least 2 steps are needed, got steps=1"),
        ("denoise", {"tolerance": -0.1}, "the tolerance is in dB and not negative, got -0.1"),
        ("denoise", {"noise": "realised", "probes": 3}, "realised noise needs no probes"),
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
    with pytest.raises(InvalidInputError, match="don't apply to this 'dejpeg' task: JPEG rounds"):
        expand(ntk, jpeg)


def test_an_extrapolated_peak_is_widened_by_the_probe_at_both_ends() -> None:
    _, ntk = kernel_and_ntk(7)
    found = expand(ntk, make_task("denoise", 0.3), steps=3, tolerance=0, probes=1)
    low, high = found.peak_bounds()
    least, most = found.peak_bounds(BAND_ERRORS)
    assert least < low < high < most
    ceiling = least + 0.5
    peak = predicted_peak(dataclasses.replace(found, ceiling=ceiling))
    assert (peak.resolved, peak.extrapolated) == (False, True)
    assert (peak.lower, peak.upper) == (least, ceiling)
    assert peak.lower <= peak.psnr <= peak.upper
    curve = learning_curve(dataclasses.replace(found, ceiling=ceiling))
    assert (curve.peak_resolved, curve.peak_extrapolated) == (0, 1)
    assert curve.peak_psnr == peak.psnr


@pytest.mark.parametrize("options", [{"probes": 0}, {"tolerance": -1.0}, {"steps": 1}])
def test_a_stage_refuses_before_it_runs(options: dict[str, Any]) -> None:
    _, ntk = kernel_and_ntk()
    stage = find_stage("prediction")
    asked = {"steps": 9, "tolerance": 0.3, "probes": None, "iterations": 9} | options
    assert stage.check is not None
    with pytest.raises(InvalidInputError, match=next(iter(options)).rstrip("s")):
        stage.check(ntk.prior, make_task("denoise"), asked)
