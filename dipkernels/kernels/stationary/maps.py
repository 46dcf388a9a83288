"""What the layers of an infinitely wide network do to covariance and tangent kernel.

Each function makes a new `StationaryKernel`. Formulas: docs/infinite-width.md. Cost: a few passes
over the tables; the memory of two further ones.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary.activations import Activation, activation
from dipkernels.kernels.stationary.blocks import at_lags
from dipkernels.kernels.stationary.kernel import StationaryKernel, mapped
from dipkernels.linalg.linear import summed


@checked
@dataclass(frozen=True)
class Weights:
    """Statistics of a convolution's random weights, and what they add to the tangent kernel.

    Attributes
    ----------
    variance : float
        Of one weight times the fan-in (channels times taps): ``sigma_w^2``.
    bias_variance : float
        ``sigma_b^2``; 0 without biases.
    own_weight, own_bias : float
        What the layer's own weights add to the tangent kernel, in units of the mean over taps of
        the incoming covariance; what the biases add.
    """

    variance: float
    bias_variance: float
    own_weight: float
    own_bias: float

    @classmethod
    def ntk(cls, variance: float, bias_variance: float = 0.0) -> "Weights":
        """NTK parameterisation: standard normal parameters, scaled within the layer.

        Parameters
        ----------
        variance, bias_variance : float
            As of the class.

        Returns
        -------
        Weights
            Which add ``sigma_w^2 K + sigma_b^2``.
        """
        return cls(variance, bias_variance, variance, bias_variance)

    @classmethod
    def standard(
        cls, variance: float, bias_variance: float = 0.0, *, fan_in: int, bias: bool = True
    ) -> "Weights":
        """PyTorch's parameterisation: the weights themselves are trained.

        Parameters
        ----------
        variance, bias_variance : float
            As of the class.
        fan_in, bias : int, bool
            Incoming channels times taps; whether biases are trained.

        Returns
        -------
        Weights
            Which add ``fan_in K + 1``, or without biases ``fan_in K``.
        """
        return cls(variance, bias_variance, float(fan_in), float(bias))


@checked
def convolve(
    kernel: StationaryKernel,
    kernel_size: int | Sequence[int],
    weights: Weights,
    *,
    dilation: int | Sequence[int] = 1,
    before: int | Sequence[int] | None = None,
) -> StationaryKernel:
    """Convolve with independent random weights.

    Parameters
    ----------
    kernel : StationaryKernel
        Of the incoming channels.
    kernel_size, dilation : int or sequence of int
        Taps along each axis, and pixels from tap to tap. Equal taps alone correlate, so that a
        stationary kernel's lags don't mix; phases do.
    weights : Weights
        Their statistics.
    before : int or sequence of int, optional
        Pixels that the first tap lies before the output pixel; by default half of the reach.

    Returns
    -------
    StationaryKernel
        Of the outgoing channels.
    """
    sizes = _per_axis(kernel, "kernel_size", kernel_size)
    steps = _per_axis(kernel, "dilation", dilation)
    reach = [(n - 1) * step for n, step in zip(sizes, steps, strict=True)]
    first = [r // 2 for r in reach] if before is None else _per_axis(kernel, "before", before, None)

    def mean_over_taps(table: Tensor) -> Tensor:
        for axis, (n, step, start) in enumerate(zip(sizes, steps, first, strict=True)):
            period = table.shape[axis]
            counts = torch.zeros(period, dtype=torch.float64)
            for tap in range(n):
                counts[(tap * step - start) % period] += 1 / n
            if period > 1:
                shifts = [s for s in range(period) if counts[s]]
                table = summed(float(counts[s]) * table.roll(-s, axis) for s in shifts)
        return table

    incoming = mean_over_taps(kernel.covariance_table)
    tangent = mean_over_taps(kernel.ntk_table)
    own = weights.own_weight * incoming + weights.own_bias
    return StationaryKernel(
        weights.variance * incoming + weights.bias_variance,
        own + weights.variance * tangent,
        torch.zeros_like(kernel.mean),
    )


@checked
def activate(
    kernel: StationaryKernel, function: str | Activation, **options: float
) -> StationaryKernel:
    """Apply a pointwise non-linearity to Gaussian features of mean zero.

    Parameters
    ----------
    kernel : StationaryKernel
        Of features that come from a convolution or a normalisation.
    function : str or Activation
        One of `dipkernels.kernels.stationary.activation`'s names, or its result.
    **options : float
        Of the named activation.

    Returns
    -------
    StationaryKernel
        ``(K, Theta) -> (E f f, E f' f' Theta)``, with the variances of both pixels' phases.
    """
    chosen = activation(function, **options) if isinstance(function, str) else function
    covariance = torch.empty_like(kernel.covariance_table)
    tangent = torch.empty_like(covariance)
    g = kernel.scale_weight
    for p in range(kernel.period[0]):  # one first phase at a time, to keep what is in between small
        k, theta = kernel.covariance_table[p], kernel.ntk_table[p]
        q1 = kernel.variances[p][(..., *(None,) * kernel.dims)]
        q2 = at_lags(kernel.variances, kernel.size, p)
        covariance[p] = chosen.covariance(q1, q2, k)
        tangent[p] = chosen.derivative(q1, q2, k) * (theta - g * k if g else theta)
        if g:
            tangent[p] += g * chosen.scale(q1, q2, k)
    return StationaryKernel(covariance, tangent, chosen.mean(kernel.variances))


def filtered(
    kernel: StationaryKernel, taps: Tensor, before: int | Sequence[int] | None = None
) -> StationaryKernel:
    """Filter each channel with the same ``y(n) = sum_j taps[j] x(n + j - before)``: ``A K A^T``."""
    middle = [n // 2 for n in taps.shape]
    start = middle if before is None else _per_axis(kernel, "before", before, None)
    phases = tuple(range(kernel.dims))
    lags = tuple(axis + kernel.dims for axis in phases)
    offsets = [
        ([i - s for i, s in zip(index, start, strict=True)], float(taps[index]))
        for index in np.ndindex(*taps.shape)
        if float(taps[index])
    ]

    def apply(table: Tensor) -> Tensor:
        # First y(n + r) in the place of x(n + r), then y(n) in that of x(n).
        right = summed(w * table.roll([-o for o in at], lags) for at, w in offsets)
        return summed(w * right.roll([-o for o in at] + at, phases + lags) for at, w in offsets)

    mean = summed(w * kernel.mean.roll([-o for o in at], phases) for at, w in offsets)
    return mapped(kernel, apply, mean)


@checked
def stride(
    kernel: StationaryKernel, step: int | Sequence[int], *, start: int | Sequence[int] = 0
) -> StationaryKernel:
    """Keep every ``step``-th pixel.

    Parameters
    ----------
    kernel : StationaryKernel
        On a torus whose sides are multiples of the step.
    step, start : int or sequence of int
        Along each axis; the first pixel that is kept.

    Returns
    -------
    StationaryKernel
        ``K(step r)``; a period that the step divides gets shorter by it.

    Raises
    ------
    InvalidInputError
        If the step doesn't divide the size.
    """
    steps, starts = _per_axis(kernel, "step", step), _per_axis(kernel, "start", start, 0)
    if any(n % s for n, s in zip(kernel.size, steps, strict=True)):
        raise InvalidInputError(
            f"a stride of {steps} leaves no torus of one of {kernel.size} pixels: choose an image "
            "whose sides are multiples of all strides together"
        )

    def phases_of(axis: int) -> Tensor:
        t = kernel.period[axis]
        kept = t // math.gcd(t, steps[axis])
        return (starts[axis] + steps[axis] * torch.arange(kept)) % t

    def at_phases(values: Tensor) -> Tensor:
        for axis in range(kernel.dims):
            values = values.index_select(axis, phases_of(axis).to(values.device))
        return values

    kept: Any = (..., *(slice(None, None, step) for step in steps))
    return mapped(kernel, lambda table: at_phases(table)[kept].contiguous(), at_phases(kernel.mean))


@checked
def average_pool(kernel: StationaryKernel, size: int | Sequence[int]) -> StationaryKernel:
    """Average over blocks of pixels.

    Parameters
    ----------
    kernel : StationaryKernel
        On a torus whose sides are multiples of the blocks'.
    size : int or sequence of int
        Of a block.

    Returns
    -------
    StationaryKernel
        Of the averages, one for each block.
    """
    sizes = _per_axis(kernel, "size", size)
    box = torch.full(sizes, 1 / math.prod(sizes), dtype=torch.float64)
    return stride(filtered(kernel, box, [0] * kernel.dims), sizes)


def image_mean(kernel: StationaryKernel) -> StationaryKernel:
    """Average over the whole image: what is left is a torus of one pixel."""
    ones = (1,) * kernel.dims
    mean = kernel.mean.mean().reshape(ones)
    return mapped(kernel, lambda table: table.mean().reshape(*ones, *ones), mean)


def repeated(kernel: StationaryKernel, size: Sequence[int]) -> StationaryKernel:
    """Repeat the one pixel of a torus on all pixels of another, which are then equal."""
    ones = (1,) * kernel.dims
    return mapped(kernel, lambda table: table.expand(*ones, *size).clone(), kernel.mean)


def weighed(kernel: StationaryKernel, weights: Tensor) -> StationaryKernel:
    """Sum over all pixels, ``y(n) = sum over r of weights[r] x(n + r)``."""
    lags = tuple(range(kernel.dims, 2 * kernel.dims))
    power = torch.fft.fftn(weights).abs().square()

    def apply(table: Tensor) -> Tensor:
        summed_up: Tensor = torch.fft.ifftn(torch.fft.fftn(table, dim=lags) * power, dim=lags).real
        return summed_up

    return mapped(kernel, apply, weights.sum() * kernel.mean)


def shifted(kernel: StationaryKernel, start: Sequence[int]) -> StationaryKernel:
    """Count pixels from another one: phase 0 is then ``start``'s."""
    axes, shifts = tuple(range(kernel.dims)), [-s for s in start]
    return mapped(kernel, lambda table: table.roll(shifts, axes), kernel.mean.roll(shifts, axes))


def _per_axis(
    kernel: StationaryKernel, name: str, value: int | Sequence[int], least: int | None = 1
) -> list[int]:
    values = [value] * kernel.dims if isinstance(value, int) else list(value)
    if len(values) != kernel.dims or any(least is not None and v < least for v in values):
        bound = "a whole number" if least is None else f"at least {least}"
        raise InvalidInputError(
            f"{name} must be {bound} along each of {kernel.dims} axes, got {value}"
        )
    return values
