"""Times, peak and resolution of a predicted curve."""

import dataclasses
import math

import numpy as np
import pytest
import xarray as xr

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.theory import GradientDescent, GradientFlow, expand, learning_curve
from dipkernels.theory.curves import resolved_stretch
from dipkernels.theory.expansion import default_times
from helpers.linear_network import (
    SIGMA,
    N,
    dense_curve,
    kernel_and_ntk,
    make_task,
)


def test_default_times_span_the_kernel() -> None:
    _, ntk = kernel_and_ntk()
    expansion = expand(ntk, make_task("denoise"), steps=N, tolerance=0)
    curve = learning_curve(expansion)
    np.testing.assert_array_equal(curve.time, default_times(expansion.largest))
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
    expansion = expand(ntk, task, steps=N, tolerance=0)
    curve = learning_curve(expansion, dynamics)
    truth = -10 * np.log10(sum(dense_curve(kernel, task, expansion.residual.numpy(), dynamics)))
    assert 0 < truth.argmax() < len(truth) - 1
    assert curve.peak_psnr == pytest.approx(truth.max(), abs=1e-7)
    assert curve.peak_time == dynamics.times[truth.argmax()]
    assert curve.peak_psnr_lower <= curve.peak_psnr <= curve.peak_psnr_upper
    assert curve.peak_resolved == 1
    assert curve.score_region == "whole"
    assert curve.largest_eigenvalue == expansion.largest
    assert curve.matvecs == expansion.matvecs
    assert resolved_stretch(curve, "whole") == len(truth)


def test_a_peak_that_the_steps_cannot_resolve_is_a_lower_bound() -> None:
    kernel, ntk = kernel_and_ntk(7)
    task, dynamics = make_task("denoise", 0.02), GradientFlow(np.geomspace(0.01, 1e6, 90))
    expansion = expand(ntk, task, steps=4, tolerance=0, probes=1)
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
    expansion = expand(ntk, make_task("denoise"), steps=30, tolerance=0)
    limit = 2 / expansion.largest
    # beyond the limit it grows, which is a prediction as long as it's a number
    grown = learning_curve(expansion, GradientDescent(1.1 * limit, np.array([0, 50])))
    assert float(grown.mse[1, 0]) > 1e6 * float(grown.mse[0, 0])
    with pytest.raises(
        DivergenceError, match=f"stable up to an eigenvalue of {expansion.largest / 1.1:.3g}, the"
    ):
        learning_curve(expansion, GradientDescent(1.1 * limit, np.array([0, 10_000])))


def test_the_order_of_the_times_makes_no_difference_to_the_peak() -> None:
    _, ntk = kernel_and_ntk(7)
    expansion = expand(ntk, make_task("denoise"), noise="realised", steps=6, tolerance=0)
    times = np.geomspace(0.01, 1e6, 50)
    ascending = learning_curve(expansion, GradientFlow(times))
    shuffled = np.random.default_rng(0).permutation(times)
    other = learning_curve(expansion, GradientFlow(shuffled))
    np.testing.assert_array_equal(other.time, shuffled)
    assert other.attrs == ascending.attrs
    with pytest.raises(InvalidInputError, match="with a region 'nowhere'"):
        resolved_stretch(ascending, "nowhere")


def test_a_kernel_that_is_zero_has_no_default_times() -> None:
    _, ntk = kernel_and_ntk()
    expansion = expand(ntk, make_task("denoise"), noise="realised", steps=4, tolerance=0)
    nothing = dataclasses.replace(expansion.space, lower=0 * expansion.space.lower)
    with pytest.raises(InvalidInputError, match="the kernel is zero"):
        learning_curve(dataclasses.replace(expansion, space=nothing))
