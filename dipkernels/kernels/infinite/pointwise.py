"""Rules for activations, normalisations, sums, resampling and what only rearranges."""

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipkernels.kernels.infinite.convolutions import per_axis, strided
from dipkernels.kernels.infinite.features import (
    Branch,
    Features,
    ImageMean,
    Known,
    channel_slice,
    same_branches,
)
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary import (
    Activation,
    Draws,
    StationaryKernel,
    activate,
    activation,
    added,
    average_pool,
    batch_norm,
    centred,
    upsample,
)
from dipkernels.kernels.stationary.draws import normalise

CROPPED = "the image is cropped: kernels are those of the torus that it is cut from"
OUTPUT = (
    "the output's {} is outside the theory: these are the kernels of what it takes; where its "
    "slope is s, the tangent kernel of the image is s(p) s(p') times this one"
)
FEW_PIXELS = 5
HEAVY_TAILS = (
    "normalisation over {} pixels divides by variances that may be near 0: the tangent kernel's "
    "mean is dominated by rare channels (at 3 pixels and fewer it is as large as epsilon is small)"
)
LARGE_IMAGE = (
    "normalisation over the image is taken in the limit of large images on grids of more than {} "
    "pixels"
)


def activated(reader: Reader, x: Tensor, dual: Activation) -> Features:
    """Apply an activation to each branch.

    Parameters
    ----------
    reader : Reader
        Which follows the network.
    x : Tensor
        What it is applied to.
    dual : Activation
        The activation with its duals.

    Returns
    -------
    Features
        Of the result.

    Raises
    ------
    InvalidInputError
        If the features aren't Gaussian.
    """
    features = reader.features(x)

    def step(draws: Draws) -> Draws:
        return draws.apply(dual.function)

    def each(branch: Branch) -> Branch:
        if branch.draws is not None:
            draws = step(branch.draws)
            return replace(
                branch,
                kernel=draws.moments(),
                gaussian=False,
                steps=(*branch.steps, step),
                draws=draws,
            )
        if not branch.gaussian:
            raise reader.unknown(
                "its input is not Gaussian of mean zero: there is no layer of weights between it "
                "and the last activation or sum"
            )
        return replace(
            branch,
            kernel=activate(branch.kernel, dual),
            gaussian=False,
            steps=(*branch.steps, step),
        )

    return features.each(each)


def named_activation(name: str) -> Callable[..., Features]:
    """Make the rule of an activation without options.

    Parameters
    ----------
    name : str
        Of `dipkernels.kernels.stationary.activation`.

    Returns
    -------
    callable
        The rule.
    """

    def rule(reader: Reader, input: Tensor, inplace: bool = False) -> Features:
        return activated(reader, input, activation(name))

    return rule


def leaky_relu(
    reader: Reader, input: Tensor, negative_slope: float = 0.01, inplace: bool = False
) -> Features:
    """Apply leaky ReLU, as `torch.nn.functional.leaky_relu`."""
    return activated(reader, input, activation("leaky-relu", slope=negative_slope))


def gelu(reader: Reader, input: Tensor, approximate: str = "none") -> Features:
    """Apply GELU, as `torch.nn.functional.gelu`."""
    if approximate != "none":
        raise reader.unknown("of GELU's forms only the exact one has a dual here")
    return activated(reader, input, activation("gelu"))


def sigmoid(reader: Reader, input: Tensor) -> Features:
    """End at the output's sigmoid."""
    reader.note(OUTPUT.format("sigmoid"))
    return replace(reader.features(input), output="sigmoid")


def normalised(
    reader: Reader,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *rest: Any,
    **named: Any,
) -> Features:
    """Normalise over the pixels, as `torch.nn.functional.batch_norm` and `instance_norm`.

    Parameters
    ----------
    reader : Reader
        Which follows the network.
    input, running_mean, running_var, weight, bias, *rest, **named
        As of torch's function.

    Returns
    -------
    Features
        Of the result.

    Raises
    ------
    InvalidInputError
        If it uses statistics of other images, or its biases don't start at 0.
    """
    options = dict(zip(("training", "momentum", "eps"), rest, strict=False)) | named
    training = options.get("training", options.get("use_input_stats", True))
    epsilon = float(options.get("eps", 1e-5))
    if not training:
        raise reader.unknown("it normalises with stored statistics instead of this image's")
    scale, learned = 1.0, weight is not None
    for value, role in ((weight, "scale"), (bias, "bias")):
        if value is None:
            continue
        named_parameter = reader.parameter(value)
        if named_parameter is None:
            raise reader.unknown(f"its {role} is no parameter")
        draws = torch.stack([each[named_parameter[0]] for each in reader.initialisations]).double()
        if role == "scale":
            scale = float(draws.square().mean().sqrt())
        elif draws.any():
            raise reader.unknown("its biases don't start at 0")

    def step(draws: Draws) -> Draws:
        draws = draws.apply(lambda x: normalise(x, epsilon))
        return draws.scaled(scale) if learned else draws

    def each(branch: Branch) -> Branch:
        pixels = math.prod(branch.kernel.size)
        if pixels <= FEW_PIXELS:
            reader.note(HEAVY_TAILS.format(pixels))
        if pixels <= reader.settings.drawn_pixels:
            found = branch.drawn(reader.seed())
            if found is not None and found.draws is not None:
                draws = step(found.draws)
                return replace(
                    found,
                    kernel=draws.moments(),
                    steps=(*found.steps, step),
                    draws=draws,
                )
        reader.note(LARGE_IMAGE.format(reader.settings.drawn_pixels))
        kernel = batch_norm(branch.kernel, epsilon=epsilon, scale=scale, learned=learned)
        origin = kernel if branch.gaussian else None
        return replace(branch, kernel=kernel, origin=origin, steps=(), draws=None)

    return _whole(reader, input).each(each)


