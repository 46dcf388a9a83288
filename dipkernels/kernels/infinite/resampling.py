"""Rules for interpolation, pooling, cropping and what only rearranges."""

import functools
import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipkernels.kernels.infinite.convolutions import per_axis, strided
from dipkernels.kernels.infinite.features import (
    Branch,
    Features,
    ImageMean,
    channel_slice,
    repeated_on,
)
from dipkernels.kernels.infinite.layouts import axes_of, reshaped
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary import average_pool, upsample
from dipkernels.kernels.stationary.draws import Draws

CROPPED = "the image is cropped: kernels are those of the torus that it is cut from"


def interpolated(
    reader: Reader,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Features:
    """Upsample by a whole factor, as `torch.nn.functional.interpolate`."""
    features = reader.features(input)
    if features.is_pixel and not antialias:
        return repeated_on(features, reader.result.shape[2:])
    ratios = [n / m for n, m in zip(reader.result.shape[2:], input.shape[2:], strict=True)]
    known = {"nearest": "nearest", "linear": "bilinear", "bilinear": "bilinear"}
    if align_corners:
        raise reader.unknown("with align_corners=True the kernel has no period")
    if mode not in known or antialias:
        raise reader.unknown(f"of interpolations only {', '.join(known)} are known, not {mode}")
    if len(set(ratios)) > 1 or ratios[0] != int(ratios[0]) or ratios[0] < 1:
        raise reader.unknown(f"it makes sides {ratios} times as long, not by one whole factor")
    if ratios[0] == 1:
        return features
    factor = int(ratios[0])

    def apply(x: Tensor) -> Tensor:
        border = (1, 1) * (x.dim() - 1)
        wide = torch.nn.functional.pad(x[:, None], border, mode="circular")
        fine = torch.nn.functional.interpolate(wide, scale_factor=factor, mode=mode)
        inner = slice(factor, -factor)
        return fine[:, 0, inner] if x.dim() == 2 else fine[:, 0, inner, inner]

    def each(branch: Branch) -> Branch:
        most = reader.settings.max_period
        fine = upsample(branch.kernel, factor, known[mode], max_period=most)
        moved = branch.mapped(fine, apply)
        if math.prod(fine.size) > reader.settings.drawn_pixels:
            moved = moved if moved.gaussian and branch.draws is None else moved.without_draws()
        return moved

    borders = tuple((factor * low, factor * high) for low, high in features.borders)
    return replace(features.each(each), borders=borders)


def average_pooled(
    reader: Reader,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Features:
    """Average over blocks, as `torch.nn.functional.avg_pool2d`."""
    features = reader.whole(input, "a pooling")
    dims = features.branches[0].kernel.dims
    sizes = _blocks(reader, features, kernel_size, stride, padding)
    if divisor_override is not None:
        raise reader.unknown("with a divisor of its own")

    def apply(x: Tensor) -> Tensor:
        pool = torch.nn.functional.avg_pool1d if dims == 1 else torch.nn.functional.avg_pool2d
        return pool(x[:, None], sizes)[:, 0]

    return features.each(lambda b: b.mapped(average_pool(b.kernel, sizes), apply))


def adaptively_pooled(reader: Reader, input: Tensor, output_size: Any) -> Features:
    """Average over blocks or the whole image, as `torch.nn.functional.adaptive_avg_pool2d`."""
    features = reader.whole(input, "a pooling")
    if all(n == 1 for n in reader.result.shape[2:]):
        return ImageMean(features).pooled
    return average_pooled(reader, input, _equal_blocks(reader, input))


def adaptively_largest(
    reader: Reader, input: Tensor, output_size: Any, return_indices: bool = False
) -> Features:
    """Take the largest of each block, as `torch.nn.functional.adaptive_max_pool2d`: on draws."""
    sizes = _equal_blocks(reader, input)
    return largest_pooled(reader, input, sizes, return_indices=return_indices)


def _equal_blocks(reader: Reader, input: Tensor) -> list[int]:
    sides, wanted = input.shape[2:], reader.result.shape[2:]
    if any(n % m for n, m in zip(sides, wanted, strict=True)):
        raise reader.unknown(
            f"it makes {list(wanted)} of {list(sides)} pixels: its blocks aren't alike"
        )
    return [n // m for n, m in zip(sides, wanted, strict=True)]


def largest_pooled(
    reader: Reader,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Features:
    """Take the largest of each block, as `torch.nn.functional.max_pool2d`: on draws."""
    features = reader.whole(input, "a pooling")
    dims = features.branches[0].kernel.dims
    sizes = _blocks(reader, features, kernel_size, stride, padding)
    if return_indices or any(d != 1 for d in per_axis(dilation, dims)):
        raise reader.unknown("with indices or dilation")
    reader.note("maxima over blocks have no closed form: their moments are averages over draws")

    def apply(x: Tensor) -> Tensor:
        # Not max_pool, which has no forward-mode derivative everywhere.
        for axis, n in enumerate(sizes, start=1):
            x = x.unflatten(axis, (-1, n)).amax(dim=axis + 1)
        return x

    def each(branch: Branch) -> Branch:
        period = strided(Features.of(branch), sizes).branches[0].kernel.period
        step = functools.partial(Draws.apply, function=apply, period=period)
        moved = branch.drawn(reader.seed()).stepped(step)
        if moved is None:
            raise reader.unknown("its input is not a function of Gaussian features")
        return replace(moved, gaussian=False)

    return features.each(each)


def _blocks(
    reader: Reader, features: Features, kernel_size: Any, stride: Any, padding: Any
) -> list[int]:
    kernel = features.branches[0].kernel
    sizes = per_axis(kernel_size, kernel.dims)
    steps = sizes if stride is None or stride == [] else per_axis(stride, kernel.dims)
    if steps != sizes or any(per_axis(padding, kernel.dims)):
        raise reader.unknown("of poolings only those over blocks side by side are known")
    if any(n % s for n, s in zip(kernel.size, sizes, strict=True)):
        raise reader.unknown(
            f"its blocks of {sizes} don't divide {list(kernel.size)} pixels: choose an image whose "
            "sides are multiples of all strides together"
        )
    return sizes


def narrowed(reader: Reader, input: Tensor, dim: int, start: int, length: int) -> Features:
    """Cut channels or pixels out, as `torch.Tensor.narrow`."""
    features = reader.features(input)
    dims = features.branches[0].kernel.dims
    axis = dim % (dims + 2)
    if axis == 1:
        kept = channel_slice(features, start, length)
        if kept is None:
            raise reader.unknown("no channels are left")
        return kept
    if axis == 0:
        return features
    return _cut(reader, features, axis - 2, start, int(input.shape[axis]) - start - length)


# Takes pixels away along one axis: first those that padding had put there.
def _cut(reader: Reader, features: Features, axis: int, before: int, after: int) -> Features:
    low, high = features.borders[axis]
    if low < before or high < after:
        reader.note(CROPPED)
    borders = list(features.borders)
    borders[axis] = (low - before, high - after)
    return replace(features, borders=tuple(borders))


def chunked(reader: Reader, input: Tensor, chunks: int, dim: int = 0) -> list[Features]:
    """Split channels, as `torch.chunk`."""
    features = reader.features(input, any_order=True)
    axis = dim % input.dim()
    if axes_of(features)[axis] != "channels" or features.heads > 1:
        raise reader.unknown("a split along an axis that isn't the channels'")
    parts, position = [], 0
    for part in reader.result:
        kept = channel_slice(features, position, part.shape[axis])
        if kept is None:
            raise reader.unknown("no channels are left")
        parts.append(kept)
        position += part.shape[axis]
    return parts


def indexed(reader: Reader, input: Tensor, index: Any) -> Features:
    """Take the one image of a batch, or a box of pixels."""
    known = reader.known(input)
    if isinstance(index, int) and index == 0 and isinstance(known, Features):
        return known
    index = index if isinstance(index, tuple) else (index,)
    if any(part is None for part in index):
        return reshaped(reader, input)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        whole = (slice(None),) * (input.dim() - len(index) + 1)
        index = (*index[:at], *whole, *index[at + 1 :])
    index = (*index, *(slice(None),) * (input.dim() - len(index)))
    plain = all(isinstance(i, slice) and i.step in (None, 1) for i in index)
    if not plain or any(i != slice(None) for i in index[:2]):
        raise reader.unknown("of items only the first image and boxes of pixels are known")
    features = reader.features(input)
    for axis, (part, n) in enumerate(zip(index[2:], input.shape[2:], strict=True)):
        start, stop, _ = part.indices(n)
        features = _cut(reader, features, axis, start, n - stop)
    return features
