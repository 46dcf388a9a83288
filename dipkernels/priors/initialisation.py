"""Initialisation schemes that replace a module's own."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from dipkernels.errors import InvalidInputError

Initialisation = str | Callable[[nn.Module], object]


SCHEMES: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "kaiming-normal": partial(nn.init.kaiming_normal_, nonlinearity="relu"),
        "kaiming-uniform": partial(nn.init.kaiming_uniform_, nonlinearity="relu"),
        "xavier-normal": nn.init.xavier_normal_,
        "xavier-uniform": nn.init.xavier_uniform_,
        "orthogonal": nn.init.orthogonal_,
        "normal": partial(nn.init.normal_, std=0.02),  # as in adversarial networks
    }
)
DEFAULT = "default"
_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def check_initialisation(scheme: Initialisation) -> None:
    """Check the name of a scheme."""
    if not callable(scheme) and scheme != DEFAULT and scheme not in SCHEMES:
        raise InvalidInputError(
            f"initialisation must be one of {', '.join([DEFAULT, *SCHEMES])}, or a function that "
            f"takes the module; got {scheme!r}"
        )


def initialise(module: nn.Module, scheme: Initialisation) -> None:
    """Draw a module's weights anew, in place."""
    check_initialisation(scheme)
    if callable(scheme):
        scheme(module)
        return
    if scheme == DEFAULT:
        return
    changed = 0
    for layer in module.modules():
        if isinstance(layer, (*_CONVS, *_TRANSPOSED, nn.Linear)) and layer.weight.requires_grad:
            _draw(layer, SCHEMES[scheme])
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
            changed += 1
    if not changed:
        raise InvalidInputError(
            f"{type(module).__name__} has no convolution and no linear map whose weight "
            f"initialisation={scheme!r} could draw: leave it at 'default', or pass a function"
        )


def _draw(layer: Any, scheme: Callable[[Tensor], Tensor]) -> None:
    weight: Tensor = layer.weight.detach()
    if isinstance(layer, _TRANSPOSED):
        # torch takes the second axis for the inputs; here it is the first, by groups.
        weight = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2)
        drawn = scheme(torch.empty(weight.flatten(0, 1).shape, dtype=weight.dtype))
        weight.copy_(drawn.unflatten(0, (layer.groups, -1)))
    else:
        scheme(weight)
