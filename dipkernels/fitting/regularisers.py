"""Penalties that a fit can add to its misfit: total variation and weight decay."""

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.settings import TOTAL_VARIATIONS
from dipkernels.priors.prior import Parameters


@checked
def total_variation(images: Tensor, kind: str = "anisotropic", *, spatial_dims: int = 2) -> Tensor:
    """Total variation of images: the sum of their neighbour differences, over all channels.

    Parameters
    ----------
    images : Tensor, shape ``(..., channels, *spatial)``
        Any range.
    kind : {"isotropic", "anisotropic"}
        The Euclidean length of each pixel's forward differences along the axes (Rudin, Osher &
        Fatemi 1992), or the sum of their absolute values. They coincide in one dimension.
    spatial_dims : {1, 2, 3}
        Number of spatial axes.

    Returns
    -------
    Tensor, shape (...)
        A sum, not a mean: it grows with the number of pixels. The difference across the end of
        an axis is taken as 0.

    Raises
    ------
    InvalidInputError
        If the kind is neither.

    Notes
    -----
    The isotropic kind's square root isn't differentiable where all differences are 0; there its
    derivative is taken as 0.

    Examples
    --------
    >>> float(total_variation(torch.tensor([[[0.0, 3.0], [4.0, 0.0]]]), "isotropic"))
    12.0
    """
    if kind not in TOTAL_VARIATIONS:
        raise InvalidInputError(f"total_variation must be one of {TOTAL_VARIATIONS}, got '{kind}'")
    axes = range(-spatial_dims, 0)
    differences = [torch.diff(images, dim=axis) for axis in axes]
    if kind == "anisotropic" or spatial_dims == 1:
        sums = [d.abs().flatten(-spatial_dims - 1).sum(dim=-1) for d in differences]
        return sum(sums[1:], start=sums[0])
    # Behind the last pixel of its axis each difference is 0.
    padded = [
        torch.nn.functional.pad(d.square(), (*(0, 0) * (-1 - axis), 0, 1))
        for axis, d in zip(axes, differences, strict=True)
    ]
    squares = sum(padded[1:], start=padded[0])
    flat = squares == 0
    lengths = torch.where(flat, 0.0, torch.where(flat, 1.0, squares).sqrt())
    return lengths.flatten(-spatial_dims - 1).sum(dim=-1)


def half_squared_norms(leaves: Parameters) -> Float[Tensor, " runs"]:
    """Half of the squared Euclidean norm of all parameters, by run."""
    squares = [leaf.reshape(len(leaf), -1).square().sum(dim=1) for leaf in leaves.values()]
    return 0.5 * torch.stack(squares).sum(dim=0)