# Features of all pixels of a torus, and no others: what statistics are taken of.
def _whole(reader: Reader, input: Tensor) -> Features:
    features = reader.features(input)
    if any(low or high for low, high in features.borders):
        raise reader.unknown("it takes statistics of a padded or cropped image")
    return features


def image_mean(
    reader: Reader, input: Tensor, dim: Any = None, keepdim: bool = False, **rest: Any
) -> ImageMean:
    """Take each channel's mean over the image."""
    features = _whole(reader, input)
    dims = features.branches[0].kernel.dims
    axes = sorted(int(d) % (dims + 2) for d in (dim if isinstance(dim, Sequence) else [dim or 0]))
    if axes != list(range(2, dims + 2)) or not keepdim:
        raise reader.unknown("of means only those over all pixels are known, with keepdim=True")
    return ImageMean(features)


def subtracted(reader: Reader, input: Any, other: Any, *, alpha: float = 1) -> Known:
    """Subtract: an image's mean from it, or from a bias."""
    first, second = reader.known(input), reader.known(other)
    if isinstance(second, ImageMean) and not second.subtracted and alpha == 1:
        if first is second.of:
            return _centre(second)
        zero = isinstance(input, Tensor) and first is None and not input.any()
        if zero and reader.parameter(input) is not None:
            return replace(second, subtracted=True, bias=True)
    if alpha == 1 and isinstance(first, Features) and isinstance(second, Features):
        return total(reader, input, other)
    raise reader.unknown("a difference of this kind")


def reverse_subtracted(reader: Reader, input: Any, other: Any) -> Known:
    """Subtract the other way round, as Python's ``__rsub__``."""
    return subtracted(reader, other, input)


def total(reader: Reader, input: Any, other: Any, *, alpha: float = 1) -> Known:
    """Add two branches, or to an image its mean taken away."""
    first, second = reader.known(input), reader.known(other)
    for features, mean in ((first, second), (second, first)):
        if isinstance(mean, ImageMean) and mean.subtracted and features is mean.of:
            return _centre(mean)
    if not isinstance(first, Features) or not isinstance(second, Features) or abs(alpha) != 1:
        raise reader.unknown("a sum with something that is no image of features")
    first, second = reader.features(input), reader.features(other)
    if first.sources & second.sources:
        shared = ", ".join(sorted(first.sources & second.sources))
        raise reader.unknown(
            f"both branches of the sum end in the same layer of weights ({shared}), so that their "
            "channels are not independent"
        )
    if not same_branches([first, second]) or first.borders != second.borders:
        raise reader.unknown("a sum of branches whose channels were concatenated differently")
    branches = []
    for a, b in zip(first.branches, second.branches, strict=True):
        kernel = added(a.kernel, b.kernel)
        gaussian = a.gaussian and b.gaussian
        origin = kernel if gaussian else None
        branches.append(Branch(a.channels, kernel, a.sources | b.sources, gaussian, origin))
    return replace(first, branches=tuple(branches))


def concatenated(reader: Reader, tensors: Sequence[Tensor], dim: int = 0) -> Features:
    """Concatenate channels, as `torch.cat`."""
    if dim not in (1, 1 - reader.result.dim()):
        raise reader.unknown("a concatenation along an axis that isn't the channels'")
    every = [reader.features(tensor) for tensor in tensors]
    sizes = {features.branches[0].kernel.size for features in every}
    if len(sizes) > 1 or len({features.borders for features in every}) > 1:
        raise reader.unknown(
            f"branches on tori of different sizes ({sorted(sizes)}): choose an image whose sides "
            "are multiples of all strides together, so that nothing is cropped"
        )
    return replace(every[0], branches=tuple(b for features in every for b in features.branches))


