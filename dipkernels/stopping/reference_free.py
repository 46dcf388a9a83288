"""Blurriness and sharpness of an image without a reference (Shi et al. 2022, as published).

Both are batched and differentiable almost everywhere; crops at the border are those of the
published code, so that its thresholds keep their meaning.
"""

import functools

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool1d

from dipkernels.base.checks import checked

_BOX = 9  # pixels of the box filter that blurs again
_MIN_SIDE = 12  # pixels a side that blur's crops need
_RANKS = 1001  # of the sorted differences: two are dropped, 999 are used
_DROPPED = 2
_RANK_DECAY = 0.01


@checked
def blur(images: Float[Tensor, "runs *spatial"]) -> Float[Tensor, " runs"]:
    """Measure how little an image changes if it is blurred once more.

    With ``D`` the absolute differences of neighbours along an axis, and ``B`` those of the image
    after a box filter of 9 pixels along that axis, ``sum(min(D, B)) / sum(D)``; the largest one of
    all axes.

    Parameters
    ----------
    images : Tensor, shape (runs, spatial...)
        Grey; published for two spatial axes, the same with one or three.

    Returns
    -------
    Tensor, shape (runs,)
        In [0, 1]: near 1 for a blurred image, about 1/9 for white noise. An axis along which
        nothing varies is left out; NaN for constant images, and for those with a side below 12
        pixels, of which the crops at the border leave nothing.

    References
    ----------
    Crete, Dolmiere, Ladret, Nicolas: The blur effect. SPIE 2007. Settings of Shi et al. 2022.
    """
    if min(images.shape[1:]) < _MIN_SIDE:
        return images.new_full((len(images),), torch.nan)
    along = []
    for axis in range(1, images.ndim):
        inner = [slice(6, -5)] * (images.ndim - 1)
        inner[axis - 1] = slice(None)
        along.append(_blur_along_last(images[(slice(None), *inner)].movedim(axis, -1)))
    return functools.reduce(torch.fmax, along)


# Of the pixels 6 to n - 6 and their left neighbours.
def _blur_along_last(images: Tensor) -> Tensor:
    n = images.shape[-1]
    lines = images.reshape(-1, 1, n)
    again = avg_pool1d(lines, _BOX, stride=1).reshape(*images.shape[:-1], n - _BOX + 1)
    sharp = images[..., 5 : n - 5].diff(dim=-1).abs()
    blurred = again[..., 1 : n - 9].diff(dim=-1).abs()  # whose pixel 0 is the image's pixel 4
    axes = tuple(range(1, images.ndim))
    return torch.minimum(sharp, blurred).sum(dim=axes) / sharp.sum(dim=axes)


@checked
def sharpness(images: Float[Tensor, "runs *spatial"]) -> Float[Tensor, " runs"]:
    """Measure the largest steps between neighbours.

    Of every pixel the largest of its neighbours' values minus its own (8 neighbours, 2 in one
    dimension, 26 in three); these sorted from large to small, the first two dropped, the next 999
    weighted by ``exp(-0.01 rank)``, rank counted from 0 before the dropping; their root mean
    square.

    Parameters
    ----------
    images : Tensor, shape (runs, spatial...)
        Grey; published for two spatial axes, the same with one or three.

    Returns
    -------
    Tensor, shape (runs,)
        At least 0, in units of the image. With fewer than 1001 pixels the root mean square is over
        those there are. Two pixels are left out at the start of each axis and one at its end; NaN
        if fewer than 3 remain.

    References
    ----------
    Bahrami, Kot: A Fast Approach for No-Reference Image Sharpness Assessment Based on Maximum
    Local Variation. IEEE Signal Processing Letters 2014. Settings of Shi et al. 2022.
    """
    inner = images[(slice(None),) + (slice(2, -1),) * (images.ndim - 1)]
    count = min(_RANKS, inner[0].numel())
    if count <= _DROPPED:
        return images.new_full((len(images),), torch.nan)
    steps = (_largest_neighbour(inner) - inner).flatten(1)
    largest = steps.topk(count, dim=1).values[:, _DROPPED:]
    ranks = torch.arange(_DROPPED, count, device=images.device, dtype=images.dtype)
    return (largest * torch.exp(-_RANK_DECAY * ranks)).square().mean(dim=1).sqrt()


# Largest value among the neighbours of each pixel, itself left out; beyond the border there are
# none (the published code sets them to 0, which is never the largest for outputs in [0, 1]).
def _largest_neighbour(images: Tensor) -> Tensor:
    largest = torch.full_like(images, -torch.inf)
    for axis in range(1, images.ndim):
        block = torch.maximum(largest, images)  # with the pixel itself
        border = torch.full_like(block.narrow(axis, 0, 1), -torch.inf)
        wide = torch.cat([border, block, border], dim=axis)
        for start in (0, 2):
            largest = torch.maximum(largest, wide.narrow(axis, start, images.shape[axis]))
    return largest
