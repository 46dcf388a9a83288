"""Builders of the decoders: priors with a coarse code."""

from torch import nn

from dipkernels.networks.builders.convolutional import BOTH, require_padded
from dipkernels.networks.decoders import (
    ORDERS,
    Decoder,
    LipschitzDecoder,
    TransposedDecoder,
    coarse_size,
)
from dipkernels.networks.layers import Style
from dipkernels.networks.registry import Recipe, Spatial, Variant, register
from dipkernels.networks.scaling import scaled_halvings


@register(
    "conv-decoder",
    learning_rate=0.01,
    iterations=1900,
    source="ours, after Heckel & Hand",
    summary="Convolutional decoder: the deep decoder with 3x3 convolutions.",
    preset={"kernel_size": 3},
    dimensions=BOTH,
    least_side=3,
)
@register(
    "deep-decoder-over",
    learning_rate=0.01,
    iterations=1500,
    source="Heckel & Soltanolkotabi 2020, ImageNet",
    summary="Over-parameterised deep decoder: 512 channels, BatchNorm before the activation.",
    preset={"width": 512, "order": ORDERS[1]},
    dimensions=BOTH,
    least_side=3,
)
@register(
    "deep-decoder",
    learning_rate=0.01,
    iterations=1900,
    source="Heckel & Hand 2019",
    variants={
        "denoise": Variant(),
        "phantom": Variant({"upsamplings": 4}, iterations=100_000),
        "compress": Variant({"width": 64}, learning_rate=0.005, iterations=20000),
        "inpaint": Variant({"width": 256}, learning_rate=0.0025, iterations=40000),
    },
    dimensions=BOTH,
    least_side=3,
)
def _decoder(
    size: Spatial,
    channels: int,
    *,
    width: int = 128,
    upsamplings: int = 5,
    kernel_size: int = 1,
    upsampling: str = "bilinear",
    order: str = ORDERS[0],
    normalisation: str = "batch",
    activation: str = "relu",
    padding: str = "reflect",
    bias: bool = False,
    code_channels: int | None = None,
) -> Recipe:
    """Deep decoder: 1x1 convolutions and bilinear upsampling, no other spatial coupling."""
    style = Style(len(size), normalisation, activation, padding, bias)
    require_padded(padding, kernel_size)
    done = scaled_halvings(upsamplings, size, max(2, kernel_size // 2 + 1))
    code_channels = width if code_channels is None else code_channels

    def factory() -> nn.Module:
        return Decoder(
            size,
            channels,
            code_channels=code_channels,
            width=width,
            upsamplings=done,
            kernel_size=kernel_size,
            upsampling=upsampling,
            order=order,
            style=style,
        )

    return Recipe(factory, (code_channels, *coarse_size(size, done)))


@register(
    "transposed-decoder",
    learning_rate=0.01,
    iterations=100_000,
    source="Heckel & Soltanolkotabi 2020, phantom (by SGD); Adam's rate ours",
    variants={"narrow": Variant({"width": 42}), "wide": Variant({"width": 170})},
    dimensions=BOTH,
    least_side=3,
)
def _transposed_decoder(
    size: Spatial,
    channels: int,
    *,
    width: int = 85,
    upsamplings: int = 3,
    normalisation: str = "batch",
    activation: str = "relu",
    bias: bool = False,
    code_channels: int | None = None,
) -> Recipe:
    """Transposed convolutions, from a code of an eighth of the size."""
    style = Style(len(size), normalisation, activation, bias=bias)
    done = scaled_halvings(upsamplings, size)
    code_channels = width if code_channels is None else code_channels

    def factory() -> nn.Module:
        return TransposedDecoder(
            size,
            channels,
            code_channels=code_channels,
            width=width,
            upsamplings=done,
            style=style,
        )

    return Recipe(factory, (code_channels, *coarse_size(size, done)))


@register(
    "lipschitz-decoder",
    learning_rate=0.001,
    iterations=10000,
    source="Shi et al. 2022",
    variants={
        "denoise": Variant(),
        "gaussian": Variant({"lipschitz": 1.8, "upsampling": "gaussian"}),
        "inpaint": Variant({"lipschitz": 1.6}),
        "enhance": Variant({"lipschitz": 1.0}, iterations=100),
    },
    code="phases",
    dimensions=BOTH,
    least_side=3,
)
def _lipschitz_decoder(
    size: Spatial,
    channels: int,
    *,
    width: int = 128,
    upsamplings: int = 5,
    lipschitz: float | None = 1.4,
    upsampling: str = "bilinear",
    normalisation: str = "mean-only",
    activation: str = "leaky-relu-0.01",
    padding: str = "reflect",
    bias: bool = True,
    code_channels: int = 32,
) -> Recipe:
    """Lipschitz-bounded decoder: every weight's spectral norm, to control the spectral bias."""
    style = Style(len(size), normalisation, activation, padding, bias)
    done = scaled_halvings(upsamplings, size)

    def factory() -> nn.Module:
        return LipschitzDecoder(
            size,
            channels,
            code_channels=code_channels,
            width=width,
            upsamplings=done,
            upsampling=upsampling,
            lipschitz=lipschitz,
            style=style,
        )

    return Recipe(factory, (code_channels, *coarse_size(size, done)))
