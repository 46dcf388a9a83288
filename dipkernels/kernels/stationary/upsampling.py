"""Upsampling on a lag grid: exactly, with its phases, or averaged over them."""

import math
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Count, at_least
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary.blocks import outer
from dipkernels.kernels.stationary.kernel import StationaryKernel, with_period

Factor = Annotated[int, at_least(2)]
MODES = ("nearest", "bilinear", "sinc", "zero")
NYQUIST = 1e-12  # of the largest value of the spectrum: what counts as no energy


@checked
def upsample(
    kernel: StationaryKernel, factor: Factor, mode: str, *, max_period: Count | None = None
) -> StationaryKernel:
    """Make every side longer by a whole factor.

    Parameters
    ----------
    kernel : StationaryKernel
        Of the coarse features.
    factor : int
        At least 2.
    mode : {"nearest", "bilinear", "sinc", "zero"}
        Repetition; linear interpolation between pixel centres (``align_corners=False``); periodic
        band-limited interpolation; zeros between the pixels.
    max_period : int, optional
        The longest period that is kept along an axis: phases beyond are averaged. 1 is the
        stationary closure; None, the default, is exact.

    Returns
    -------
    StationaryKernel
        Of the fine features. Memory: ``factor^2`` times as much per axis, if exact.

    Raises
    ------
    InvalidInputError
        If there is no such mode, or band-limited interpolation meets phases.

    Notes
    -----
    Band-limited interpolation of a stationary kernel is stationary, ``K(r / factor)``, if and only
    if its spectrum has nothing at the highest frequency of an even size.
    """
    require_choice("mode", mode, MODES)
    for axis in range(kernel.dims):
        kernel = _along(kernel, axis, factor, mode, max_period)
    return kernel


def _along(
    kernel: StationaryKernel, axis: int, factor: int, mode: str, most: int | None
) -> StationaryKernel:
    dims, tables = kernel.dims, (kernel.covariance_table, kernel.ntk_table)
    if mode == "sinc":
        waves = any(_has_highest(table, dims + axis) for table in tables)
        fine = [_sinc_axis(table, axis, dims, factor, waves) for table in tables]
        mean = kernel.mean.repeat_interleave(fine[0].shape[axis], axis)
    else:
        weights, offsets = taps(mode, factor)
        fine = [_upsample_axis(table, axis, dims, weights, offsets, most) for table in tables]
        mean = _upsample_mean(kernel.mean, axis, weights, offsets)
    period = _capped(mean.shape[axis], most)
    mean = mean.unflatten(axis, (-1, period)).mean(dim=axis)
    if fine[0].shape[axis] > period:
        fine = [table.unflatten(axis, (-1, period)).mean(dim=axis) for table in fine]
    return replace(kernel, covariance_table=fine[0], ntk_table=fine[1], mean=mean)


def pixel_shuffle(
    kernel: StationaryKernel, factor: int, *, max_period: int | None = None
) -> StationaryKernel:
    """Make the pixels of each block of channels of their own, as `torch.nn.PixelShuffle`."""
    # K(r / factor) at lags that are multiples of the factor along all axes; elsewhere the pixels
    # are of different channels: the product of their means, and no tangent kernel.
    dims = kernel.dims
    size = tuple(factor * n for n in kernel.size)
    comb: Any = (..., *(slice(None, None, factor),) * dims)
    mean = kernel.mean
    for axis in range(dims):
        mean = mean.repeat_interleave(factor, axis)

    def fine(table: Tensor, other: Tensor) -> Tensor:
        for axis in range(dims):
            table = table.repeat_interleave(factor, axis)
        spread = other.expand(*mean.shape, *size).clone()
        spread[comb] = table
        return spread

    covariance = fine(kernel.covariance_table, outer(mean, mean, size))
    nothing = torch.zeros((1,) * (2 * dims), dtype=torch.float64, device=mean.device)
    ntk = fine(kernel.ntk_table, nothing)
    found = StationaryKernel(covariance, ntk, mean, kernel.scale_weight)
    return with_period(found, tuple(_capped(t, max_period) for t in found.period))


