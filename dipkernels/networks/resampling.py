"""Halving and doubling an image's sides, each in the ways that the literature has."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.networks.layers import Style, require_choice, separable

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}  # what "bilinear" means in each dimension
UPSAMPLINGS = ("bilinear", "nearest", "gaussian", "transposed")
DOWNSAMPLINGS = ("stride", "average", "max")

GAUSSIAN_TAPS = 5
FINE_SIGMA, COARSE_SIGMA = 1.0, 0.2  # pixels of the finer grid
FINE_LEVELS = 2


def upsampler(mode: str, channels: int, style: Style, *, level: int) -> nn.Module:
    """Make a module that doubles every side."""
    require_choice("upsampling", mode, UPSAMPLINGS)
    if mode == "gaussian":
        sigma = FINE_SIGMA if level < FINE_LEVELS else COARSE_SIGMA
        return GaussianUpsample(style.dims, sigma)
    if mode == "transposed":
        return transposed_conv(channels, channels, style)
    mode = LINEAR[style.dims] if mode == "bilinear" else mode
    return nn.Upsample(scale_factor=2, mode=mode)


def transposed_conv(in_channels: int, out_channels: int, style: Style) -> nn.Module:
    """Make a learned transposed convolution (size 4, stride 2, padding 1): sides double."""
    make = style.layer("ConvTranspose")
    return make(in_channels, out_channels, 4, stride=2, padding=1, bias=style.bias)


def down_block(
    in_channels: int, out_channels: int, kernel_size: int, downsampling: str, style: Style
) -> nn.Sequential:
    """Make convolution, halving, normalisation, activation."""
    require_choice("downsampling", downsampling, DOWNSAMPLINGS)
    if downsampling == "stride":
        halving: list[nn.Module] = [style.conv(in_channels, out_channels, kernel_size, stride=2)]
    else:
        halving = [style.conv(in_channels, out_channels, kernel_size), pool(downsampling, style)]
    return nn.Sequential(*halving, *style.norm(out_channels), *style.activate())


def pool(downsampling: str, style: Style) -> nn.Module:
    """Make a pooling over 2 pixels of each axis."""
    return style.layer("AvgPool" if downsampling == "average" else "MaxPool")(2, ceil_mode=True)


class GaussianUpsample(nn.Module):
    """Double every side by a fixed transposed convolution of each channel with a Gaussian.

    Source: Shi et al. 2022, "On Measuring and Controlling the Spectral Bias of the Deep Image
    Prior". Their code halves the offsets, so its nominal deviations of 0.5 and 0.1 are 1 and 0.2
    pixels here.
    """

    taps: Tensor

    def __init__(self, dims: int, sigma: float) -> None:
        super().__init__()
        reach = GAUSSIAN_TAPS // 2
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        line = torch.exp(-offsets.square() / (2 * sigma**2))
        taps = (line / line.sum()).to(torch.get_default_dtype())
        self.register_buffer("taps", taps, persistent=False)
        self.dims = dims

    def forward(
        self, x: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "batch channels *doubled"]:
        """Upsample."""
        channels = x.shape[1]
        kernel = separable(self.taps, self.dims)
        weight = kernel.expand(channels, 1, *kernel.shape)
        apply = getattr(torch, f"conv_transpose{self.dims}d")
        doubled: Tensor = apply(
            x, weight, None, stride=2, padding=2, output_padding=1, groups=channels
        )
        return doubled
