"""Every way to a posterior runs on a device, and gives what it gives on the CPU."""

from collections.abc import Callable

import pytest
import xarray as xr

from dipkernels import Task, networks, sampling, tasks
from dipkernels.networks import ImagePrior
from helpers import fakegpu
from helpers.priors import draw, make

SIZE = (8, 12)
Sampler = Callable[[ImagePrior, Task], xr.Dataset]


def noisy() -> Task:
    clean = draw(3, *SIZE).sigmoid()
    mask = tasks.bernoulli_mask(SIZE, known=0.8)
    return tasks.inpaint(clean, mask, noise_sigma=0.1).hold_out(0.1)


def chains(method: str, **options: object) -> Sampler:
    settings = {"iterations": 6, "chains": 2, "burn_in": 2, "thin": 2, **options}
    return lambda prior, task: sampling.sample(
        sampling.WeightPosterior(prior, task), method=method, **settings
    )


def linearised(prior: ImagePrior, task: Task) -> xr.Dataset:
    posterior = sampling.WeightPosterior(prior, task, weight_prior=0.01)
    return sampling.linearised(posterior, prior.init(0), draws=2, max_iterations=300)


OF_FITS = {"iterations": 6, "burn_in": 2, "thin": 2, "chains": 2}
SAMPLERS: dict[str, Sampler] = {
    "sgld": chains("sgld"),
    "psgld": chains("psgld", step_size=1e-5),
    "sghmc": chains("sghmc", step_size=1e-5),
    "gp-dip": lambda *given: sampling.gp_dip(*given, weight_noise=1e-4, **OF_FITS),
    "averaged": lambda *given: sampling.averaged(*given, **OF_FITS),
    "dropout": lambda *given: sampling.mc_dropout(*given, iterations=4, draws=3, chains=2),
    "ensemble": lambda *given: sampling.deep_ensemble(*given, members=2, iterations=3),
    "linearised": linearised,
}


def assert_samples_alike(prior: ImagePrior, sampler: Sampler) -> None:
    here = sampler(prior, noisy())
    with fakegpu.present():
        there = sampler(prior.to(device=fakegpu.NAME), noisy())
    fakegpu.assert_same(here, there, tolerance=1e-5)


@pytest.mark.parametrize("method", SAMPLERS)
def test_every_sampler(method: str) -> None:
    assert_samples_alike(make("deep-decoder", SIZE), SAMPLERS[method])


@pytest.mark.parametrize("name", networks.names())
def test_chains_of_every_prior(name: str) -> None:
    assert_samples_alike(
        make(name, SIZE), chains("psgld", step_size=1e-7, iterations=3, burn_in=1, thin=1)
    )
