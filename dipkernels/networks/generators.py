"""Networks at full resolution, without any upsampling: learned or fixed convolutions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.networks.layers import (
    PADDINGS,
    Generator,
    Style,
    require_padded,
    require_sizes,
    separable,
)
from dipkernels.networks.registry import CONVOLUTIONAL, Options, Variant, family, register
from dipkernels.priors.codes import Spatial

__all__ = ["ConvNet", "FixedConvNet"]

BINOMIAL = (1.0, 3.0, 3.0, 1.0)
PHANTOM = "Heckel & Soltanolkotabi 2020, phantom (by SGD); Adam's rate ours"
PUBLISHED = Style(activation="relu", bias=False)


@checked
class ConvNet(Generator):
    """Convolutions with activation and normalisation at full resolution, and a last one.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code; of that by default the width.
    width : int
        Channels between.
    layers : int
        Number of convolutions before the last.
    kernel_size, last_kernel_size : int
        Of these, and of the last.
    style : Style, optional
        Dimensions, normalisation, activation, padding, biases; by default batch, ReLU,
        reflection, none.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small.

    Notes
    -----
    The code has the image's size. Sources: Heckel & Soltanolkotabi 2020, their "learned
    convolutions", with five layers of 3x3; without normalisation, Cheng et al. 2019 in 1D.
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int | None = None,
        *,
        width: int = 85,
        layers: Layers = 5,
        kernel_size: int = 3,
        last_kernel_size: int = 1,
        style: Style | None = None,
    ) -> None:
        style = style or PUBLISHED
        code_channels = width if code_channels is None else code_channels
        require_sizes(1, channels=channels, width=width, code_channels=code_channels, layers=layers)
        blocks: list[nn.Module] = []
        for layer in range(layers):
            blocks.append(style.conv(width if layer else code_channels, width, kernel_size))
            blocks += [*style.activate(), *style.norm(width)]
        super().__init__(*blocks, style.conv(width, channels, last_kernel_size))


@checked
class FixedConvNet(Generator):
    """Fixed binomial filters at full resolution, with learned 1x1 convolutions between.

    Each layer: `BinomialFilter`, 1x1 convolution, activation, normalisation. A last 1x1
    convolution makes the image.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code; of that by default the width.
    width : int
        Channels between.
    layers : int
        How many.
    style : Style, optional
        Dimensions, normalisation, activation, padding (of the filters), biases; by default batch,
        ReLU, reflection, none.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small.

    Notes
    -----
    The code has the image's size. Parameters as published: ``n (w^2 + 2w) + w c`` for n layers.
    Source: Heckel & Soltanolkotabi 2020, their "fixed convolutions".
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int | None = None,
        *,
        width: int = 128,
        layers: Layers = 4,
        style: Style | None = None,
    ) -> None:
        style = style or PUBLISHED
        code_channels = width if code_channels is None else code_channels
        require_sizes(1, channels=channels, width=width, code_channels=code_channels, layers=layers)
        blocks: list[nn.Module] = []
        for layer in range(layers):
            blocks.append(BinomialFilter(style.dims, style.padding))
            blocks.append(style.conv(width if layer else code_channels, width, 1))
            blocks += [*style.activate(), *style.norm(width)]
        super().__init__(*blocks, style.conv(width, channels, 1))


class BinomialFilter(nn.Module):
    """Filter each channel with (1, 3, 3, 1)/4 along each axis; the size stays.

    Transfer function along an axis: ``(1 + z)^3 / 4``, which doubles a constant and removes the
    highest frequency. The filter has four taps, so it also moves the image by half a pixel: pixel
    i sees i-2 ... i+1. The published code pads one of the two pixels before the image by
    reflection and all others by zeros; here one padding serves for all.
    """

    kernel: Tensor

    def __init__(self, dims: int, padding: str = "reflect") -> None:
        super().__init__()
        kernel = separable(torch.tensor(BINOMIAL) / 4, dims)
        self.register_buffer("kernel", kernel, persistent=False)
        self.mode = "constant" if padding == "zero" else PADDINGS[padding]

    def forward(
        self, x: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "batch channels *spatial"]:
        """Filter."""
        channels, dims = x.shape[1], self.kernel.dim()
        padded = nn.functional.pad(x, (2, 1) * dims, mode=self.mode)
        weight = self.kernel.expand(channels, 1, *self.kernel.shape)
        apply = getattr(torch, f"conv{dims}d")
        filtered: Tensor = apply(padded, weight, groups=channels)
        return filtered


@register(
    "conv",
    learning_rate=0.01,
    iterations=100_000,
    source=PHANTOM,
    variants={"narrow": Variant({"width": 42}), "wide": Variant({"width": 170})},
    **CONVOLUTIONAL,
)
@family(ConvNet, PUBLISHED)
def _conv(size: Spatial, options: Options) -> Spatial:
    """Convolutional network at full resolution: no upsampling; the code is as wide as the rest."""
    kernel_size = max(options["kernel_size"], options["last_kernel_size"])
    require_padded(options["style"].padding, kernel_size)
    return size


@register(
    "fixed-conv",
    learning_rate=0.01,
    iterations=100_000,
    source=PHANTOM,
    variants={"wide": Variant({"width": 256}), "widest": Variant({"width": 512})},
    **CONVOLUTIONAL,
)
@family(FixedConvNet, PUBLISHED)
def _fixed_conv(size: Spatial, options: Options) -> Spatial:
    """Network of fixed binomial filters at full resolution, between learned 1x1 convolutions."""
    return size
