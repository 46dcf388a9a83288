"""Builders of the priors made of patches and tokens."""

from torch import nn

from dipkernels.networks.layers import TiedConvs
from dipkernels.networks.registry import Recipe, Size, register
from dipkernels.networks.scaling import require_side, scaled_length
from dipkernels.networks.swin import SwinTransformer
from dipkernels.networks.vit import VisionTransformer


@register("vit", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _vit(
    size: Size,
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depth: int = 5,
    heads: int = 8,
    mlp_width: int = 192,
) -> Recipe:
    """Vision transformer with a linear patch head."""
    patch = scaled_length(32, size) if patch_size is None else patch_size
    require_side("vit", size, patch)

    def factory() -> nn.Module:
        return VisionTransformer(
            size,
            channels,
            patch_size=patch,
            width=width,
            depth=depth,
            heads=heads,
            mlp_width=mlp_width,
        )

    return Recipe(factory, (3, *size))


@register("swin", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _swin(
    size: Size,
    channels: int,
    *,
    patch_size: int | None = None,
    width: int = 192,
    depths: tuple[int, ...] = (2, 2, 6, 2),
    heads: tuple[int, ...] = (4, 4, 4, 4),
    window: int = 7,
) -> Recipe:
    """Swin transformer (shifted windows, merged patches) with a 1x1 head and pixel shuffle."""
    patch = scaled_length(4, size) if patch_size is None else patch_size
    require_side("swin", size, patch)

    def factory() -> nn.Module:
        return SwinTransformer(
            size,
            channels,
            patch_size=patch,
            width=width,
            depths=depths,
            heads=heads,
            window=window,
        )

    return Recipe(factory, (3, *size))


@register("conv3-vit", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _conv3_vit(size: Size, channels: int) -> Recipe:
    """Vision transformer after three tied 3x3 convolutions of its code."""
    require_side("conv3-vit", size, scaled_length(32, size))
    vit = _vit(size, channels)
    return Recipe(lambda: nn.Sequential(TiedConvs(3, 3), vit.factory()), vit.code_shape)


@register("vit-conv3", learning_rate=1e-4, iterations=5000, source="the transformer report")
def _vit_conv3(size: Size, channels: int) -> Recipe:
    """Vision transformer followed by three tied 3x3 convolutions of its image."""
    require_side("vit-conv3", size, scaled_length(32, size))
    vit = _vit(size, channels)
    return Recipe(lambda: nn.Sequential(vit.factory(), TiedConvs(channels, 3)), vit.code_shape)
