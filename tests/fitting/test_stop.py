"""Fits that a stopping rule ends."""

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from dipkernels import networks, tasks
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.fitting import fit, summary
from dipkernels.networks import ImagePrior
from dipkernels.stopping import Decision, NotApplicableError, Rule, stopping_panel
from dipkernels.stopping.monitors import WindowedVariance
from dipkernels.stopping.published import Discrepancy, HeldOut, WindowedVarianceRule

SIZE = (12, 17)


def make_task(seed: int = 0) -> tasks.Task:
    steps = torch.linspace(0, 1, SIZE[1]).expand(2, *SIZE).clone()
    return tasks.denoise(steps, noise_sigma=0.15, seed=seed)


def make_prior() -> ImagePrior:
    return networks.create("conv-decoder", image_size=SIZE, channels=2, width=10)


class Keep:
    """A callback that keeps the images."""

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, iteration: int, image: Tensor, parameters: dict[str, Tensor]) -> None:
        self.images.append(image.clone())


LONG: dict[str, Any] = {"learning_rate": 0.03, "iterations": 700}
RULES = [
    Discrepancy(),
    WindowedVarianceRule(patience=60),
    HeldOut(patience=40),
]


@functools.cache
def unstopped() -> xr.Dataset:
    """A fit that every rule would end."""
    task = make_task().hold_out(0.1)
    return fit(make_prior(), task, monitors=["windowed-variance"], **LONG)


@pytest.mark.slow
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_ends_the_fit_with_the_image_that_it_chose(rule: Rule, tmp_path: Path) -> None:
    prior, task, settings, long = make_prior(), make_task().hold_out(0.1), LONG, unstopped()
    panel = stopping_panel(long, [rule]).isel(rule=0)
    assert 0 < panel.stopped < 600
    keep = Keep()
    file = tmp_path / "state.safetensors"
    result = fit(prior, task, stop=rule, callback=keep, checkpoint=file, **settings)
    assert result.status == "stopped"
    assert int(result.chosen) == int(panel.chosen)
    assert int(result.stopped) == int(panel.stopped)
    assert int(panel.stopped) < result.sizes["iteration"] <= int(panel.stopped) + 51
    assert np.array_equal(result.chosen_image, keep.images[int(panel.chosen)])
    assert np.array_equal(result.loss, long.loss[: result.sizes["iteration"]])
    # Asked again, there is nothing left to do.
    again = fit(prior, task, stop=rule, checkpoint=file, **settings)
    assert again.loss.equals(result.loss)
    assert again.chosen_image.equals(result.chosen_image)


@pytest.mark.slow
def test_every_run_is_stopped_by_itself() -> None:
    prior, all_tasks, seeds = make_prior(), [make_task(0), make_task(1)], [0, 4]
    settings: dict[str, Any] = {"learning_rate": 0.03, "iterations": 400, "stop": "discrepancy"}
    together = fit(prior, all_tasks, seed=seeds, **settings)
    assert together.chosen.dims == ("image", "seed")
    stopped = set()
    for i, task in enumerate(all_tasks):
        for seed in seeds:
            apart = fit(prior, task, seed=seed, **settings)
            ours = together.sel(image=i, seed=seed)
            # Rounding in single precision may move a crossing by an iteration.
            assert abs(int(ours.chosen) - int(apart.chosen)) <= 2
            np.testing.assert_allclose(ours.chosen_image, apart.chosen_image, atol=0.05)
            stopped.add(int(ours.stopped))
    assert len(stopped) > 1
    assert together.sizes["iteration"] >= max(stopped)


@pytest.mark.slow
def test_a_stopped_fit_continues_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dipkernels.storage.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("dipkernels.storage.checkpoints.SHARE", math.inf)
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    rule = WindowedVarianceRule(patience=60)
    settings: dict[str, Any] = {"learning_rate": 0.03, "iterations": 700, "stop": rule}
    whole = fit(prior, task, **settings)

    for moment in (70, 123, 160):

        def die(iteration: int, *_: object, moment: int = moment) -> None:
            if iteration == moment:
                raise LookupError

        with pytest.raises(LookupError):
            fit(prior, task, checkpoint=file, callback=die, **settings)
    result = fit(prior, task, checkpoint=file, **settings)
    for name in ("loss", "windowed_variance", "chosen", "stopped", "chosen_image", "final"):
        assert np.array_equal(result[name], whole[name], equal_nan=True), name


