"""Rules by a twin: degrees of freedom and risks of linear fits, densely; checkpoints; refusals."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
import xarray as xr
from torch import Tensor

from dipkernels import networks, planning, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import fit, load_adam_metric, load_parameters
from dipkernels.stopping import make_monitor, stopping_panel
from dipkernels.stopping.twins import PseudoNoise, Sure, Twin
from dipkernels.theory import GradientDescent
from helpers.linear_network import N, filters, make_prior, make_task, smooth_kernel

STEP, TIMES = 0.9, np.arange(12)
KERNEL = smooth_kernel(0, 2.0)
OF_FIT: dict[str, Any] = {
    "optimiser": "gradient-descent",
    "learning_rate": STEP * N / 2,
    "iterations": int(TIMES[-1]),
}


@pytest.mark.parametrize("kind", ["denoise", "inpaint", "held out"])
def test_a_linear_fit_has_the_freedom_of_its_matrix(kind: str) -> None:
    """In float64 to 1e-9: a difference of images of size 1 over a strength of 0.2."""
    task, images = make_task(kind), []
    monitor = Twin(strength=0.2, seed=3)
    result = fit(
        make_prior(KERNEL),
        task,
        monitors=[monitor],
        callback=lambda i, x, p: images.append(x),
        **OF_FIT,
    )
    signs = (monitor.twins()[0].measurement - task.measurement).numpy().ravel() / 0.2
    counted = task.counted.numpy().ravel()
    np.testing.assert_allclose(np.abs(signs), counted, atol=1e-12)
    matrices = filters(KERNEL, task, GradientDescent(STEP, TIMES))
    freedom = np.einsum("i,tij,j->t", signs, matrices, signs) / counted.sum()
    np.testing.assert_allclose(result.freedom_share, freedom, atol=1e-9)
    assert freedom[-1] > 0.1
    disturbed = task.measurement.numpy().ravel() + 0.2 * signs
    for i, matrix in enumerate(matrices):
        twin = images[i].numpy().ravel() + 0.2 * matrix @ signs
        left = (disturbed - twin)[counted]
        cosine = left @ signs[counted] / np.linalg.norm(left) / math.sqrt(counted.sum())
        assert float(result.pseudo_noise[i]) == pytest.approx(cosine, abs=1e-9)


def test_in_expectation_sure_is_the_risk() -> None:
    """Noises of covariance sigma^2, signs of covariance 1, both exactly: no chance is left."""
    sigma, matrix = 0.3, filters(KERNEL, make_task("denoise"), GradientDescent(STEP, TIMES))[5]
    clean = np.linspace(0, 1, N) ** 2
    noises = sigma * math.sqrt(N) * np.concatenate([np.eye(N), -np.eye(N)])
    signs = scipy.linalg.hadamard(N)
    freedom = np.mean([b @ matrix @ b / N for b in signs])
    risks, estimates = [], []
    for noise in noises:
        output = matrix @ (clean + noise)
        misfit = np.mean((output - clean - noise) ** 2)
        trace = xr.Dataset(
            {
                "psnr_noisy": ("iteration", [-10 * np.log10(misfit)]),
                "freedom_share": ("iteration", [freedom]),
            },
            attrs={"noise_sigma": sigma},
        )
        estimates.append(Sure().decide(trace).value)
        risks.append(np.mean((output - clean) ** 2))
    assert np.mean(estimates) == pytest.approx(np.mean(risks), rel=1e-10)
    assert np.std(estimates) > 1e-3  # one by one they differ


def test_a_jump_of_the_freedom_is_averaged() -> None:
    freedom = 0.01 * np.arange(40.0)
    freedom[25] = -1.0  # the twin alone has jumped
    misfit = 0.02 + 0.05 * np.exp(-np.arange(40) / 4)
    trace = xr.Dataset(
        {
            "psnr_noisy": ("iteration", -10 * np.log10(misfit)),
            "freedom_share": ("iteration", freedom),
        },
        attrs={"noise_sigma": 0.2},
    )
    assert Sure(averaging=0.0).decide(trace).chosen == 25
    average, scores = freedom[0], []
    for error, now in zip(misfit, freedom, strict=True):
        average = 0.8 * average + 0.2 * now
        scores.append(error - 0.04 + 0.08 * average)
    decision = Sure(patience=7).decide(trace.isel(iteration=slice(25)))
    assert decision.chosen == int(np.argmin(scores[:25]))
    assert decision.value == pytest.approx(min(scores[:25]), rel=1e-12)


def test_pseudo_noise_is_generalised_cross_validation() -> None:
    """Its minimum over linear fits is that of misfit over (1 - freedom)^2, by dense matrices."""
    task, length = make_task("denoise"), 60
    signs = scipy.linalg.hadamard(N)
    matrices = filters(KERNEL, task, GradientDescent(STEP, np.arange(length)))
    data = task.measurement.numpy().ravel()
    misfit = np.array([np.mean((data - m @ data) ** 2) for m in matrices])
    traces = np.array([np.trace(m) / N for m in matrices])
    # over signs that add up to the identity, of a strength that vanishes beside the misfit
    cosine = np.array([np.mean([b @ (b - m @ b) for b in signs]) / N for m in matrices]) / np.sqrt(
        misfit
    )
    trace = xr.Dataset({"pseudo_noise": ("iteration", cosine)})
    gcv = misfit / (1 - traces) ** 2
    assert PseudoNoise(patience=10, averaging=0.0).decide(trace).chosen == int(gcv.argmin())
    assert 0 < int(gcv.argmin()) < length - 10


SIZE = (12, 17)


def small_prior() -> networks.ImagePrior:
    return networks.create("conv-decoder", image_size=SIZE, channels=2, width=8)


def small_task(seed: int = 0) -> tasks.Task:
    steps = torch.linspace(0, 1, SIZE[1]).expand(2, *SIZE).clone()
    return tasks.denoise(steps, noise_sigma=0.15, seed=seed)


@pytest.mark.slow
def test_rules_without_the_truth_find_good_outputs_of_a_deep_prior() -> None:
    """What is lost is a few tenths of a dB here; the last output loses several."""
    result = fit(
        small_prior(),
        small_task().measured_twice(seed=5),
        monitors=["twin", "pseudo-reference"],
        learning_rate=0.03,
        iterations=300,
    )
    names = ["two-copies", "pseudo-reference", "sure", "pseudo-noise"]
    regret = dict(
        zip([*names, "last"], stopping_panel(result, [*names, "last"]).regret.values, strict=True)
    )
    last = regret.pop("last")
    assert last > 2
    assert all(loss < 0.4 * last for loss in regret.values()), regret
    assert regret["two-copies"] < 0.5


def test_a_twin_changes_nothing_of_the_fit_and_goes_on_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dipkernels.storage.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("dipkernels.storage.checkpoints.SHARE", math.inf)
    prior, task, file = small_prior(), small_task(), tmp_path / "state.safetensors"
    settings: dict[str, Any] = {"iterations": 12, "learning_rate": 0.03, "input_noise": 0.03}
    alone = fit(prior, task, checkpoint=tmp_path / "alone.safetensors", **settings)
    shown: list[tuple[Any, ...]] = []

    def die(iteration: int, image: Tensor, parameters: dict[str, Tensor]) -> None:
        shown.append((tuple(image.shape), *(tuple(p.shape) for p in parameters.values())))
        if iteration == 7:
            raise LookupError

    whole = fit(prior, task, stop="sure", **settings)
    with pytest.raises(LookupError):
        fit(prior, task, stop="sure", checkpoint=file, callback=die, **settings)
    assert set(shown) == {(prior.shape, *prior.parameter_shapes.values())}
    result = fit(prior, task, stop="sure", checkpoint=file, **settings)
    for name in ("loss", "freedom_share", "pseudo_noise", "chosen_image", "final"):
        assert np.array_equal(result[name], whole[name]), name
    # A batch of two evaluates each run as one alone does; on a CPU the runs take turns.
    np.testing.assert_allclose(result.loss, alone.loss, rtol=1e-3)
    for load in (load_parameters, load_adam_metric):
        ours, theirs = load(file), load(tmp_path / "alone.safetensors")
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}


def test_each_run_is_compared_with_its_own_twin() -> None:
    prior, pair = make_prior(KERNEL), [make_task("denoise"), make_task("denoise", sigma=0.1)]
    together = fit(prior, pair, seed=[0, 4], monitors=["twin"], **OF_FIT)
    assert together.freedom_share.dims == ("image", "seed", "iteration")
    apart = fit(prior, pair[0], seed=4, monitors=["twin"], **OF_FIT)  # the first drawn signs
    np.testing.assert_allclose(together.freedom_share[0, 1], apart.freedom_share, atol=1e-9)
    # Of a linear fit it doesn't depend on the start, and on signs of their own it does.
    np.testing.assert_allclose(
        together.freedom_share[:, 0], together.freedom_share[:, 1], atol=1e-9
    )
    assert abs(together.freedom_share[0, 0] - together.freedom_share[1, 0]).max() > 1e-3


def test_units_change_nothing() -> None:
    grey = make_task("denoise")
    fits = []
    for task in (grey, grey.in_range(255.0)):
        monitor = Twin(seed=1)
        monitor.begin([task], seeds=1)
        outputs = 0.5 * (task.measurement / task.data_range)[None]
        monitor.see(0.5 * monitor.twins()[0].measurement[None] / task.data_range)
        fits.append(monitor.update(outputs))
    np.testing.assert_allclose(fits[0], fits[1], rtol=1e-12)
    assert float(fits[0][0, 0]) == pytest.approx(0.5)


@pytest.mark.slow
def test_a_twin_is_planned_for() -> None:
    prior, task = small_prior(), small_task()
    alone = planning.plan(prior, task, iterations=5, timed=False)
    beside = planning.plan(prior, task, iterations=5, stop="sure", timed=False)
    assert beside.parts["fit"]["activations"] > 1.5 * alone.parts["fit"]["activations"]


def test_twins_that_cannot_be() -> None:
    prior, task = small_prior(), small_task()
    with pytest.raises(InvalidInputError, match="strength must be positive and finite, got 0"):
        Twin(strength=0.0)
    with pytest.raises(InvalidInputError, match="l-bfgs is for one run, and a monitor or rule"):
        fit(prior, task, stop="sure", optimiser="l-bfgs", iterations=2)
    with pytest.raises(InvalidInputError, match="channels_last is for one run"):
        fit(prior, task, monitors=["twin"], channels_last=True, iterations=2)
    with pytest.raises(InvalidInputError, match="call begin"):
        make_monitor("twin").update(torch.zeros(1, 2, 4, 4))
    with pytest.raises(InvalidInputError, match="patience must be at least 1"):
        Sure(patience=0)
    with pytest.raises(InvalidInputError, match=r"averaging must be in \[0, 1\), got -0.1"):
        PseudoNoise(averaging=-0.1)
    with pytest.raises(InvalidInputError, match=r"averaging must be in \[0, 1\), got 1"):
        Sure(averaging=1.0)
