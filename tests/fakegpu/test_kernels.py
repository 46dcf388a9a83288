"""Kernels, their spectra, covariances and processes on a device, against those on the CPU."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from dipkernels import NTK, gp, kernels, networks, spectra, tasks, theory
from dipkernels.kernels import MeasuredKernel
from dipkernels.linalg import Lanczos, conjugate_gradients, krylov_probes
from dipkernels.networks import ImagePrior
from helpers import fakegpu
from helpers.priors import draw, make

SIZE = (8, 12)
Made = dict[str, Tensor]


def assert_alike(prior: ImagePrior, numbers: Callable[[ImagePrior], Iterator[Any]]) -> None:
    """What comes out is the same; tensors lie where the prior does."""
    here = list(numbers(prior))
    with fakegpu.present():
        for expected, value in zip(here, numbers(prior.to(device=fakegpu.NAME)), strict=True):
            if isinstance(expected, Tensor):
                assert value.device == fakegpu.THERE
                value = value.cpu()
            torch.testing.assert_close(value, expected, rtol=1e-7, atol=1e-9)


def seen_by(prior: ImagePrior) -> Callable[..., Tensor]:
    return lambda *shape, seed=0: draw(*shape, seed=seed).to(prior.device)


def products(prior: ImagePrior) -> Iterator[Any]:
    make = seen_by(prior)
    parameters = prior.init(0)
    metric = {key: value.square() + 0.1 for key, value in parameters.items()}
    ntk = NTK(prior, parameters, metric=metric)
    n = ntk.shape[0]
    yield ntk @ make(n)
    yield ntk @ make(n, 3)
    yield ntk.quadratic_form(make(n, 2))
    layers = ntk.by_layer()
    yield layers.products(make(n, 2))
    yield layers[layers.names[0]] @ make(n)
    pixels = torch.zeros(SIZE, dtype=torch.bool)
    pixels[2:5, 3] = True
    yield ntk[pixels] @ make(3 * 3)
    yield ntk.rows([0, 5]) @ make(n)
    yield layers.diagonal([0, 5])
    spaces = Lanczos(ntk, make(n, 2)).extend(3).spaces()
    yield torch.from_numpy(spaces[0].alpha)


@pytest.mark.parametrize("name", networks.names())
def test_products_with_the_kernel_of_every_prior(name: str) -> None:
    prior = make(name, SIZE)
    assert_alike(prior, products)
