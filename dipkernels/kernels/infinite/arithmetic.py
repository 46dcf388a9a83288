"""Rules for sums, differences, products with numbers, and concatenation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipkernels.kernels.infinite.features import Branch, Features, ImageMean, Known, same_branches
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary.branches import added, translated
from dipkernels.kernels.stationary.draws import Draws
from dipkernels.kernels.stationary.kernel import mapped
from dipkernels.kernels.stationary.normalisation import centred


def image_mean(
    reader: Reader, input: Tensor, dim: Any = None, keepdim: bool = False, **rest: Any
) -> ImageMean:
    """Take each channel's mean over the image."""
    features = reader.whole(input, "it takes statistics")
    dims = features.branches[0].kernel.dims
    axes = sorted(int(d) % (dims + 2) for d in (dim if isinstance(dim, Sequence) else [dim or 0]))
    if axes != list(range(2, dims + 2)) or not keepdim:
        raise reader.unknown("of means only those over all pixels are known, with keepdim=True")
    return ImageMean(features)


def subtracted(reader: Reader, input: Any, other: Any, *, alpha: Any = 1) -> Known:
    """Subtract: an image's mean from it, or from a bias."""
    first, second = reader.known(input), reader.known(other)
    if isinstance(second, ImageMean) and not second.subtracted and alpha == 1:
        if first is second.of:
            return _centre(second)
        if isinstance(input, Tensor) and first is None and not input.any():
            named = reader.parameter(input)
            bias = named is not None and reader.trained(named[0])
            return replace(second, subtracted=True, bias=bias)
    if isinstance(first, Features) and isinstance(second, Features):
        if alpha == 1:
            return total(reader, input, other)
    elif (number := reader.number(other)) is not None:
        return moved(reader, input, -float(alpha) * number)
    elif (number := reader.number(input)) is not None:
        return moved(reader, scaled_by(reader, other, -float(alpha)), number)
    raise reader.unknown("a difference of this kind")


def reverse_subtracted(reader: Reader, input: Any, other: Any) -> Known:
    """Subtract the other way round, as Python's ``__rsub__``."""
    return subtracted(reader, other, input)


def total(reader: Reader, input: Any, other: Any, *, alpha: Any = 1) -> Known:
    """Add two branches, a number, or to an image its mean taken away."""
    first, second = reader.known(input), reader.known(other)
    for features, mean in ((first, second), (second, first)):
        if isinstance(mean, ImageMean) and mean.subtracted and features is mean.of:
            return _centre(mean)
    for value, constant, factor in ((input, other, alpha), (other, input, 1.0)):
        number = reader.number(constant)
        if number is not None and (value is input or alpha == 1):
            return moved(reader, value, float(factor) * number)
    if not isinstance(first, Features) or not isinstance(second, Features) or abs(alpha) != 1:
        raise reader.unknown("a sum with something that is no image of features")
    orders = {first.axes, second.axes}
    any_order = len(orders) == 1
    first = reader.features(input, any_order=any_order)
    second = reader.features(other, any_order=any_order)
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
    """Multiply by a number, as ``x * 2``."""
    factor = reader.number(other)
    if factor is None:
        input, factor = other, reader.number(input)
    if factor is None:
        raise reader.unknown("a product of two images or with a tensor")
    return scaled_by(reader, input, factor)


def divided(reader: Reader, input: Any, other: Any, **rest: Any) -> Features:
    """Divide by a number."""
    divisor = reader.number(other)
    if not divisor or any(value is not None for value in rest.values()):
        raise reader.unknown("a division by a tensor, by zero or with rounding")
    return scaled_by(reader, input, 1 / divisor)


def negated(reader: Reader, input: Any) -> Features:
    """Change the sign."""
    return scaled_by(reader, input, -1.0)


def scaled_by(reader: Reader, value: Any, factor: float) -> Features:
    """Multiply by a known number."""
    known = value if isinstance(value, Features) else reader.known(value)
    if not isinstance(known, Features):
        raise reader.unknown("a product of two images or with a tensor")
    if known.output:  # a scaled sigmoid
        return known

    def each(branch: Branch) -> Branch:
        kernel = branch.kernel
        larger = mapped(kernel, lambda table: factor**2 * table, factor * kernel.mean)
        return branch.mapped(larger, lambda x: factor * x)

    return known.each(each)


def moved(reader: Reader, value: Any, shift: float) -> Features:
    """Add a known number, which moves the mean and no derivative."""
    known = value if isinstance(value, Features) else reader.known(value)
    if not isinstance(known, Features):
        raise reader.unknown("a sum with something that is no image of features")
    if known.output or not shift:  # a shifted sigmoid
        return known

    def each(branch: Branch) -> Branch:
        moved = branch.mapped(translated(branch.kernel, shift), lambda x: x + shift)
        return replace(moved, gaussian=False)

    return known.each(each)


def _centre(mean: ImageMean) -> Features:
    def apply(x: Tensor) -> Tensor:
        return x - x.mean(dim=tuple(range(1, x.dim())), keepdim=True)

    def step(draws: Draws) -> Draws:
        moved = draws.apply(apply)
        return replace(moved, tangents=biased_draws(moved).tangents) if mean.bias else moved

    def each(branch: Branch) -> Branch:
        return branch.linear(centred(branch.kernel, learned_bias=mean.bias), step)

    return mean.of.each(each)


def biased_draws(draws: Draws) -> Draws:
    """Add random directions of a trained bias to the tangents of draws."""
    nothing = replace(draws, fields=torch.zeros_like(draws.fields))
    return replace(draws, tangents=nothing.scaled(1.0).tangents)
