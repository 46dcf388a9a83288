"""Kernels, their spectra, covariances and processes on a device, against those on the CPU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import xarray as xr
from torch import Tensor

from dipkernels import NTK, Task, gp, kernels, linalg, networks, priors, spectra, tasks, theory
from dipkernels.networks import ImagePrior
from helpers import fakegpu
from helpers.priors import draw, make

SIZE = (8, 12)
SMALL = "deep-decoder"


def assert_alike(prior: ImagePrior, numbers: Callable[[ImagePrior], Iterator[Any]]) -> None:
    """What comes out is the same; tensors lie where the prior does."""
    here = list(numbers(prior))
    with fakegpu.present():
        for expected, value in zip(here, numbers(prior.to(device=fakegpu.NAME)), strict=True):
            if isinstance(expected, xr.Dataset):
                fakegpu.assert_same(expected, value)
                continue
            if isinstance(expected, Tensor):
                assert value.device == fakegpu.THERE
                value = value.cpu()
            torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9)


def on(prior: ImagePrior, *shape: int, seed: int = 0) -> Tensor:
    return draw(*shape, seed=seed).to(prior.device)


def kernel_of(prior: ImagePrior, **options: Any) -> NTK:
    return NTK(prior, prior.init(0), **options)


def task_on(prior: ImagePrior, make_task: Callable[[Tensor], Task]) -> Task:
    return make_task(draw(*prior.shape).sigmoid()).to(device=prior.device)


def denoise(clean: Tensor) -> Task:
    return tasks.denoise(clean, noise_sigma=0.1)


def inpaint(clean: Tensor) -> Task:
    mask = tasks.bernoulli_mask(SIZE, known=0.8)
    return tasks.inpaint(clean, mask, noise_sigma=0.1).hold_out(0.1)


def super_resolve(clean: Tensor) -> Task:
    return tasks.super_resolve(clean, factor=2, noise_sigma=0.1)


def products(prior: ImagePrior) -> Iterator[Any]:
    ntk = kernel_of(prior)
    yield ntk @ on(prior, ntk.shape[0])
    yield ntk @ on(prior, ntk.shape[0], 2)
    yield ntk.by_layer().products(on(prior, ntk.shape[0], 1))


@pytest.mark.parametrize("name", networks.names())
def test_products_with_the_kernel_of_every_prior(name: str) -> None:
    assert_alike(make(name, SIZE), products)


def test_parts_of_a_kernel() -> None:
    def parts(prior: ImagePrior) -> Iterator[Any]:
        parameters = prior.init(0)
        metric = {key: value.square() + 0.1 for key, value in parameters.items()}
        ntk = NTK(prior, parameters, metric=metric, memory_budget=1)
        n, pixels = ntk.shape[0], torch.zeros(SIZE, dtype=torch.bool)
        pixels[2:5, 3] = True
        yield ntk @ on(prior, n, 2)
        yield ntk.quadratic_form(on(prior, n, 2))
        yield ntk[pixels] @ on(prior, 9)
        yield ntk[pixels, [0, 5]].to_dense()
        yield ntk.rows([0, 5]) @ on(prior, n)
        yield ntk.to_dense([1, 4])
        layers = ntk.by_layer()
        yield layers.diagonal([0, 5])
        yield layers.to_dense([0, 5])
        yield layers[layers.names[0]] @ on(prior, n)
        yield ntk.trace(2).value
        yield ntk.diagonal(2).value
        measured = kernels.ObservedKernel(ntk, task_on(prior, super_resolve))
        yield measured @ on(prior, measured.shape[0])
        yield ntk.to_scipy() @ draw(n).numpy()

    assert_alike(make(SMALL, SIZE), parts)


def test_composed_operators() -> None:
    def composed(prior: ImagePrior) -> Iterator[Any]:
        ntk = kernel_of(prior)
        n, weights = ntk.shape[0], on(prior, *prior.shape).square()
        noise = linalg.DiagonalOperator(weights.flatten())
        made = 2 * ntk - ntk @ noise @ ntk / 3
        yield made @ on(prior, n, 2)
        yield made.quadratic_form(on(prior, n) + 1j * on(prior, n, seed=1))
        yield draw(2, n).numpy() @ made
        hessian = ntk.gauss_newton(weights)
        yield hessian @ on(prior, hessian.shape[0], 2)
        yield hessian.diagonal(None).value
        yield ntk.factor().T @ on(prior, n)
        cross = ntk.cross(on(prior, *prior.code.shape, seed=2))
        yield cross @ on(prior, n)
        yield cross.T @ on(prior, n)

    assert_alike(make(SMALL, SIZE), composed)


def test_spectra_and_predictions() -> None:
    def spectra_of(prior: ImagePrior) -> Iterator[Any]:
        ntk = kernel_of(prior)
        pairs = ntk.top_eigenpairs(2)
        yield pairs.values
        probes = linalg.krylov_probes(ntk, 2, 6)
        yield linalg.spectral_density(probes)
        yield linalg.effective_rank(probes)
        start = draw(ntk.shape[0], 1)
        (space,) = linalg.Lanczos(ntk, start).extend(3).spaces()
        yield space.alpha
        yield spectra.frequency_response(ntk, prior.shape, probes=2)
        yield spectra.anisotropy(ntk, prior.shape, edges=[0.1, 0.5], probes=2)
        yield spectra.comb_response(ntk, 2, prior.shape, probes=2)
        yield theory.kernel_drift(ntk, ntk, probes=2)
        for noise, task in (("expected", denoise), ("realised", inpaint)):
            found = theory.expand(ntk, task_on(prior, task), noise=noise, steps=6)
            yield theory.learning_curve(found)
        yield spectra.prior_spectrum(prior, samples=3)

    assert_alike(make(SMALL, SIZE), spectra_of)


# One of each family; the others, which are made of the same layers, take a minute.
FAMILIES = (SMALL, "skip", "vit", "mixer", "lipschitz-decoder")


@pytest.mark.parametrize(
    "name",
    [n if n in FAMILIES else pytest.param(n, marks=pytest.mark.long) for n in networks.names()],
)
def test_covariances_of_every_prior(name: str) -> None:
    def covariances(prior: ImagePrior) -> Iterator[Any]:
        yield kernels.covariance(prior, 4, tests=False, full=name == SMALL)
        yield from priors.draw_images(prior, 3, codes="noise" if name == SMALL else "fixed")

    assert_alike(make(name, SIZE), covariances)


@pytest.mark.parametrize("task", [denoise, inpaint, super_resolve])
def test_gaussian_processes(task: Callable[[Tensor], Task]) -> None:
    def process(prior: ImagePrior) -> Iterator[Any]:
        seen = task_on(prior, task)
        posterior = gp.GaussianProcess(gp.matern(2.0, 0.05), mean=0.5).posterior(seen)
        yield posterior.mean
        yield posterior.draws(2)

    assert_alike(make(SMALL, SIZE), process)
