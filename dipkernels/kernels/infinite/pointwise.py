"""Rules for activations and normalisations."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipkernels.kernels.infinite.features import NARROW, Branch, Features, channel_slice
from dipkernels.kernels.infinite.layouts import axes_of
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary import Activation, activate, activation, batch_norm
from dipkernels.kernels.stationary.activations import piecewise
from dipkernels.kernels.stationary.draws import Draws, normalise
from dipkernels.kernels.stationary.normalisation import group_norm
from dipkernels.kernels.stationary.piecewise import PiecewiseLinear

GROUPS = "normalisation over groups of {} channels is taken as if they were wide, where it is exact"
ONE_SLOPE = (
    "one trained slope for all channels: its own part in the tangent kernel is that of a slope for "
    "each channel, which is its mean if only linear layers follow; with standard parameters it "
    "vanishes with the width"
)
GELUS = {"none": "gelu", "tanh": "gelu-tanh"}  # by how torch approximates it
LEAST_THRESHOLD = 15.0  # above which softplus is linear to 3e-7
NEGATIVE = PiecewiseLinear(0.0, 1.0, ((0.0, -1.0),))  # min(x, 0), what a slope multiplies
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


def activated(
    reader: Reader,
    x: Tensor | Features,
    dual: Activation,
    *,
    slope: Callable[[Tensor], Tensor] | None = None,
) -> Features:
    """Apply an activation to each branch, with a trained parameter in it or without."""
    features = x if isinstance(x, Features) else reader.features(x, any_order=True)

    def step(draws: Draws) -> Draws:
        moved = draws.apply(dual.function)
        return moved if slope is None else moved.learned(slope(draws.fields))

    def each(branch: Branch) -> Branch:
        pixels = math.prod(branch.kernel.size)
        if not branch.gaussian and pixels <= reader.settings.drawn_pixels:
            branch = branch.drawn(reader.seed())
        moved = branch.stepped(step)
        if moved is None:
            if not branch.gaussian:
                raise reader.unknown(
                    "its input is not Gaussian of mean zero: there is no layer of weights between "
                    "it and the last activation or sum"
                )
            kernel = activate(branch.kernel, dual)
            if slope is not None:
                own = activate(branch.kernel, piecewise("slope", NEGATIVE)).covariance_table
                kernel = replace(kernel, ntk_table=kernel.ntk_table + own)
            moved = replace(branch, kernel=kernel, steps=(*branch.steps, step))
        return replace(moved, gaussian=False, factor=1.0)

    return features.each(each)


def rule_of(make: Callable[..., Activation]) -> Callable[..., Features]:
    """Make the rule of an activation, from what makes it of the options that torch is given."""

    def rule(reader: Reader, input: Tensor, *options: Any, **named: Any) -> Features:
        return activated(reader, input, make(*options, **named))

    return rule


def named_activation(name: str) -> Callable[..., Features]:
    """Make the rule of an activation without options."""
    return rule_of(lambda inplace=False: activation(name))


def prelu(reader: Reader, input: Tensor, weight: Tensor) -> Features:
    """Apply leaky ReLU of a trained slope, as `torch.nn.functional.prelu`."""
    named = reader.parameter(weight)
    if named is None:
        one = bool((weight == weight.flatten()[0]).all())
        slope, trained = float(weight.flatten()[0]) if one else None, False
    else:
        found = reader.initialisations.moments(named[0])
        slope = found.mean if found.constant else None
        trained = reader.trained(named[0])
    if slope is None:
        raise reader.unknown("its slopes don't start at one number")
    if trained and weight.numel() == 1:
        reader.note(ONE_SLOPE)
    dual = activation("leaky-relu", slope=slope)
    own = (lambda x: x.clamp(max=0)) if trained else None
    return activated(reader, input, dual, slope=own)


def softplus(reader: Reader, input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Features:
    """Apply softplus, as `torch.nn.functional.softplus`."""
    if threshold < LEAST_THRESHOLD:
        raise reader.unknown(f"it is linear above a threshold as low as {threshold:g}")
    return activated(reader, input, activation("softplus", beta=float(beta)))


def clamped(reader: Reader, input: Tensor, min: Any = None, max: Any = None) -> Features:
    """Cut values off, as `torch.clamp`."""
    bounds = [None if value is None else reader.number(value) for value in (min, max)]
    if bounds == [None, None] or None in [
        bound for bound, value in zip(bounds, (min, max), strict=True) if value is not None
    ]:
        raise reader.unknown("its bounds are no numbers")
    return activated(reader, input, cut_off(*bounds))


def cut_off(low: float | None, high: float | None) -> Activation:
    """Make the identity between bounds, of which one may be missing."""
    if low is not None and high is not None:
        return activation("hardtanh", low=low, high=high)
    if low is not None:
        return piecewise(f"at least {low:g}", PiecewiseLinear(low, 0.0, ((low, 1.0),)))
    bound = float(high or 0.0)
    return piecewise(f"at most {bound:g}", PiecewiseLinear(0.0, 1.0, ((bound, -1.0),)))


leaky_relu = rule_of(
    lambda negative_slope=0.01, inplace=False: activation("leaky-relu", slope=negative_slope)
)
gelu = rule_of(lambda approximate="none": activation(GELUS[approximate]))
hardtanh = rule_of(
    lambda min_val=-1.0, max_val=1.0, inplace=False: cut_off(float(min_val), float(max_val))
)
relu6 = rule_of(lambda inplace=False: cut_off(0.0, 6.0))
hardsigmoid = rule_of(
    lambda inplace=False: piecewise(
        "hardsigmoid", PiecewiseLinear(0.0, 0.0, ((-3.0, 1 / 6), (3.0, -1 / 6)))
    )
)


def sigmoid(reader: Reader, input: Tensor) -> Features:
    """Apply a sigmoid: the output's, unless something follows."""
    given = reader.features(input, any_order=True)

    def after() -> Features:
        return activated(reader, given, activation("sigmoid"))

    return replace(given, output="sigmoid", after=after)


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
    """Normalise over the pixels, as `torch.nn.functional.batch_norm` and `instance_norm`."""
    options = dict(zip(("training", "momentum", "eps"), rest, strict=False)) | named
    training = options.get("training", options.get("use_input_stats", True))
    epsilon = float(options.get("eps", 1e-5))
    if not training:
        raise reader.unknown("it normalises with stored statistics instead of this image's")
    scale, own = _channel_parameters(reader, weight, bias)
    learned = weight is not None or bias is not None

    def step(draws: Draws) -> Draws:
        draws = draws.apply(lambda x: normalise(x, epsilon))
        return draws.scaled(scale, *own) if learned else draws

    def each(branch: Branch) -> Branch:
        pixels = math.prod(branch.kernel.size)
        if pixels <= FEW_PIXELS:
            reader.note(HEAVY_TAILS.format(pixels))
        if pixels <= reader.settings.drawn_pixels:
            moved = branch.drawn(reader.seed()).stepped(step)
            if moved is not None:
                return moved
        reader.note(LARGE_IMAGE.format(reader.settings.drawn_pixels))
        kernel = batch_norm(branch.kernel, epsilon=epsilon, scale=scale, learned=own)
        origin = kernel if branch.gaussian else None
        return replace(branch, kernel=kernel, origin=origin, steps=(), draws=None)

    return reader.whole(input, "it takes statistics").each(each)


