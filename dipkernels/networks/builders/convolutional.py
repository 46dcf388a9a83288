"""Builders of the convolutional priors."""

from torch import nn

from dipkernels.networks.decoders import Decoder, coarse_size
from dipkernels.networks.registry import Recipe, Size, register
from dipkernels.networks.scaling import require_side, scaled_halvings
from dipkernels.networks.skip import SkipNet


@register("skip", learning_rate=0.01, iterations=3000, source="Ulyanov et al. 2017, F16")
def _skip(
    size: Size,
    channels: int,
    *,
    width: int = 128,
    scales: int = 5,
    skip_channels: int = 4,
    upsampling: str = "bilinear",
    code_channels: int = 32,
) -> Recipe:
    """U-net with narrow skip connections: the original deep image prior."""
    require_side("skip", size, 3)
    scales = scaled_halvings(scales, size)

    def factory() -> nn.Module:
        return SkipNet(
            channels,
            code_channels,
            width=width,
            scales=scales,
            skip_channels=skip_channels,
            upsampling=upsampling,
        )

    return Recipe(factory, (code_channels, *size))


def _decoder(
    name: str,
    size: Size,
    channels: int,
    *,
    width: int,
    upsamplings: int,
    kernel_size: int,
    normalise: bool,
) -> Recipe:
    require_side(name, size, 3)
    upsamplings = scaled_halvings(upsamplings, size)

    def factory() -> nn.Module:
        return Decoder(
            size,
            channels,
            width=width,
            upsamplings=upsamplings,
            kernel_size=kernel_size,
            normalise=normalise,
        )

    return Recipe(factory, (width, *coarse_size(size, upsamplings)))


@register("deep-decoder", learning_rate=0.01, iterations=1900, source="Heckel & Hand 2019")
def _deep_decoder(size: Size, channels: int, *, width: int = 128, upsamplings: int = 5) -> Recipe:
    """Deep decoder: 1x1 convolutions and bilinear upsampling, no other spatial coupling."""
    return _decoder(
        "deep-decoder",
        size,
        channels,
        width=width,
        upsamplings=upsamplings,
        kernel_size=1,
        normalise=True,
    )


@register("conv-decoder", learning_rate=0.01, iterations=1900, source="ours, after Heckel & Hand")
def _conv_decoder(
    size: Size, channels: int, *, width: int = 128, upsamplings: int = 5, normalise: bool = True
) -> Recipe:
    """Convolutional decoder: the deep decoder with 3x3 convolutions."""
    return _decoder(
        "conv-decoder",
        size,
        channels,
        width=width,
        upsamplings=upsamplings,
        kernel_size=3,
        normalise=normalise,
    )
