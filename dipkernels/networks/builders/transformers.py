"""Builders of the priors made of patches, tokens and attention: images only, no signals."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from dipkernels.errors import InvalidInputError
from dipkernels.networks.hybrids import ConvolutionStack
from dipkernels.networks.mixer import MLPMixer
from dipkernels.networks.registry import Recipe, register
from dipkernels.networks.scaling import require_side, scaled_halvings, scaled_length
from dipkernels.networks.self_attention import SelfAttentionNet
from dipkernels.networks.swin import SwinTransformer
from dipkernels.networks.vit import VisionTransformer

REPORT = "the transformer report"
REFLECTED = 2  # pixels that reflection padding needs along an axis


# Height and width, where these are what the size is.
def _plane(name: str, size: tuple[int, ...]) -> tuple[int, int]:
    if len(size) != 2:
        raise InvalidInputError(
            f"'{name}' makes images of (height, width), but image_size is {size}: for signals of "
            "one axis take a convolutional prior, such as 'skip', 'deep-decoder' or 'conv-decoder'"
        )
    return size[0], size[1]


# The same, and the side of a patch: where none is given, the published one, scaled to the image.
def _plane_and_patch(
    name: str, size: tuple[int, ...], published: int, given: int | None, least: int = 1
) -> tuple[tuple[int, int], int]:
    plane = _plane(name, size)
    patch = scaled_length(published, plane) if given is None else given
    require_side(name, plane, max(least, patch))
    return plane, patch


@register("vit", learning_rate=1e-4, iterations=5000, source=REPORT)
def _vit(
    size: tuple[int, ...],
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depth: int = 5,
    heads: int = 8,
    mlp_width: int = 192,
    code_channels: int = 3,
) -> Recipe:
    """Vision transformer with a linear patch head."""
    plane, patch = _plane_and_patch("vit", size, 32, patch_size)
    sizes = (patch, width, depth, heads, mlp_width)
    return Recipe(
        lambda: VisionTransformer(plane, channels, code_channels, *sizes), (code_channels, *plane)
    )


@register("swin", learning_rate=1e-4, iterations=5000, source=REPORT)
def _swin(
    size: tuple[int, ...],
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (4, 4, 4, 4),
    window: int = 7,
    mlp_ratio: float = 1.0,
    code_channels: int = 3,
) -> Recipe:
    """Swin transformer (shifted windows, merged patches) with a linear head and pixel shuffle."""
    plane, patch = _plane_and_patch("swin", size, 4, patch_size)

    def factory() -> nn.Module:
        return SwinTransformer(
            plane,
            channels,
            code_channels,
            patch_size=patch,
            width=width,
            depths=depths,
            heads=heads,
            window=window,
            mlp_ratio=mlp_ratio,
        )

    return Recipe(factory, (code_channels, *plane))


@register(
    "mixer",
    learning_rate=1e-4,
    iterations=5000,
    source="ours, after Tolstikhin et al. 2021 and the transformer report",
)
def _mixer(
    size: tuple[int, ...],
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depth: int = 5,
    token_mlp_width: int = 192,
    channel_mlp_width: int = 192,
    code_channels: int = 3,
) -> Recipe:
    """MLP-Mixer (perceptrons over tokens and over channels) with a linear patch head."""
    plane, patch = _plane_and_patch("mixer", size, 32, patch_size)
    sizes = (patch, width, depth, token_mlp_width, channel_mlp_width)
    return Recipe(lambda: MLPMixer(plane, channels, code_channels, *sizes), (code_channels, *plane))


@register(
    "self-attention",
    learning_rate=0.01,
    iterations=3000,
    source="ours, after Ramachandran et al. 2019 and Ulyanov et al. 2017",
)
def _self_attention(
    size: tuple[int, ...],
    channels: int,
    *,
    width: int = 128,
    scales: int = 5,
    skip_channels: int = 4,
    kernel_size: int = 3,
    heads: int = 8,
    code_channels: int = 32,
) -> Recipe:
    """Deep image prior's U-net with local self-attention in place of 3x3 convolutions."""
    plane = _plane("self-attention", size)
    require_side("self-attention", plane, 3)  # with less there is nothing to halve
    halvings = scaled_halvings(scales, plane)

    def factory() -> nn.Module:
        return SelfAttentionNet(
            channels,
            code_channels,
            width=width,
            scales=halvings,
            skip_channels=skip_channels,
            kernel_size=kernel_size,
            heads=heads,
        )

    return Recipe(factory, (code_channels, *plane))


# A vision transformer with convolutions of its code (`before`) or of its image. The submodules are
# named `vit` and `convolutions`, so that each can be treated on its own.
def _with_convolutions(vit: Recipe, stack: Callable[[], nn.Module], *, before: bool) -> Recipe:
    def factory() -> nn.Module:
        parts = [("convolutions", stack()), ("vit", vit.factory())]
        return nn.Sequential(OrderedDict(parts if before else parts[::-1]))

    return Recipe(factory, vit.code_shape)


def _register_one_convolution(name: str, summary: str, *, before: bool) -> None:
    def builder(
        size: tuple[int, ...],
        channels: int,
        *,
        patch_size: int | None = None,
        width: int = 192,
        depth: int = 5,
        heads: int = 8,
        mlp_width: int = 192,
        code_channels: int = 3,
    ) -> Recipe:
        plane, patch = _plane_and_patch(name, size, 32, patch_size, least=REFLECTED)
        sizes = {"width": width, "depth": depth, "heads": heads, "mlp_width": mlp_width}
        vit = _vit(plane, channels, patch_size=patch, code_channels=code_channels, **sizes)
        acts_on = code_channels if before else channels
        return _with_convolutions(vit, lambda: ConvolutionStack(acts_on, 1), before=before)

    builder.__doc__ = summary
    register(name, learning_rate=1e-4, iterations=5000, source=REPORT)(builder)


def _register_three_convolutions(name: str, summary: str, *, before: bool) -> None:
    def builder(
        size: tuple[int, ...],
        channels: int,
        *,
        tied: bool = True,
        conv_channels: int | None = None,
        patch_size: int | None = None,
        width: int = 192,
        depth: int = 5,
        heads: int = 8,
        mlp_width: int = 192,
        code_channels: int = 3,
    ) -> Recipe:
        plane, patch = _plane_and_patch(name, size, 32, patch_size, least=REFLECTED)
        sizes = {"width": width, "depth": depth, "heads": heads, "mlp_width": mlp_width}
        vit = _vit(plane, channels, patch_size=patch, code_channels=code_channels, **sizes)
        acts_on = code_channels if before else channels

        def stack() -> nn.Module:
            return ConvolutionStack(acts_on, 3, tied=tied, conv_channels=conv_channels)

        return _with_convolutions(vit, stack, before=before)

    builder.__doc__ = summary
    register(name, learning_rate=1e-4, iterations=5000, source=REPORT)(builder)


_register_three_convolutions(
    "conv3-vit", "Vision transformer after three 3x3 convolutions of its code.", before=True
)
_register_three_convolutions(
    "vit-conv3", "Vision transformer followed by three 3x3 convolutions of its image.", before=False
)
_register_one_convolution(
    "conv1-vit", "Vision transformer after one 3x3 convolution of its code.", before=True
)
_register_one_convolution(
    "vit-conv1", "Vision transformer followed by one 3x3 convolution of its image.", before=False
)
