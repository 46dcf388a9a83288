"""Heckel & Soltanolkotabi: products with the Jacobian over the weights of convolutions."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.priors import ImagePrior, Parameters

AT_ONCE = 32  # backward passes in one


@checked
def jacobian_norms(
    prior: ImagePrior,
    images: Mapping[str, Float[Tensor, "channels *spatial"]],
    seeds: Sequence[int],
    *,
    layers: Sequence[str] | None = None,
) -> xr.Dataset:
    """Measure ``|J^T y|`` of images over random networks.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    images : mapping of str to Tensor
        The y, of the prior's shape; of equal norm, to be compared.
    seeds : sequence of int
        Of the initialisations.
    layers : sequence of str, optional
        Parameters that J is taken with; by default the weights of convolutions, as published.

    Returns
    -------
    xarray.Dataset
        ``norm(image, seed)``: the root of ``y^T Theta y``, in units of y times image over
        parameter.

    Raises
    ------
    InvalidInputError
        If an image has another shape, or a layer is no parameter: without convolutions, name some.

    Notes
    -----
    Costs a forward pass a seed and a backward pass an image; `NTK.quadratic_form` is its square,
    but also traces the network, which pays only for many products.
    Source: Heckel & Soltanolkotabi 2020, figure 12.
    """
    chosen = chosen_layers(prior, layers)
    for name, y in images.items():
        if tuple(y.shape) != prior.shape:
            raise InvalidInputError(f"{name} has shape {tuple(y.shape)}, expected {prior.shape}")
    norms = np.empty((len(images), len(seeds)))
    for column, seed in enumerate(seeds):
        pull = pullback(prior, prior.init(seed), chosen)
        for row, y in enumerate(images.values()):
            gradients = pull(y.to(prior.device, prior.dtype))[0].values()
            norms[row, column] = float(sum(g.double().square().sum() for g in gradients)) ** 0.5
    return xr.Dataset(
        {"norm": (("image", "seed"), norms)},
        {"image": list(images), "seed": list(seeds)},
        {"prior": prior.name},
    )


@checked
def jacobian(
    prior: ImagePrior, parameters: Parameters, *, layers: Sequence[str] | None = None
) -> Float[Tensor, "n p"]:
    """Form the Jacobian of the image with respect to some parameters.

    Parameters
    ----------
    prior : ImagePrior
        Of n outputs.
    parameters : dict of str to Tensor
        Where.
    layers : sequence of str, optional
        As of `jacobian_norms`; they have p numbers in all.

    Returns
    -------
    Tensor, shape (n, p)
        ``8 n p`` bytes in float64; costs n backward passes.

    Raises
    ------
    InvalidInputError
        If a layer is no parameter, or the network has no convolutions and none are named.
    """
    chosen = chosen_layers(prior, layers)
    pull = vmap(pullback(prior, parameters, chosen))
    n = math.prod(prior.shape)
    units = torch.eye(n, dtype=prior.dtype, device=prior.device).reshape(n, *prior.shape)
    rows = []
    for block in units.split(AT_ONCE):
        gradients = pull(block)[0]
        rows.append(torch.cat([gradients[key].flatten(1) for key in chosen], dim=1))
    return torch.cat(rows)


def convolution_weights(prior: ImagePrior) -> list[str]:
    """Name the weights of convolutions, with which the literature's Jacobians are taken."""
    return [key for key, shape in prior.parameter_shapes.items() if len(shape) > 2]


def chosen_layers(prior: ImagePrior, layers: Sequence[str] | None) -> list[str]:
    """Check the names of parameters; by default the weights of convolutions."""
    if isinstance(layers, str):
        raise InvalidInputError(f"layers must be a list of names, got {layers!r}")
    chosen = convolution_weights(prior) if layers is None else list(layers)
    wrong = [key for key in chosen if key not in prior.parameter_shapes]
    if wrong or not chosen:
        what = f"{wrong[0]} is no parameter" if wrong else "no weights of convolutions"
        raise InvalidInputError(
            f"{what} of {prior}: give layers=, some of {', '.join([*prior.parameter_shapes][:4])}, "
            "..."
        )
    return chosen


def pullback(
    prior: ImagePrior, parameters: Parameters, chosen: Sequence[str]
) -> Callable[[Tensor], tuple[Parameters]]:
    """Make the product of an image with the Jacobian's transpose, over some parameters."""
    fixed = {key: value for key, value in parameters.items() if key not in chosen}
    pull: Callable[[Tensor], tuple[Parameters]]
    _, pull = vjp(  # type: ignore[misc]
        lambda variable: prior.image({**fixed, **variable}),
        {key: parameters[key] for key in chosen},
    )
    return pull
