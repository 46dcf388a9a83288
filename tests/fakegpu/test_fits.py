"""Every prior, optimiser, task, monitor and rule fits on a device as on the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import xarray as xr

from dipkernels import Task, fit, networks, tasks
from helpers.fakegpu import NAME, Numbers, assert_same
from helpers.priors import make

SIZE = (16, 24)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noisy(seed: int = 0, shape: tuple[int, ...] = (3, *SIZE)) -> Task:
    return tasks.denoise(draw(*shape, seed=seed), noise_sigma=0.1, seed=seed).hold_out(0.1)


def both(name: str, task: Any, **options: Any) -> tuple[xr.Dataset, xr.Dataset]:
    """Fit where the numbers are, and on the device."""
    prior = make(name, SIZE)
    return fit(prior, task, **options), fit(prior.to(device=NAME), task, **options)


@pytest.mark.parametrize("name", networks.names())
def test_every_prior_in_a_batch(gpu: Numbers, name: str) -> None:
    options = {"iterations": 3, "seed": [0, 1], "input_noise": 0.03, "weight_decay": 1e-4}
    assert_same(*both(name, [noisy(0), noisy(1)], **options))


ALONE: dict[str, dict[str, Any]] = {
    "adam": {"total_variation_weight": 1e-4, "schedule": "cosine", "backtracking": 0.01},
    "sgd": {"learning_rate": 1e-3, "momentum": 0.9, "gradient_clip": 1e-3},
    "gradient-descent": {"learning_rate": 1e-3, "total_variation_weight": 1e-4},
    "l-bfgs": {},
}


@pytest.mark.parametrize("optimiser", ALONE)
@pytest.mark.parametrize("name", networks.names())
def test_every_prior_by_every_optimiser(gpu: Numbers, name: str, optimiser: str) -> None:
    options = {"optimiser": optimiser, **ALONE[optimiser]}
    assert_same(*both(name, noisy(), iterations=2, **options))
