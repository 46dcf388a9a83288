"""One network with the same weights in torch and in JAX."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from dipkernels.networks import ImagePrior

GRID, LAYERS = (5, 7), ((3, 6, 2), (6, 5, 1), (5, 2, 1))  # channels in and out, stride


def three_convolutions() -> ImagePrior:
    """Three convolutions: strided, reflected nowhere, so that both libraries pad with zeros."""

    def make() -> nn.Module:
        convolutions = [nn.Conv2d(i, o, 3, stride=s, padding=1) for i, o, s in LAYERS]
        first, second, third = convolutions
        return nn.Sequential(first, nn.GELU(), second, nn.Tanh(), third, nn.Sigmoid())

    code = torch.randn(1, 3, *GRID, generator=torch.Generator().manual_seed(3))
    return ImagePrior(make, code).to(dtype=torch.float64)


def two_convolutions() -> ImagePrior:
    """A strided convolution and one of size 1: JAX takes seconds to compile more."""

    def make() -> nn.Module:
        first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        return nn.Sequential(first, nn.GELU(), nn.Conv2d(4, 2, 1), nn.Sigmoid())

    code = torch.randn(1, 3, *GRID, generator=torch.Generator().manual_seed(3))
    return ImagePrior(make, code).to(dtype=torch.float64)


def two_in_jax(jax: Any) -> Callable[[dict[str, Any], Any], Any]:
    """The same function of a dict of weights."""
    jnp = jax.numpy

    def apply(values: dict[str, Any], code: Any) -> Any:
        weight = values["0.weight"]
        x = jax.lax.conv_general_dilated(code, weight, (2, 2), [(1, 1), (1, 1)])[0]
        x = jax.nn.gelu(x + values["0.bias"][:, None, None], approximate=False)
        x = jnp.einsum("oi,ihw->ohw", values["2.weight"][:, :, 0, 0], x)
        return jax.nn.sigmoid(x + values["2.bias"][:, None, None])

    return apply


def in_jax(jax: Any) -> Callable[[dict[str, Any], Any], Any]:
    """The same function of a dict of weights, by the names that torch gives them."""
    activations = (
        lambda x: jax.nn.gelu(x, approximate=False),
        jax.numpy.tanh,
        jax.nn.sigmoid,
    )

    def apply(values: dict[str, Any], code: Any) -> Any:
        image = code
        for index, (activate, (_, _, stride)) in enumerate(zip(activations, LAYERS, strict=True)):
            image = jax.lax.conv_general_dilated(
                image, values[f"{2 * index}.weight"], (stride, stride), [(1, 1), (1, 1)]
            )
            image = activate(image + values[f"{2 * index}.bias"][:, None, None])
        return image

    return apply


def double(jax: Any) -> AbstractContextManager[Any]:
    """Let JAX make arrays of float64."""
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    return owner.enable_x64(True)
