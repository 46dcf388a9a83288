"""The block-Fourier transform that takes cyclostationary matrices apart.

A matrix over ``N`` pixels that is unchanged by shifts of ``T`` pixels is block-circulant: in the
Fourier basis over the ``N/T`` coarse positions it falls into ``N/T`` Hermitian blocks of size
``T``; in more dimensions likewise along each axis.
"""

import math

import torch
from torch import Tensor


def at_lags(values: Tensor, size: tuple[int, ...], first: int | None = None) -> Tensor:
    """Spread values of phases over the tables: ``values(p + r)`` for each phase and lag."""
    # Of the first axis all phases, or only one, whose axis then is left out.
    index = []
    for axis, (t, n) in enumerate(zip(values.shape, size, strict=True)):
        p = torch.arange(t, device=values.device)
        p = p[first : first + 1] if axis == 0 and first is not None else p
        index.append((p[:, None] + torch.arange(n, device=values.device)) % t)
    dims = len(size)
    where = []
    for axis, phases in enumerate(index):
        shape = [1] * (2 * dims)
        shape[axis], shape[dims + axis] = phases.shape
        where.append(phases.reshape(shape))
    spread = values[tuple(where)]
    return spread if first is None else spread[0]


def outer(a: Tensor, b: Tensor, size: tuple[int, ...]) -> Tensor:
    """Products ``a(p) b(p + r)``, for all phases and lags."""
    return a.reshape(*a.shape, *(1,) * len(size)) * at_lags(b, size)


def phase_means(values: Tensor, period: tuple[int, ...]) -> Tensor:
    """Average over positions, or phases, that are equal modulo a period, along the first axes."""
    for axis, t in enumerate(period):
        values = values.unflatten(axis, (-1, t)).mean(dim=axis)
    return values


def dense_matrix(table: Tensor, size: tuple[int, ...]) -> Tensor:
    """Form the matrix over the pixels of an image of this size, at the origin of the torus."""
    dims = len(size)
    index: list[Tensor] = []
    lags: list[Tensor] = []
    for axis, n in enumerate(size):
        i = torch.arange(n, device=table.device)
        shape = [1] * (2 * dims)
        shape[axis] = n
        index.append((i % table.shape[axis]).reshape(shape))
        shape[dims + axis] = n
        lags.append(((i[None] - i[:, None]) % table.shape[dims + axis]).reshape(shape))
    n = math.prod(size)
    return table[(*index, *lags)].reshape(n, n)


def block_matrices(table: Tensor) -> Tensor:
    """Take a matrix apart that is given by its table."""
    dims = table.dim() // 2
    index: list[Tensor] = []
    lags: list[Tensor] = []
    for axis in range(dims):
        period, size = table.shape[axis], table.shape[dims + axis]
        a = torch.arange(period, device=table.device)
        j = torch.arange(size // period, device=table.device)
        # From phase a to phase b, j coarse steps on: (a, b, j).
        lag = (a[None, :, None] - a[:, None, None] + period * j) % size
        after = (1,) * (3 * (dims - 1 - axis))
        index.append(a.reshape(-1, 1, 1, *after))
        lags.append(lag.reshape(*lag.shape, *after))
    picked = table[(*index, *lags)]
    order = [*range(2, 3 * dims, 3), *range(0, 3 * dims, 3), *range(1, 3 * dims, 3)]
    picked = picked.permute(order)
    # Conjugated, because a product correlates where a Fourier transform expects a convolution.
    blocks = torch.fft.fftn(picked, dim=tuple(range(dims))).conj().resolve_conj()
    side = math.prod(table.shape[:dims])
    stacked: Tensor = blocks.reshape(-1, side, side)
    return stacked


def multiply_blocks(blocks: Tensor, fields: Tensor, period: tuple[int, ...]) -> Tensor:
    """Multiply fields by a matrix that is given by its blocks."""
    dims, n, size = len(period), fields.shape[0], fields.shape[1:]
    for axis, t in enumerate(period):
        fields = fields.unflatten(1 + 2 * axis, (-1, t))
    # From (coarse, phase) along each axis to all coarse axes, then all phases; and back.
    order = [0, *range(1, 2 * dims, 2), *range(2, 2 * dims + 1, 2)]
    split = fields.permute(order)
    coarse = tuple(range(1, dims + 1))
    modes = torch.fft.fftn(split, dim=coarse).reshape(n, len(blocks), -1)
    product = torch.einsum("kab,nkb->nka", blocks, modes.to(blocks.dtype)).reshape(split.shape)
    out: Tensor = torch.fft.ifftn(product, dim=coarse)
    return out.permute([order.index(i) for i in range(len(order))]).reshape(n, *size)
