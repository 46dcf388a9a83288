"""The convolutional families as facts and papers describe them, in NumPy.

Parameters are read in the order in which each network uses them.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from torch import Tensor

from helpers.convolutions import (
    Array,
    activate,
    convolve,
    crop,
    double,
    normalise,
    pooled,
    transposed,
)


class Reference:
    """Layers that take their parameters from a list, one after the other."""

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        normalisation: str = "batch",
        activation: str = "leaky-relu",
        padding: str = "reflect",
        bias: bool = True,
    ) -> None:
        self.values = iter([value.numpy() for value in parameters])
        self.normalisation, self.activation = normalisation, activation
        self.padding, self.bias = padding, bias

    def finished(self) -> bool:
        """Tell whether every parameter was used."""
        return next(self.values, None) is None

    def conv(self, x: Array, stride: int = 1, **changed: object) -> Array:
        weight = next(self.values)
        bias = next(self.values) if changed.pop("bias", self.bias) else None
        return convolve(
            x, weight, bias, stride=stride, padding=str(changed.get("padding", self.padding))
        )

    def norm(self, x: Array) -> Array:
        kind = self.normalisation
        scale = next(self.values) if kind == "batch" else None
        return normalise(
            x, kind, scale, next(self.values) if kind in ("batch", "mean-only") else None
        )

    def act(self, x: Array) -> Array:
        return activate(x, self.activation)

    def block(self, x: Array) -> Array:
        return self.act(self.norm(self.conv(x)))

    def down(self, x: Array, downsampling: str) -> Array:
        if downsampling == "stride":
            x = self.conv(x, stride=2)
        else:
            x = pooled(self.conv(x), downsampling)
        return self.act(self.norm(x))

    def up(self, x: Array, mode: str, level: int) -> Array:
        """Double; level 0 makes the finest grid."""
        if mode == "transposed":
            return transposed(x, next(self.values), next(self.values) if self.bias else None)
        return double(x, mode, sigma=1.0 if level < 2 else 0.2)


def skip_net(
    reference: Reference,
    code: Array,
    *,
    skip_channels: Sequence[int],
    upsampling: Sequence[str],
    downsampling: str,
    pointwise: bool,
) -> Array:
    """Evaluate Ulyanov's SkipNet; one member per scale, the finest first."""

    def scale(x: Array, level: int) -> Array:
        if level == len(skip_channels):
            return x
        across = [reference.block(x)] if skip_channels[level] else []
        deep = reference.block(reference.down(x, downsampling))
        deep = reference.up(scale(deep, level + 1), upsampling[level], level)
        size = tuple(min(a, b) for a, b in zip(x.shape[1:], deep.shape[1:], strict=True))
        joined = np.concatenate([crop(branch, size) for branch in [*across, deep]])
        merged = reference.block(reference.norm(joined))
        return reference.block(merged) if pointwise else merged

    return reference.conv(scale(code, 0))


def u_net(
    reference: Reference, code: Array, *, halvings: int, upsampling: str, downsampling: str
) -> Array:
    """Evaluate the U-net; its parameters are grouped by the way down, doublings, mergers, head."""
    values = list(reference.values)
    affine = {"batch": 2, "mean-only": 1}.get(reference.normalisation, 0)
    cuts = np.cumsum([(2 + affine) * 2 * (halvings + 1), 2 * halvings, 4 * halvings])
    down, doublings, mergers, head = (values[a:b] for a, b in pairwise([0, *cuts, None]))
    passed = []
    x = code
    reference.values = iter(down)
    for level in range(halvings + 1):
        x = reference.block(reference.block(pooled(x, downsampling) if level else x))
        passed.append(x)
    for level in reversed(range(halvings)):
        reference.values = iter(doublings[2 * level : 2 * level + 2])
        x = passed[-1] if level == halvings - 1 else x
        x = reference.up(x, upsampling, level)
        if upsampling != "transposed":
            x = reference.conv(x)
        across = passed[level]
        x = np.concatenate([crop(x, across.shape[1:]), across])
        reference.values = iter(mergers[4 * level : 4 * level + 4])
        x = reference.act(reference.conv(reference.act(reference.conv(x))))
    reference.values = iter(head)
    return reference.conv(x)


def res_net(reference: Reference, code: Array, *, blocks: int, inner: str) -> Array:
    """Evaluate the ResNet, whose blocks have their own padding and no biases."""
    x = reference.act(reference.conv(code))
    for _ in range(blocks):
        inside = reference.act(reference.norm(reference.conv(x, bias=False, padding=inner)))
        x = x + reference.norm(reference.conv(inside, bias=False, padding=inner))
    return reference.conv(reference.norm(reference.conv(x, padding=inner)))


def decoder(
    reference: Reference,
    code: Array,
    size: tuple[int, ...],
    *,
    upsamplings: int,
    upsampling: str,
    convolve_first: bool,
    activate_first: bool,
) -> Array:
    """Evaluate the (deep) decoder of Heckel & Hand."""
    x = code
    for block in range(upsamplings + 1):
        if convolve_first:
            x = reference.conv(x)
            if block < upsamplings:
                x = reference.up(x, upsampling, upsamplings - 1 - block)
        else:
            if block > 0:
                x = reference.up(x, upsampling, upsamplings - block)
            x = reference.conv(x)
        steps = [reference.act, reference.norm]
        for step in steps if activate_first else reversed(steps):
            x = step(x)
    return reference.conv(crop(x, size))


def lipschitz_decoder(
    reference: Reference,
    code: Array,
    size: tuple[int, ...],
    *,
    upsamplings: int,
    upsampling: str,
    bound: float,
) -> Array:
    """Evaluate the spectral-bias-controlled decoder, by a singular value decomposition."""

    def conv(x: Array) -> Array:
        weight, bias = next(reference.values), next(reference.values)
        largest = np.linalg.svd(weight.reshape(len(weight), -1), compute_uv=False)[0]
        return convolve(x, weight / max(1.0, largest / bound), bias, padding=reference.padding)

    x = code
    for block in range(upsamplings + 1):
        if block:
            x = reference.up(x, upsampling, upsamplings - block)
        for _ in range(2):
            x = reference.act(reference.norm(conv(x)))
    return reference.conv(crop(x, size))
