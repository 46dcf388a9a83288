"""Rules for activations and normalisations."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dipkernels.kernels.infinite.features import Branch, Features
from dipkernels.kernels.infinite.reader import Reader
from dipkernels.kernels.stationary import Activation, Draws, activate, activation, batch_norm
from dipkernels.kernels.stationary.draws import normalise

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
    """Apply an activation to each branch."""
    features = reader.features(x)

    def step(draws: Draws) -> Draws:
        return draws.apply(dual.function)

    def each(branch: Branch) -> Branch:
        moved = branch.stepped(step)
        if moved is None:
            if not branch.gaussian:
                raise reader.unknown(
                    "its input is not Gaussian of mean zero: there is no layer of weights between "
                    "it and the last activation or sum"
                )
            kernel = activate(branch.kernel, dual)
            moved = replace(branch, kernel=kernel, steps=(*branch.steps, step))
        return replace(moved, gaussian=False)

    return features.each(each)


def named_activation(name: str) -> Callable[..., Features]:
    """Make the rule of an activation without options."""

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
    """Normalise over the pixels, as `torch.nn.functional.batch_norm` and `instance_norm`."""
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
            moved = branch.drawn(reader.seed()).stepped(step)
            if moved is not None:
                return moved
        reader.note(LARGE_IMAGE.format(reader.settings.drawn_pixels))
        kernel = batch_norm(branch.kernel, epsilon=epsilon, scale=scale, learned=learned)
        origin = kernel if branch.gaussian else None
        return replace(branch, kernel=kernel, origin=origin, steps=(), draws=None)

    return reader.whole(input, "it takes statistics").each(each)
