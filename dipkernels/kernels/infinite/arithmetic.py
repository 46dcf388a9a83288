"""Rules for sums, differences, products with numbers, and concatenation."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from dipkernels.kernels.infinite.features import (
    Branch,
    Features,
    ImageMean,
    Known,
    Scores,
    repeated_on,
    same_branches,
)
from dipkernels.kernels.infinite.layouts import axes_of, with_axes
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary.branches import added, multiplied, translated
from dipkernels.kernels.stationary.draws import Draws
from dipkernels.kernels.stationary.kernel import mapped
from dipkernels.kernels.stationary.normalisation import centred, mean_added


def image_mean(
    reader: Reader, input: Tensor, dim: Any = None, keepdim: bool = False, **rest: Any
) -> ImageMean | Features:
    """Take each channel's mean over the image."""
    features = reader.whole(input, "it takes statistics", any_order=True)
    axes = axes_of(features)
    listed = dim if isinstance(dim, Sequence) else () if dim is None else (dim,)
    averaged = {axes[int(d) % len(axes)] for d in listed}
    if averaged != set(axes) - {"batch", "channels"} or "heads" in averaged:
        raise reader.unknown("of means only those over all pixels are known")
    if keepdim and features.axes is None:
        return ImageMean(features)
    kept = axes if keepdim else tuple(axis for axis in axes if axis not in averaged)
    return with_axes(ImageMean(features).pooled, kept)


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
        if isinstance(mean, ImageMean) and features is mean.of and abs(alpha) == 1:
            times = 1.0 if features is second else float(alpha)
            return _centre(mean) if mean.subtracted else _with_mean(mean, times)
    for value, constant, factor in ((input, other, alpha), (other, input, 1.0)):
        number = reader.number(constant)
        if number is not None and (value is input or alpha == 1):
            return moved(reader, value, float(factor) * number)
    if first is None or second is None or abs(alpha) != 1:
        raise reader.unknown("a sum with something that is no image of features")
    return _combined(reader, input, other, "sum")


def _combined(reader: Reader, input: Any, other: Any, what: str) -> Features:
    """Add or multiply two independent branches, of which one may be a single pixel."""
    first, second = _alike_in_size(reader, *_features_of_both(reader, input, other))
    if first.sources & second.sources:
        shared = ", ".join(sorted(first.sources & second.sources))
        raise reader.unknown(
            f"both branches of the {what} end in the same layer of weights ({shared}), so that "
            "their channels are not independent"
        )
    if not same_branches([first, second]) or first.borders != second.borders:
        raise reader.unknown(f"a {what} of branches whose channels were concatenated differently")
    branches = []
    for a, b in zip(first.branches, second.branches, strict=True):
        kernel = (added if what == "sum" else multiplied)(a.kernel, b.kernel)
        gaussian = what == "sum" and a.gaussian and b.gaussian
        origin = kernel if gaussian else None
        branches.append(Branch(a.channels, kernel, a.sources | b.sources, gaussian, origin))
    return replace(first, branches=tuple(branches))


def _features_of_both(reader: Reader, input: Any, other: Any) -> tuple[Features, Features]:
    found = [reader.features(value, any_order=True) for value in (input, other)]
    orders = {features.axes for features in found if not features.is_pixel}
    if len(orders) > 1:
        for value in (input, other):  # says which isn't in order
            reader.features(value)
    return found[0], found[1]


# A single pixel is repeated on all pixels of the other, without borders of its own.
def _alike_in_size(reader: Reader, first: Features, second: Features) -> tuple[Features, Features]:
    if first.channels != second.channels and 1 in (first.channels, second.channels):
        raise reader.unknown(
            "one channel meets many: what it is multiplied with or added to stays random at "
            "infinite width, so that no kernel but its mean exists"
        )
    if first.is_pixel == second.is_pixel:
        return first, second
    pixel, image = (first, second) if first.is_pixel else (second, first)
    pixel = repeated_on(pixel, image.branches[0].kernel.size)
    pixel = replace(pixel, borders=image.borders, axes=image.axes, heads=image.heads)
    return (pixel, image) if first.is_pixel else (image, pixel)


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


def scaled(reader: Reader, input: Any, other: Any) -> Known:
    """Multiply by a number, as ``x * 2``, or by a gate of each channel."""
    factor = reader.number(other)
    if factor is None:
        input, other, factor = other, input, reader.number(input)
    if factor is not None:
        return scaled_by(reader, input, factor)
    if reader.known(input) is None or reader.known(other) is None:
        raise reader.unknown("a product with a tensor")
    return _combined(reader, input, other, "product")


def divided(reader: Reader, input: Any, other: Any, **rest: Any) -> Known:
    """Divide by a number."""
    divisor = reader.number(other)
    if not divisor or any(value is not None for value in rest.values()):
        raise reader.unknown("a division by a tensor, by zero or with rounding")
    return scaled_by(reader, input, 1 / divisor)


def negated(reader: Reader, input: Any) -> Known:
    """Change the sign."""
    return scaled_by(reader, input, -1.0)


def scaled_by(reader: Reader, value: Any, factor: float) -> Known:
    """Multiply by a known number."""
    known = value if isinstance(value, Features) else reader.known(value)
    if isinstance(known, Scores) and not known.soft:
        return replace(known, factor=factor * known.factor)
    if isinstance(known, ImageMean) and not known.subtracted:
        known = known.pooled
    if not isinstance(known, Features):
        raise reader.unknown("a product of two images or with a tensor")
    if (later := known.after) is not None:  # a scaled sigmoid
        return replace(known, after=lambda: cast(Features, scaled_by(reader, later(), factor)))

    def each(branch: Branch) -> Branch:
        kernel = branch.kernel
        larger = mapped(kernel, lambda table: factor**2 * table, factor * kernel.mean)
        return replace(branch.mapped(larger, lambda x: factor * x), factor=factor * branch.factor)

    return known.each(each)


def moved(reader: Reader, value: Any, shift: float) -> Features:
    """Add a known number, which moves the mean and no derivative."""
    known = value if isinstance(value, Features) else reader.known(value)
    if isinstance(known, ImageMean) and not known.subtracted:
        known = known.pooled
    if not isinstance(known, Features):
        raise reader.unknown("a sum with something that is no image of features")
    if not shift:
        return known
    if (later := known.after) is not None:  # a shifted sigmoid
        return replace(known, after=lambda: moved(reader, later(), shift))

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


def _with_mean(mean: ImageMean, times: float) -> Features:
    def apply(x: Tensor) -> Tensor:
        return x + times * x.mean(dim=tuple(range(1, x.dim())), keepdim=True)

    return mean.of.each(lambda branch: branch.mapped(mean_added(branch.kernel, times), apply))


def biased_draws(draws: Draws) -> Draws:
    """Add random directions of a trained bias to the tangents of draws."""
    nothing = replace(draws, fields=torch.zeros_like(draws.fields))
    return replace(draws, tangents=nothing.scaled(1.0).tangents)