def group_normalised(
    reader: Reader,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Features:
    """Normalise groups of channels, as `torch.nn.functional.group_norm`."""
    features = reader.whole(input, "it takes statistics")
    if features.channels == num_groups:
        return normalised(reader, input, None, None, weight, bias, True, 0.0, eps)
    return _in_groups(reader, features, features.channels // num_groups, weight, bias, eps)


def _in_groups(
    reader: Reader,
    features: Features,
    size: int,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> Features:
    scale, own = _channel_parameters(reader, weight, bias)
    learned = weight is not None or bias is not None
    if size < NARROW:
        reader.note(GROUPS.format(size))
    pieces: list[Branch] = []
    for start in range(0, features.channels, size):
        group = channel_slice(features, start, size)
        if group is None:
            continue
        shares = [branch.channels / size for branch in group.branches]
        kernels = [branch.kernel for branch in group.branches]
        mean = sum(a * float(k.mean.mean()) for a, k in zip(shares, kernels, strict=True))
        square = sum(a * float(k.variances.mean()) for a, k in zip(shares, kernels, strict=True))
        for branch in group.branches:
            pieces.append(_normed(branch, mean, square, eps, scale, own if learned else None))
    merged: list[Branch] = []
    for piece in pieces:
        last = merged[-1] if merged else None
        if last is not None and _alike(last, piece):
            merged[-1] = replace(last, channels=last.channels + piece.channels)
        else:
            merged.append(piece)
    return replace(features, branches=tuple(merged))


def layer_normalised(
    reader: Reader,
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Features:
    """Normalise over all channels of a pixel, or of all, as `torch.nn.functional.layer_norm`."""
    features = reader.features(input, any_order=True)
    if axes_of(features)[-1] == "channels" and tuple(normalized_shape) == (features.channels,):
        if any(math.prod(branch.kernel.period) > 1 for branch in features.branches):
            raise reader.unknown(
                "pixels of different phases have different variances: take max_period=1"
            )
        return _in_groups(reader, features, features.channels, weight, bias, eps)
    reader.whole(input, "it takes statistics")
    if tuple(normalized_shape) != tuple(input.shape[1:]):
        raise reader.unknown("of layer norms only those over channels and pixels are known")
    if weight is not None or bias is not None:
        raise reader.unknown("with a scale or a bias for each pixel it is not stationary")
    return group_normalised(reader, input, 1, None, None, eps)


def _normed(
    branch: Branch,
    mean: float,
    square: float,
    epsilon: float,
    scale: float,
    own: tuple[bool, bool] | None,
) -> Branch:
    own_scale, own_bias = own or (False, False)
    deviation = math.sqrt(max(square - mean**2, 0.0) + epsilon)
    options = {"own_scale": own_scale, "own_bias": own_bias}
    kernel = group_norm(
        branch.kernel, mean=mean, square=square, epsilon=epsilon, scale=scale, **options
    )

    def step(draws: Draws) -> Draws:
        moved = draws.apply(lambda x: (x - mean) / deviation)
        return moved if own is None else moved.scaled(scale, own_scale, own_bias)

    moved = branch.linear(kernel, step)
    if moved.draws is not None:
        moved = replace(moved, kernel=moved.draws.moments())
    return replace(moved, gaussian=branch.gaussian and not mean)


def _alike(one: Branch, other: Branch) -> bool:
    same = one.sources == other.sources and one.gaussian == other.gaussian
    return same and all(
        torch.equal(a, b)
        for a, b in (
            (one.kernel.covariance_table, other.kernel.covariance_table),
            (one.kernel.ntk_table, other.kernel.ntk_table),
        )
    )


def _channel_parameters(
    reader: Reader, weight: Tensor | None, bias: Tensor | None
) -> tuple[float, tuple[bool, bool]]:
    """Root mean square of the scales, and whether scales and biases, which are 0, are trained."""
    scale, own = 1.0, [False, False]
    for index, value in enumerate((weight, bias)):
        if value is None:
            continue
        named = reader.parameter(value)
        role = ("scale", "bias")[index]
        if named is None:
            if index and not value.any():
                continue
            if not index and bool((value == value.flatten()[0]).all()):
                scale = float(value.flatten()[0])
                continue
            raise reader.unknown(f"its {role} is no parameter")
        found = reader.initialisations.moments(named[0])
        own[index] = reader.trained(named[0])
        if not index:
            scale = math.sqrt(found.variance)
        elif found.variance:
            raise reader.unknown("its biases don't start at 0")
    return scale, (own[0], own[1])
