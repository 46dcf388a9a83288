"""Rules for what only moves numbers: axes in another order, and layers of weights on each pixel."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from dipkernels.kernels.infinite.convolutions import layer_of_weights
from dipkernels.kernels.infinite.features import Branch, Features, Known, Scores, repeated_on
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary.upsampling import pixel_shuffle

Axes = tuple[str | int, ...]


def pixel_shuffled(reader: Reader, input: Tensor, upscale_factor: int) -> Features:
    """Make pixels of channels, as `torch.nn.functional.pixel_shuffle`."""
    features, factor = reader.features(input), int(upscale_factor)
    dims = features.branches[0].kernel.dims
    copies = factor**dims
    if dims != 2 or factor < 2:
        return unchanged(reader, input)
    if any(branch.channels % copies for branch in features.branches):
        raise reader.unknown("the channels of a block come from several branches")
    most = reader.settings.max_period

    def interleave(x: Tensor) -> Tensor:
        blocks = x[: len(x) // copies * copies].unflatten(0, (-1, factor, factor))
        # (n, a, b, height, width) to (n, height, a, width, b)
        fine: Tensor = blocks.permute(0, 3, 1, 4, 2).flatten(3, 4).flatten(1, 2)
        return fine

    def each(branch: Branch) -> Branch:
        moved = branch.mapped(pixel_shuffle(branch.kernel, factor, max_period=most), interleave)
        return replace(moved, channels=branch.channels // copies)

    borders = tuple((factor * low, factor * high) for low, high in features.borders)
    return replace(features.each(each), borders=borders)


def linear(reader: Reader, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Features:
    """Mix the channels of each pixel, as `torch.nn.functional.linear` on the last axis."""
    features = reader.features(input, any_order=True)
    if axes_of(features)[-1] != "channels":
        raise reader.unknown("it mixes pixels: channels must be the last axis")
    return replace(
        layer_of_weights(reader, features, weight, bias),
        borders=features.borders,
        axes=features.axes,
    )


def permuted(reader: Reader, input: Tensor, *dims: Any) -> Features:
    """Put the axes in another order, as `torch.Tensor.permute`."""
    order = dims[0] if len(dims) == 1 and isinstance(dims[0], Sequence) else dims
    features = reader.features(input, any_order=True)
    axes = axes_of(features)
    return with_axes(features, tuple(axes[int(d) % len(axes)] for d in order))


def transposed(reader: Reader, input: Tensor, dim0: int, dim1: int) -> Features:
    """Exchange two axes."""
    order = list(range(input.dim()))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return permuted(reader, input, order)


def matrix_transposed(reader: Reader, input: Tensor, *_: Any) -> Features:
    """Exchange the last two axes, as `torch.Tensor.mT`."""
    return transposed(reader, input, -1, -2)


def moved_axes(reader: Reader, input: Tensor, source: Any, destination: Any) -> Features:
    """Move axes, as `torch.movedim`."""
    pair = [[each] if isinstance(each, int) else list(each) for each in (source, destination)]
    n = input.dim()
    places = {to % n: at % n for at, to in zip(*pair, strict=True)}
    rest = iter(axis for axis in range(n) if axis not in places.values())
    return permuted(reader, input, [places[a] if a in places else next(rest) for a in range(n)])


def flattened(reader: Reader, input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Features:
    """Flatten all pixels, as `torch.flatten`."""
    features = reader.features(input, any_order=True)
    if features.is_pixel:
        return _of_one_pixel(reader, features)
    axes, n = axes_of(features), input.dim()
    first, last = start_dim % n, end_dim % n
    dims = tuple(range(features.branches[0].kernel.dims))
    if axes[first : last + 1] == ("pixels",):
        return features
    if axes[first : last + 1] == ("heads", "channels"):
        return reshaped(reader, input)
    if axes[first : last + 1] != dims:
        raise reader.unknown("it mixes channels and pixels")
    return with_axes(features, (*axes[:first], "pixels", *axes[last + 1 :]))


def reshaped(reader: Reader, input: Tensor, *shape: Any, **named: Any) -> Features:
    """Flatten or unflatten pixels or heads, as `torch.Tensor.reshape`."""
    features = reader.features(input, any_order=True)
    axes, wanted = axes_of(features), tuple(reader.result.shape)
    if wanted == tuple(input.shape):
        return features
    if features.is_pixel:
        return _of_one_pixel(reader, features)
    dims = tuple(range(features.branches[0].kernel.dims))
    at = axes.index("channels")
    if len(wanted) == len(axes) + 1 and features.heads == 1 and len(features.branches) == 1:
        split = replace(features, heads=wanted[at])
        divided = (*axes[:at], "heads", *axes[at:])
        if _shape(split, divided) == wanted:
            return with_axes(split, divided)
    if axes[at - 1] == "heads" and len(wanted) == len(axes) - 1:
        whole, merged = replace(features, heads=1), (*axes[: at - 1], *axes[at:])
        if _shape(whole, merged) == wanted:
            return with_axes(whole, merged)
    for at in range(len(axes)):
        if axes[at] == "pixels":
            other = (*axes[:at], *dims, *axes[at + 1 :])
        elif axes[at : at + len(dims)] == dims:
            other = (*axes[:at], "pixels", *axes[at + len(dims) :])
        else:
            continue
        if _shape(features, other) == wanted:
            return with_axes(features, other)
    raise reader.unknown("it changes the shape in another way than to flatten all pixels")


def expanded(reader: Reader, input: Tensor, *shape: Any, **named: Any) -> Features:
    """Repeat a single pixel, as `torch.Tensor.expand`."""
    features, wanted = reader.features(input, any_order=True), tuple(reader.result.shape)
    if wanted == tuple(input.shape):
        return features
    dims = features.branches[0].kernel.dims
    if not features.is_pixel or features.axes or wanted[:-dims] != (1, features.channels):
        raise reader.unknown("of expansions only those of a single pixel are known")
    return repeated_on(features, wanted[-dims:])


def _of_one_pixel(reader: Reader, features: Features) -> Features:
    """Say where the channels of a single pixel have come to; all other axes are of length 1."""
    shape, dims = tuple(reader.result.shape), features.branches[0].kernel.dims
    places = [at for at, n in enumerate(shape) if n == features.channels]
    others = len(shape) - 1
    if sum(n != 1 for n in shape) > 1 or not places or others > dims + 1:
        raise reader.unknown("it splits the channels of a single pixel")
    at = places[0] if features.channels > 1 else min(1, others)
    names: Axes = ("batch", "pixels") if others == 2 and dims > 1 else ("batch", *range(dims))
    names = names[:others]
    return with_axes(replace(features, axes=None), (*names[:at], "channels", *names[at:]))


def unchanged(reader: Reader, input: Tensor, *rest: Any, **named: Any) -> Features:
    """Pass on what an operation leaves as it is."""
    if reader.result.shape != input.shape:
        raise reader.unknown("it changes the shape")
    return reader.features(input, any_order=True)


def dropout(
    reader: Reader, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Known:
    """Pass on what dropout in evaluation leaves as it is."""
    if training and p:
        raise reader.unknown("it is random in training: only dropout in evaluation is known")
    found = reader.known(input)
    if isinstance(found, Scores):
        return found
    return unchanged(reader, input)


def axes_of(features: Features) -> Axes:
    """Say what the axes of a tensor are."""
    standard: Axes = ("batch", "channels", *range(features.branches[0].kernel.dims))
    return features.axes or standard


def with_axes(features: Features, axes: Axes) -> Features:
    """Put features into another order."""
    dims = features.branches[0].kernel.dims
    if dims == 1:
        axes = tuple(0 if axis == "pixels" else axis for axis in axes)
    return replace(features, axes=None if axes == ("batch", "channels", *range(dims)) else axes)


def _shape(features: Features, axes: Axes) -> tuple[int, ...]:
    kernel = features.branches[0].kernel
    borders = features.borders
    sides = [n + low + high for n, (low, high) in zip(kernel.size, borders, strict=True)]
    known: dict[str | int, int] = {"batch": 1, "channels": features.channels // features.heads}
    known |= dict(enumerate(sides)) | {"pixels": math.prod(sides), "heads": features.heads}
    return tuple(known[axis] for axis in axes)