def scaled(reader: Reader, input: Any, other: Any) -> Features:
    """Multiply by a number, as ``x * 2`` or ``x / 2``."""
    if not isinstance(other, numbers.Real):
        input, other = other, input
    known = reader.known(input)
    if not isinstance(other, numbers.Real) or not isinstance(known, Features):
        raise reader.unknown("a product of two images or with a tensor")
    if known.output:  # a scaled sigmoid
        return known
    factor = float(other)

    def each(branch: Branch) -> Branch:
        kernel = branch.kernel
        moved = replace(
            kernel,
            covariance_table=factor**2 * kernel.covariance_table,
            ntk_table=factor**2 * kernel.ntk_table,
            mean=factor * kernel.mean,
        )
        return branch.linear(moved, lambda draws: draws.apply(lambda x: factor * x))

    return known.each(each)


def divided(reader: Reader, input: Any, other: Any, **rest: Any) -> Features:
    """Divide by a number."""
    if not isinstance(other, numbers.Real) or rest:
        raise reader.unknown("a division by a tensor")
    return scaled(reader, input, 1 / float(other))


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
        moved = branch.linear(fine, lambda draws: draws.apply(apply, period=fine.period))
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
    features = reader.features(input)
    dims = features.branches[0].kernel.dims
    sizes = _blocks(reader, features, kernel_size, stride, padding)
    if divisor_override is not None:
        raise reader.unknown("with a divisor of its own")

    def apply(x: Tensor) -> Tensor:
        pool = torch.nn.functional.avg_pool1d if dims == 1 else torch.nn.functional.avg_pool2d
        return pool(x[:, None], sizes)[:, 0]

    def each(branch: Branch) -> Branch:
        kernel = average_pool(branch.kernel, sizes)
        return branch.linear(kernel, lambda draws: draws.apply(apply, period=kernel.period))

    return features.each(each)


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
    features = reader.features(input)
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
        found = branch.drawn(reader.seed())
        if found is None or found.draws is None:
            raise reader.unknown("its input is not a function of Gaussian features")
        period = strided(Features.of(branch), sizes).branches[0].kernel.period
        draws = found.draws.apply(apply, period=period)
        kernel = draws.moments()
        step: Callable[[Draws], Draws] = lambda d: d.apply(apply, period=period)  # noqa: E731
        return replace(
            found, kernel=kernel, gaussian=False, steps=(*found.steps, step), draws=draws
        )

    return features.each(each)


def _blocks(
    reader: Reader, features: Features, kernel_size: Any, stride: Any, padding: Any
) -> list[int]:
    kernel: StationaryKernel = features.branches[0].kernel
    if any(low or high for low, high in features.borders):
        raise reader.unknown("a pooling of a padded or cropped image")
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
    if dim != 1:
        raise reader.unknown("a split along an axis that isn't the channels'")
    parts, position = [], 0
    for part in reader.result:
        kept = channel_slice(reader.features(input), position, part.shape[1])
        if kept is None:
            raise reader.unknown("no channels are left")
        parts.append(kept)
        position += part.shape[1]
    return parts


def indexed(reader: Reader, input: Tensor, index: Any) -> Features:
    """Take the one image of a batch, or a box of pixels."""
    known = reader.known(input)
    if isinstance(index, int) and index == 0 and isinstance(known, Features):
        return known
    index = index if isinstance(index, tuple) else (index,)
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


def unchanged(reader: Reader, input: Tensor, *rest: Any, **named: Any) -> Features:
    """Pass on what an operation leaves as it is."""
    if reader.result.shape != input.shape:
        raise reader.unknown("it changes the shape")
    return reader.features(input)


def _centre(mean: ImageMean) -> Features:
    def apply(x: Tensor) -> Tensor:
        return x - x.mean(dim=tuple(range(1, x.dim())), keepdim=True)

    def step(draws: Draws) -> Draws:
        moved = draws.apply(apply)
        return replace(moved, tangents=draws_bias(moved).tangents) if mean.bias else moved

    def each(branch: Branch) -> Branch:
        return branch.linear(centred(branch.kernel, learned_bias=mean.bias), step)

    return mean.of.each(each)


def draws_bias(draws: Draws) -> Draws:
    """Add random directions of a trained bias to the tangents of draws.

    Parameters
    ----------
    draws : Draws
        Of channels.

    Returns
    -------
    Draws
        With the same fields.
    """
    nothing = replace(draws, fields=torch.zeros_like(draws.fields))
    return replace(draws, tangents=nothing.scaled(1.0).tangents)
