"""Every prior, optimiser, task, monitor and rule fits on a device as on the CPU."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
import xarray as xr

from dipkernels import ImagePrior, Task, fit, networks, tasks
from dipkernels.stopping import make_rule, monitor_names
from dipkernels.stopping.rules import rule_names
from helpers import fakegpu
from helpers.priors import make

SIZE, SMALL = (16, 24), (8, 12)
NAMES = networks.names()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(size: tuple[int, int] = SIZE) -> Task:
    return tasks.denoise(draw(3, *size), noise_sigma=0.1).hold_out(0.1)


def assert_fits_alike(prior: ImagePrior, task: Any, **options: Any) -> xr.Dataset:
    here = fit(prior, task, **options)
    with fakegpu.present():
        there = fit(prior.to(device=fakegpu.NAME), task, **options)
    fakegpu.assert_same(here, there)
    return there


@pytest.mark.parametrize("name", NAMES)
def test_every_prior_in_a_batch(name: str) -> None:
    options = {"seed": [0, 1], "input_noise": 0.03, "weight_decay": 1e-4}
    assert_fits_alike(make(name, SMALL), noisy(SMALL), iterations=1, **options)


ALONE: dict[str, dict[str, Any]] = {
    "adam": {"total_variation_weight": 1e-4, "schedule": "cosine", "backtracking": 0.01},
    "sgd": {"learning_rate": 1e-3, "momentum": 0.9, "gradient_clip": 1e-3},
    "gradient-descent": {"learning_rate": 1e-3, "total_variation_weight": 1e-4},
    "l-bfgs": {},
}
# Each prior by one of them, and by all in a run of its own.
GRID = [
    pytest.param(name, optimiser, marks=() if i % len(ALONE) == j else pytest.mark.long)
    for i, name in enumerate(NAMES)
    for j, optimiser in enumerate(ALONE)
]


@pytest.mark.parametrize(("name", "optimiser"), GRID)
def test_every_prior_by_every_optimiser(name: str, optimiser: str) -> None:
    options = {"optimiser": optimiser, **ALONE[optimiser]}
    assert_fits_alike(make(name, SMALL), noisy(SMALL), iterations=2, **options)


def test_gradient_descent_finds_its_rate() -> None:
    task = tasks.super_resolve(draw(3, *SIZE), factor=4, border=2)
    assert_fits_alike(make("deep-decoder", SIZE), task, optimiser="gradient-descent", iterations=2)


class Blur:
    """Stands in for a physics of deepinv: a circular blur."""

    def A(self, x: torch.Tensor) -> torch.Tensor:  # noqa: N802
        return 0.5 * x + 0.5 * x.roll(1, dims=-1)

    def A_adjoint(self, y: torch.Tensor) -> torch.Tensor:  # noqa: N802
        return 0.5 * y + 0.5 * y.roll(-1, dims=-1)


def inpainting(seed: int = 0) -> Task:
    mask = tasks.bernoulli_mask(SIZE, known=0.7, seed=seed)
    return tasks.inpaint(draw(3, *SIZE, seed=seed), mask, noise_sigma=0.05)


TASKS: dict[str, Callable[[], Task | list[Task]]] = {
    "inpaint": inpainting,
    "super-resolve": lambda: tasks.super_resolve(draw(3, *SIZE), factor=4, border=3),
    "dejpeg": lambda: tasks.dejpeg(draw(3, *SIZE)),
    "physics": lambda: tasks.from_physics(
        Blur(), Blur().A(draw(3, *SIZE)), (3, *SIZE), clean=draw(3, *SIZE), noise_sigma=0.1
    ),
    "a function and its derived adjoint": lambda: tasks.measure(
        tasks.as_operator(lambda x: x - 0.5 * x.roll(1, dims=-2), (3, *SIZE)),
        draw(3, *SIZE),
        noise_sigma=0.1,
    ),
    "l1": lambda: noisy().with_misfit("l1"),
    "poisson": lambda: tasks.denoise(draw(3, *SIZE), noise_sigma=0.0).with_misfit(
        tasks.misfits.Poisson(peak=50.0)
    ),
    "weights": lambda: tasks.denoise(draw(3, *SIZE), noise_sigma=0.1).with_misfit(
        tasks.misfits.Weighted(0.5 + draw(3, *SIZE))
    ),
    "a function as misfit": lambda: tasks.denoise(draw(3, *SIZE), noise_sigma=0.1).with_misfit(
        lambda p, y: torch.nn.functional.huber_loss(p, y, reduction="sum")
    ),
    "several images": lambda: [inpainting(0), inpainting(1)],
}


@pytest.mark.parametrize("case", TASKS)
def test_every_task(case: str) -> None:
    assert_fits_alike(make("deep-decoder", SIZE), TASKS[case](), iterations=2)


def test_flash() -> None:
    task = tasks.flash_no_flash(draw(3, *SIZE), draw(3, *SIZE, seed=1))
    prior = make("unet", SIZE, code=task.guide)
    task = dataclasses.replace(task, guide=prior.code[0])  # which was made in float32
    assert_fits_alike(prior, task, iterations=2)


def test_several_measurements_of_one_prior() -> None:
    task = tasks.several([inpainting(0), inpainting(1)])
    assert_fits_alike(make("deep-decoder", SIZE, images=2), task, iterations=2)


def test_every_monitor_with_every_rule() -> None:
    # a calibrated rule needs other images' traces, and decides on the host like all others
    rules = [make_rule(name) for name in rule_names() if name != "calibrated"]
    monitors = monitor_names(noisy())
    for rule in [rule for rule in rules if not rule.needs_truth]:
        prior = make("deep-decoder", SIZE)
        task = noisy().measured_twice()
        assert_fits_alike(prior, task, iterations=3, monitors=monitors, stop=rule, seed=[0, 1])


def test_linearised_anew() -> None:
    assert_fits_alike(make("deep-decoder", SIZE), noisy(), iterations=5, relinearise=2, seed=[0, 1])
