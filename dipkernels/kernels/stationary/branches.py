"""Concatenation and sums of branches."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary.blocks import outer
from dipkernels.kernels.stationary.kernel import StationaryKernel, mapped
from dipkernels.linalg.linear import summed


@checked
def mixed(kernels: Sequence[StationaryKernel], channels: Sequence[int]) -> StationaryKernel:
    """Concatenate channels: what a convolution then averages over.

    Parameters
    ----------
    kernels : sequence of StationaryKernel
        Of each branch.
    channels : sequence of int
        How many each has.

    Returns
    -------
    StationaryKernel
        The means, weighted with the channels. An activation or a normalisation acts on each branch
        by itself, and so comes before.

    Raises
    ------
    InvalidInputError
        If sizes differ or there isn't one count for each.
    """
    if len(kernels) != len(channels) or not kernels:
        raise InvalidInputError(
            f"expected a number of channels for each branch, got {len(channels)} for {len(kernels)}"
        )
    total = sum(channels)
    common = _of_one_period(kernels)
    shares = [c / total for c in channels]
    return StationaryKernel(
        summed(a * k.covariance_table for a, k in zip(shares, common, strict=True)),
        summed(a * k.ntk_table for a, k in zip(shares, common, strict=True)),
        summed(a * k.mean for a, k in zip(shares, common, strict=True)),
    )


@checked
def added(first: StationaryKernel, second: StationaryKernel) -> StationaryKernel:
    """Add the features of two branches, whose channels are independent given what comes before.

    Parameters
    ----------
    first, second : StationaryKernel
        On the same torus. They may share what lies before their last layers of weights.

    Returns
    -------
    StationaryKernel
        ``K1 + K2 + m1 m2 + m2 m1``: the product of the means vanishes where one branch ends in
        weights of mean zero. The tangent kernels have no cross term.

    Raises
    ------
    InvalidInputError
        If the sizes differ.
    """
    one, two = _of_one_period([first, second])
    cross = outer(one.mean, two.mean, one.size) + outer(two.mean, one.mean, one.size)
    return StationaryKernel(
        one.covariance_table + two.covariance_table + cross,
        one.ntk_table + two.ntk_table,
        one.mean + two.mean,
    )


def multiplied(first: StationaryKernel, second: StationaryKernel) -> StationaryKernel:
    """Multiply the features of two independent branches: ``(K1 K2, Theta1 K2 + K1 Theta2)``."""
    one, two = _of_one_period([first, second])
    own = one.ntk_table * two.covariance_table + one.covariance_table * two.ntk_table
    scales = one.scale_weight + two.scale_weight
    return StationaryKernel(
        one.covariance_table * two.covariance_table, own, one.mean * two.mean, scales
    )


def translated(kernel: StationaryKernel, shift: float) -> StationaryKernel:
    """Add a constant c: ``K + c (m(p) + m(p + r)) + c^2``, with the same tangent kernel."""
    one = torch.ones_like(kernel.mean)
    means = outer(kernel.mean, one, kernel.size) + outer(one, kernel.mean, kernel.size)
    table = kernel.covariance_table + shift * means + shift**2
    return replace(kernel, covariance_table=table, mean=kernel.mean + shift)


def _of_one_period(kernels: Sequence[StationaryKernel]) -> list[StationaryKernel]:
    sizes = {kernel.size for kernel in kernels}
    if len(sizes) > 1:
        listed = ", ".join("x".join(map(str, size)) for size in sorted(sizes))
        raise InvalidInputError(
            f"branches on tori of different sizes ({listed}) don't go together: choose an image "
            "whose sides are multiples of all strides together, so that nothing is cropped"
        )
    dims = kernels[0].dims
    period = [math.lcm(*(kernel.period[axis] for kernel in kernels)) for axis in range(dims)]

    def expanded(kernel: StationaryKernel) -> StationaryKernel:
        times = [long // short for long, short in zip(period, kernel.period, strict=True)]
        if math.prod(times) == 1:
            return kernel
        longer = kernel.mean.repeat(*times)
        return mapped(kernel, lambda table: table.repeat(*times, *(1,) * dims), longer)

    return [expanded(kernel) for kernel in kernels]
