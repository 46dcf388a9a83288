"""Rules for convolutions, learned and fixed, and for the padding before them."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dipkernels.kernels.infinite.features import Branch, Features
from dipkernels.kernels.infinite.reader import Reader, single
from dipkernels.kernels.infinite.weights import initial_variance
from dipkernels.kernels.stationary import StationaryKernel, Weights, convolve, stride, upsample
from dipkernels.kernels.stationary.maps import filtered

BORDERS = (
    "borders are left out: the network's padding is replaced by a torus, which is what its "
    "interior sees"
)


def convolution(
    reader: Reader,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Features:
    """Convolve: with independent random weights, or with one fixed filter for all channels."""
    features = reader.features(input)
    kernel = features.branches[0].kernel
    dims, size = kernel.dims, kernel.size
    taps, steps, strides = weight.shape[2:], per_axis(dilation, dims), per_axis(stride, dims)
    if isinstance(padding, str):
        raise reader.unknown("give the padding as a number")
    pads = per_axis(padding, dims)
    before = [border[0] + pad for border, pad in zip(features.borders, pads, strict=True)]
    around = [sum(border) + 2 * pad for border, pad in zip(features.borders, pads, strict=True)]
    reach = [(k - 1) * step for k, step in zip(taps, steps, strict=True)]
    window = [n + a - r for n, a, r in zip(size, around, reach, strict=True)]
    if any(w > n for w, n in zip(window, size, strict=True)):
        raise reader.unknown(f"it makes {window} pixels of a torus of {list(size)}: it grows")
    if any(n % s for n, s in zip(size, strides, strict=True)):
        raise reader.unknown(
            f"its stride {strides} doesn't divide the {list(size)} pixels that it gets: choose an "
            "image whose sides are multiples of all strides together"
        )
    if any(reach):
        reader.note(BORDERS)
    here = replace(features, borders=((0, 0),) * dims)
    out = _applied(reader, here, weight, bias, groups, steps, before)
    return out if all(s == 1 for s in strides) else strided(out, strides)


def transposed_convolution(
    reader: Reader,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Features:
    """Put zeros between the pixels, and convolve."""
    features = reader.whole(input, "a transposed convolution")
    kernel = features.branches[0].kernel
    dims, taps = kernel.dims, weight.shape[2:]
    factors, steps, pads = (per_axis(value, dims) for value in (stride, dilation, padding))
    wanted = [f * n for f, n in zip(factors, kernel.size, strict=True)]
    if list(reader.result.shape[2:]) != wanted or len(set(factors)) > 1:
        raise reader.unknown(
            f"it makes {list(reader.result.shape[2:])} pixels of {list(kernel.size)}, not a whole "
            f"multiple, {wanted}"
        )
    # y(n) = sum_u w(u) z(n + pad - u): as a correlation, its taps are in reverse order.
    before = [(k - 1) * s - p for k, s, p in zip(taps, steps, pads, strict=True)]
    reader.note(BORDERS)
    factor, most = factors[0], reader.settings.max_period

    def spread(branch: Branch) -> Branch:
        if factor == 1:
            return branch
        fine = upsample(branch.kernel, factor, "zero", max_period=most)
        return branch.mapped(fine, lambda x: _with_zeros(x, factor))

    return _applied(
        reader, features.each(spread), weight, bias, groups, steps, before, transposed=True
    )


def _applied(
    reader: Reader,
    features: Features,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    steps: list[int],
    before: list[int],
    *,
    transposed: bool = False,
) -> Features:
    named = reader.parameter(weight)
    if named is None:
        if any(step > 1 for step in steps):
            raise reader.unknown("a fixed filter with dilation")
        axes = tuple(range(2, weight.dim())) if transposed else ()
        return _fixed(reader, features, weight.flip(axes), bias, groups, before)
    if groups != 1:
        raise reader.unknown(f"{groups} groups of learned weights: channels are not independent")
    merged = single(features)
    weights = _weights(reader, named, weight, bias, transposed=transposed)
    moved = convolve(merged.kernel, weight.shape[2:], weights, dilation=steps, before=before)
    return _fresh(reader, moved, weight.shape[1] if transposed else weight.shape[0])


def pad(
    reader: Reader,
    input: Tensor,
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Features:
    """Pad: the torus stays what it is, with a border around."""
    features = reader.features(input)
    dims = features.branches[0].kernel.dims
    pairs = [(int(a), int(b)) for a, b in zip(pad[::2], pad[1::2], strict=True)]
    if len(pairs) > dims or min(pad) < 0 or value:
        raise reader.unknown(f"padding by {list(pad)}")
    borders = [*features.borders]
    for axis, (low, high) in zip(range(dims - 1, -1, -1), pairs, strict=False):
        borders[axis] = (borders[axis][0] + low, borders[axis][1] + high)
    return replace(features, borders=tuple(borders))


def strided(features: Features, steps: list[int]) -> Features:
    """Keep every so many pixels."""
    index = (slice(None), *(slice(None, None, s) for s in steps))

    return features.each(lambda b: b.mapped(stride(b.kernel, steps), lambda x: x[index]))


def _with_zeros(x: Tensor, factor: int) -> Tensor:
    for axis in range(1, x.dim()):
        zeros = torch.zeros_like(x)
        x = torch.stack([x, *[zeros] * (factor - 1)], dim=axis + 1).flatten(axis, axis + 1)
    return x


def per_axis(value: int | Sequence[int], dims: int) -> list[int]:
    """Spread an option over the axes."""
    values = [int(value)] if isinstance(value, int) else [int(v) for v in value]
    return values * dims if len(values) == 1 else values


def layer_of_weights(
    reader: Reader, features: Features, weight: Tensor, bias: Tensor | None
) -> Features:
    """Mix the channels of each pixel by learned weights, ``(out, in)``."""
    named = reader.parameter(weight)
    if named is None:
        raise reader.unknown("its weights are no random parameters")
    merged = single(features)
    weights = _weights(reader, named, weight, bias, transposed=False)
    size = (1,) * merged.kernel.dims
    return _fresh(reader, convolve(merged.kernel, size, weights), weight.shape[0])


def _weights(
    reader: Reader,
    named: tuple[str, float],
    weight: Tensor,
    bias: Tensor | None,
    *,
    transposed: bool,
) -> Weights:
    name, factor = named
    reader.use(name)
    taps = math.prod(weight.shape[2:])
    out, into = weight.shape[:2] if not transposed else (weight.shape[1], weight.shape[0])
    fans = int(into) * taps, int(out) * taps
    default_fan = fans[1] if transposed else fans[0]

    def moment(name: str, *, bias: bool = False) -> float:
        found = initial_variance(
            name,
            reader.initialisations,
            *fans,
            default_fan=default_fan,
            bias=bias,
            given=reader.settings.variances,
        )
        if found.error:
            reader.note(
                f"the variance of '{name}', {found.value:.4g}, is known from {found.draws} "
                f"initialisations, to {found.error:.1%}: variances={{'{name}': ...}} takes another"
            )
        return found.value

    variance, bias_variance, biased = factor**2 * fans[0] * moment(name), 0.0, False
    if bias is not None:
        known = reader.parameter(bias)
        if known is None:
            if bias.any():
                raise reader.unknown("its bias is no parameter")
        else:
            bias_variance = moment(known[0], bias=True)
            biased = reader.trained(known[0])
    standard = reader.settings.standard
    own = (factor**2 * fans[0], 1.0) if standard else (variance, bias_variance)
    return Weights(variance, bias_variance, reader.trained(name) * own[0], biased * own[1])


def _fresh(reader: Reader, kernel: StationaryKernel, channels: int) -> Features:
    reader.widths[reader.where] = channels
    source = f"{reader.where} {len(reader.operations)}"
    return Features.of(Branch(channels, kernel, frozenset([source]), gaussian=True, origin=kernel))


def _fixed(
    reader: Reader,
    features: Features,
    weight: Tensor,
    bias: Tensor | None,
    groups: int,
    before: list[int],
) -> Features:
    taps = weight[0, 0].double()
    depthwise = groups == features.channels == weight.shape[0] and weight.shape[1] == 1
    same = torch.allclose(weight.double(), taps.expand_as(weight))
    if not depthwise or not same or bias is not None:
        raise reader.unknown(
            "its weights are no parameters, and not one filter for each channel by itself either: "
            "what fixed weights do to the mean over draws is not known"
        )

    def apply(x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for index in np.ndindex(*taps.shape):
            shifts = [b - i for i, b in zip(index, before, strict=True)]
            total = total + taps[index] * x.roll(shifts, tuple(range(1, x.dim())))
        return total

    return features.each(lambda b: b.mapped(filtered(b.kernel, taps, before), apply))