def taps(mode: str, factor: int) -> tuple[Tensor, Tensor]:
    """Weights of an interpolation: ``y(n) = sum_j w[n % f, j] x(n // f + offset[n % f, j])``."""
    weights = torch.zeros(factor, 1, dtype=torch.float64)
    if mode == "nearest":
        return torch.ones_like(weights), torch.zeros(factor, 1, dtype=torch.int64)
    if mode == "zero":
        weights[0] = 1
        return weights, torch.zeros(factor, 1, dtype=torch.int64)
    position = (torch.arange(factor, dtype=torch.float64) + 0.5) / factor - 0.5
    low = position.floor()
    share = position - low
    whole = low.to(torch.int64)
    return torch.stack([1 - share, share], dim=1), torch.stack([whole, whole + 1], dim=1)


def _capped(period: int, most: int | None) -> int:
    if most is None:
        return period
    return max(t for t in range(1, most + 1) if period % t == 0)


# One axis of the table: exact, then averaged to the longest period that is kept. Phases are made in
# groups that are averaged at once, so that a closure never holds more than it returns.
def _upsample_axis(
    table: Tensor, axis: int, dims: int, weights: Tensor, offsets: Tensor, most: int | None
) -> Tensor:
    moved = table.movedim((axis, dims + axis), (0, 1))
    t, n = moved.shape[:2]
    factor, count = weights.shape
    device = table.device
    weights, offsets = weights.to(device), offsets.to(device)
    period = _capped(factor * t, most)
    repeats = factor * t // period
    r = torch.arange(factor * n, device=device)
    out = moved.new_zeros(period, factor * n, *moved.shape[2:])
    trailing = (1,) * (moved.dim() - 2)
    for p in range(factor * t):
        q = p + r
        for i in range(count):
            if weights[p % factor, i] == 0:
                continue
            here = p // factor + int(offsets[p % factor, i])
            for j in range(count):
                there = q // factor + offsets[q % factor, j]
                c = weights[p % factor, i] * weights[q % factor, j] / repeats
                picked = moved[here % t].index_select(0, (there - here) % n)
                out[p % period].addcmul_(c.reshape(-1, *trailing), picked)
    return out.movedim((0, 1), (axis, dims + axis))


def _upsample_mean(mean: Tensor, axis: int, weights: Tensor, offsets: Tensor) -> Tensor:
    factor, t = len(weights), mean.shape[axis]
    p = torch.arange(factor * t)
    moved = mean.movedim(axis, 0)
    index = (p[:, None] // factor + offsets[p % factor]) % t
    fine = torch.einsum("pj,pj...->p...", weights[p % factor].to(mean.device), moved[index])
    return fine.movedim(0, axis)


# Whether an even axis has energy at its highest frequency.
def _has_highest(table: Tensor, axis: int) -> bool:
    spectrum = torch.fft.fft(table, dim=axis)
    n = table.shape[axis]
    highest = spectrum.select(axis, n // 2).abs().max()
    return n % 2 == 0 and bool(highest > NYQUIST * spectrum.abs().max())


def _sinc_axis(table: Tensor, axis: int, dims: int, factor: int, waves: bool) -> Tensor:
    moved = table.movedim((axis, dims + axis), (0, -1))
    t, n = moved.shape[0], moved.shape[-1]
    if t > 1:
        raise InvalidInputError(
            "band-limited interpolation is for features that are stationary along each axis, these "
            f"have period {t}: average first, with phase_averaged()"
        )
    spectrum = torch.fft.fft(moved)
    half = (n + 1) // 2  # frequencies 0 ... half - 1 and their negatives
    fine = spectrum.new_zeros(*spectrum.shape[:-1], factor * n)
    fine[..., :half] = spectrum[..., :half]
    if half > 1:
        fine[..., 1 - half :] = spectrum[..., 1 - half :]
    smooth = torch.fft.ifft(fine).real * factor
    if waves:
        # The highest frequency becomes a standing wave, cos(pi n / factor), which has phases.
        highest = spectrum[..., n // 2 : n // 2 + 1].real / n
        position = torch.arange(factor, dtype=torch.float64, device=table.device)[:, None]
        lags = torch.arange(factor * n, device=table.device)
        turn = math.pi / factor
        wave = torch.cos(turn * position) * torch.cos(turn * (position + lags))
        wave = wave.reshape(factor, *(1,) * (moved.dim() - 2), factor * n).to(smooth.dtype)
        smooth = smooth + highest * wave
    fine_table: Tensor = smooth.movedim((0, -1), (axis, dims + axis))
    return fine_table
