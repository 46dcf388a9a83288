"""Predicted stopping times, and the rule made of them, against dense curves and in real fits."""

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dipkernels import fit
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.stopping import PredictedOptimum, detections, stopping_panel, stopping_time
from dipkernels.theory import GradientDescent, GradientFlow, Momentum, expand, learning_curve
from helpers.linear_network import N, filters, kernel_and_ntk, make_task

RATE = N / 2  # the largest eigenvalue is 1: half of the limit of stability


def curve_of(
    steps: int, sigma: float = 0.3, kind: str = "denoise", end: float = 1e6
) -> tuple[xr.Dataset, float]:
    """A curve of the flow, and the time that the dense formula is best at."""
    kernel, ntk = kernel_and_ntk(7)
    task, dynamics = make_task(kind, sigma), GradientFlow(np.geomspace(0.01, end, 200))
    expansion = expand(ntk, task, noise="realised", steps=steps, tolerance=0)
    maps = filters(kernel, task, dynamics)
    seen = (task.measurement - ntk.image).numpy().ravel()
    where = task.regions[task.score_region].numpy().ravel()
    error = (expansion.residual.numpy() - maps @ seen)[:, where]
    best = dynamics.times[np.square(error).mean(axis=1).argmin()]
    return learning_curve(expansion, dynamics), float(best)


@pytest.mark.parametrize("kind", ["denoise", "inpaint"])
def test_the_bracket_holds_the_true_optimum_and_closes_on_it(kind: str) -> None:
    spans = []
    for steps in (3, 6, 10, N):
        curve, truth = curve_of(steps, kind=kind)
        found = stopping_time(curve)
        assert found.unit == "time"
        assert found.earliest <= truth <= found.latest
        assert found.earliest <= found.optimum <= found.latest
        assert found.resolved == bool(curve.peak_resolved)
        spans.append(found.latest / found.earliest)
    assert found.optimum == truth == found.earliest
    assert spans[0] > 3 * spans[-1]
    assert found.psnr == pytest.approx(float(curve.psnr.sel(region=curve.score_region).max()))


def test_without_noise_there_may_be_no_end() -> None:
    curve, truth = curve_of(N, sigma=0.0, end=1e4)
    assert truth == curve.time[-1]
    assert stopping_time(curve).latest == np.inf


def test_times_are_iterations_of_a_learning_rate() -> None:
    curve, _ = curve_of(N)
    flow = stopping_time(curve)
    slow = stopping_time(curve, learning_rate=RATE / 10)
    assert slow.unit == "iteration"
    assert slow.psnr == flow.psnr
    # t n / (2 rate), with n / (2 RATE) = 1
    assert slow.optimum == pytest.approx(10 * flow.optimum)
    _, ntk = kernel_and_ntk(7)
    expansion = expand(ntk, make_task("denoise"), noise="realised", steps=N, tolerance=0)
    descent = learning_curve(expansion, GradientDescent.of_fit(RATE / 10, 3000, N))
    assert stopping_time(descent).optimum == pytest.approx(slow.optimum, rel=0.1)
    swift = stopping_time(curve, learning_rate=RATE / 10, momentum=0.8)
    heavy = learning_curve(expansion, Momentum.of_fit(RATE / 10, 0.8, 600, N))
    # to the start of the momentum, some iterations
    assert stopping_time(heavy).optimum == pytest.approx(swift.optimum, rel=0.2, abs=8)


def test_settings_that_make_no_sense_are_errors() -> None:
    curve, _ = curve_of(4)
    with pytest.raises(InvalidInputError, match="momentum has no effect without a learning rate"):
        stopping_time(curve, momentum=0.5)
    with pytest.raises(InvalidInputError, match=r"got -1\.0 and 0\.0"):
        stopping_time(curve, learning_rate=-1.0)
    with pytest.raises(InvalidInputError, match="over time: give the learning rate"):
        PredictedOptimum.of_curve(curve)
    _, ntk = kernel_and_ntk(7)
    expansion = expand(ntk, make_task("denoise"), noise="realised", steps=4, tolerance=0)
    descent = learning_curve(expansion, GradientDescent.of_fit(RATE, 10, N))
    with pytest.raises(InvalidInputError, match="over iterations: leave out the learning rate"):
        stopping_time(descent, learning_rate=RATE)


def test_the_predicted_optimum_is_a_row_of_the_panel_and_ends_a_fit(tmp_path: Path) -> None:
    _, ntk = kernel_and_ntk(7)
    task, rate = make_task("denoise"), RATE
    expansion = expand(ntk, task, noise="realised", steps=N, tolerance=0)
    curve = learning_curve(expansion, GradientDescent.of_fit(rate, 300, N))
    rule = PredictedOptimum.of_curve(curve)
    assert 3 < rule.iteration < 250
    settings = {"optimiser": "gradient-descent", "learning_rate": rate, "seed": 7}
    whole = fit(ntk.prior, task, iterations=300, **settings)
    panel = stopping_panel(whole, ["last", rule, "oracle"]).sel(rule="predicted")
    # one linear network: the prediction is the fit
    assert panel.chosen == panel.stopped == rule.iteration
    assert float(panel.regret) < 1e-6
    assert float(panel.value) == pytest.approx(float(panel.psnr), abs=1e-6)
    assert detections(whole.isel(iteration=slice(rule.iteration)), rule).item() is not None
    assert np.isnan(detections(whole.isel(iteration=slice(rule.iteration)), rule))
    path = tmp_path / "fit.ckpt"
    stopped = fit(ntk.prior, task, iterations=300, stop=rule, checkpoint=path, **settings)
    assert stopped.chosen == rule.iteration
    assert stopped.sizes["iteration"] <= rule.iteration + 51
    # another predicted iteration makes it another fit
    other = PredictedOptimum(rule.iteration + 1, rule.psnr)
    with pytest.raises(OutputError, match="another fit"):
        fit(ntk.prior, task, iterations=300, stop=other, checkpoint=path, **settings)
    # a rule that says that it knows the clean image is a measure
    starred = PredictedOptimum.of_curve(curve, needs_truth=True)
    assert bool(stopping_panel(whole, [starred]).needs_truth)
    with pytest.raises(InvalidInputError, match="looks at the clean image"):
        fit(ntk.prior, task, iterations=300, stop=starred, **settings)


def test_what_is_no_curve_or_no_iteration_is_an_error() -> None:
    with pytest.raises(InvalidInputError, match="expected a curve as learning_curve returns"):
        stopping_time(xr.Dataset({"psnr": ("time", [1.0, 2.0])}))
    with pytest.raises(InvalidInputError, match="must be at least 0, got -1"):
        PredictedOptimum(-1)
