"""Patches about every pixel, and two filters that compare them: non-local means, a network's."""

import math
import operator
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import activation as dual_activation
from dipkernels.networks.layers import PADDINGS


def patches(
    image: Float[Tensor, "channels *spatial"], size: int, *, padding: str = "reflect"
) -> Float[Tensor, "pixels values"]:
    """Cut out the patch about every pixel."""
    if size < 1 or size % 2 == 0:
        raise InvalidInputError(f"the side of a patch must be odd and positive, got {size}")
    if padding not in ("reflect", "zero", "circular"):
        raise InvalidInputError(f"padding must be reflect, zero or circular, got {padding!r}")
    dims, half = image.dim() - 1, size // 2
    most = {"reflect": 2 * min(image.shape[1:]) - 1, "circular": 2 * min(image.shape[1:]) + 1}
    if size > most.get(padding, size):
        raise InvalidInputError(
            f"patches of {size} pixels are too large for {padding} padding of an image of "
            f"{tuple(image.shape[1:])} pixels: at most {most[padding]}, or use zero padding"
        )
    mode = "constant" if padding == "zero" else PADDINGS[padding]
    whole = torch.nn.functional.pad(image[None], [half] * (2 * dims), mode=mode)[0]
    for axis in range(1, dims + 1):
        whole = whole.unfold(axis, size, 1)
    order = [*range(1, dims + 1), 0, *range(dims + 1, 2 * dims + 1)]
    return whole.permute(order).reshape(image[0].numel(), -1)


@checked
def non_local_means_weights(
    image: Float[Tensor, "channels *spatial"],
    patch_size: int,
    bandwidth: float,
    *,
    padding: str = "reflect",
) -> Float[Tensor, "pixels pixels"]:
    """Compute the weights of non-local means over the whole image.

    Parameters
    ----------
    image : Tensor, shape ``(channels, *spatial)``
        What patches are compared of.
    patch_size : int
        Side of a patch, odd.
    bandwidth : float
        The h, in units of the image, positive.
    padding : {"reflect", "zero", "circular"}
        As of `patches`.

    Returns
    -------
    Tensor, shape (pixels, pixels)
        ``exp(-d^2 / h^2)`` with ``d^2`` the mean squared difference of two patches, each row
        divided by its sum: row i filters pixel i. Memory: ``8 pixels^2`` bytes, in float64.

    Raises
    ------
    InvalidInputError
        If the bandwidth isn't positive, or as of `patches`.

    Notes
    -----
    Source: Buades, Coll & Morel 2005, with all pixels of a patch alike and no search window, both
    unlike scikit-image's.
    """
    if not bandwidth > 0:
        raise InvalidInputError(f"bandwidth must be positive, got {bandwidth}")
    rows = patches(image.double(), patch_size, padding=padding)
    squares = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    weights = torch.exp(-squares / (rows.shape[1] * bandwidth**2))
    return weights / weights.sum(dim=1, keepdim=True)


@checked
def patch_tangent_kernel(
    code: Float[Tensor, "channels *spatial"],
    patch_size: int,
    *,
    activation: str = "relu",
    first: float = 1.0,
    last: float = 1.0,
    padding: str = "reflect",
) -> Float[Tensor, "pixels pixels"]:
    """Derive the tangent kernel of a two-layer convolutional network of infinite width on a code.

    The network: a convolution of side `patch_size` without biases, the activation, a 1x1
    convolution to one channel; weights are independent, of variance one over the fan-in. With the
    code at hand, not on average over codes: this is the filter which Tachella et al. compare with
    non-local means, when the code is the noisy image itself.

    Parameters
    ----------
    code : Tensor, shape ``(channels, *spatial)``
        What the network is called with, on the image's own grid.
    patch_size : int
        Odd.
    activation : str
        As of `dipkernels.kernels.stationary.activation`.
    first, last : float
        Weight of the part of each layer's own parameters: 1 and 1 in the NTK parameterisation; the
        fan-in ``channels * patch_size ** dims`` and the width in PyTorch's, where the last layer
        takes most of it.
    padding : {"reflect", "zero", "circular"}
        As of `patches`.

    Returns
    -------
    Tensor, float64, shape (pixels, pixels)
        ``last E[f f] + first E[f' f'] q``, ``q`` the inner products of patches over their size.

    Raises
    ------
    InvalidInputError
        As of `patches`.
    UnknownNameError
        If the activation has no known dual.

    Notes
    -----
    For a ReLU it depends on the angle between two patches and on their norms: similar patches far
    from each other count as much as near ones, as in non-local means; but so do bright ones.
    Source: Tachella et al. 2021 (arXiv:2006.02379).
    """
    rows = patches(code.double(), patch_size, padding=padding)
    gram = rows @ rows.T / rows.shape[1]
    power = gram.diagonal()
    dual = dual_activation(activation)
    q1, q2 = torch.broadcast_tensors(power[:, None], power[None])
    return last * dual.covariance(q1, q2, gram) + first * dual.derivative(q1, q2, gram) * gram


def share_outside(
    weights: Float[Tensor, "m pixels"],
    pixels: Sequence[int],
    spatial: tuple[int, ...],
    radius: int,
) -> Float[Tensor, " m"]:
    """Measure how non-local filters are."""
    outside = ~local_window(pixels, spatial, radius).to(weights.device)
    absolute = weights.abs()
    return (absolute * outside).sum(dim=1) / absolute.sum(dim=1)


def require_pixels(pixels: Sequence[int], count: int) -> list[int]:
    """Check indices of pixels."""
    found = [operator.index(pixel) for pixel in pixels]
    if not found or min(found) < 0 or max(found) >= count:
        raise InvalidInputError(f"pixels must be indices in 0 to {count - 1}, got {found}")
    return found


def local_window(pixels: Sequence[int], spatial: tuple[int, ...], radius: int) -> Tensor:
    """Mark the pixels within a window about each of some pixels."""
    if radius < 0:
        raise InvalidInputError(f"the radius of a window can't be negative, got {radius}")
    pixels = require_pixels(pixels, math.prod(spatial))
    grid = torch.cartesian_prod(*(torch.arange(n) for n in spatial)).reshape(-1, len(spatial))
    distance = (grid[list(pixels)][:, None] - grid[None]).abs().amax(dim=-1)
    return distance <= radius