def test_a_rule_that_never_fires_leaves_the_fit_whole() -> None:
    result = fit(make_prior(), make_task(), iterations=60, stop=Discrepancy(tau=0.01))
    assert result.status == "finished"
    assert int(result.stopped) == -1
    assert result.attrs["stop"] == "discrepancy"


class Backwards(Rule):
    """Chooses an image that is long gone."""

    name = "backwards"

    def decide(self, trace: xr.Dataset) -> Decision:
        n = trace.sizes["iteration"]
        return Decision(chosen=0 if n <= 60 else 1, stopped=None)


def test_an_image_that_is_gone_is_not_made_up() -> None:
    result = fit(make_prior(), make_task(), iterations=110, stop=Backwards())
    assert int(result.chosen) == 1
    assert np.isnan(result.chosen_image).all()


def test_rules_and_monitors_that_cannot_be() -> None:
    prior, task = make_prior(), make_task()
    with pytest.raises(NotApplicableError, match="the rule 'held-out' can't stop this fit"):
        fit(prior, task, iterations=60, stop="held-out")
    with pytest.raises(InvalidInputError, match="'oracle' looks at the clean image"):
        fit(prior, task, iterations=2, stop="oracle")
    with pytest.raises(UnknownNameError, match="es-wmw"):
        fit(prior, task, iterations=2, stop="es-wmw")
    with pytest.raises(UnknownNameError, match="no monitor 'variance'"):
        fit(prior, task, iterations=2, monitors=["variance"])
    with pytest.raises(InvalidInputError, match="monitors must differ"):
        fit(prior, task, iterations=2, monitors=["windowed-variance", WindowedVariance(7)])
    result = fit(prior, task, iterations=8, monitors=[WindowedVariance(5)], stop="es-wmv")
    assert np.isfinite(result.windowed_variance[4:]).all()


class Endless(torch.nn.Module):
    """Infinite for some initialisations from the start."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 2, 3, padding=1)
        self.sign = torch.nn.Parameter(torch.randn(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + 0 * self.sign.log()


def test_runs_that_were_dead_from_the_start_leave_the_rule_to_the_others(tmp_path: Path) -> None:
    prior = ImagePrior(Endless, torch.rand(1, 2, *SIZE))
    seeds = list(range(6))
    dead = [float(prior.init(seed)["sign"]) < 0 for seed in seeds]
    assert 0 < sum(dead) < len(dead)
    file = tmp_path / "state.safetensors"
    settings: dict[str, Any] = {"seed": seeds, "iterations": 400, "learning_rate": 0.01}
    settings |= {"stop": Discrepancy(tau=3.0), "checkpoint": file}
    result = fit(prior, make_task(), **settings)
    words = ["diverged" if bad else "stopped" for bad in dead]
    assert result.status.values.tolist() == words
    assert (result.stopped.values >= 0).tolist() == [not bad for bad in dead]
    assert result.sizes["iteration"] < 400
    assert fit(prior, make_task(), **settings).loss.equals(result.loss)
    assert f"({len(seeds)} seeds)" in summary(result)
    assert "nan" not in summary(result)
    assert "(diverged, stopped, " in summary(xr.concat([result, result], "image"))
    assert "(one seed: no spread)" in summary(result.isel(seed=seeds.index(dead.index(False))))


def test_a_monitor_serves_one_fit() -> None:
    monitor = WindowedVariance(5)
    fit(make_prior(), make_task(), iterations=8, monitors=[monitor])
    with pytest.raises(InvalidInputError, match="WindowedVariance has followed a fit already"):
        fit(make_prior(), make_task(), iterations=8, monitors=[monitor])
