"""Halving and doubling an image's sides, each in the ways that the literature has."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.networks.layers import Style, require_choice

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
    if mode == "bilinear" and style.dims == 1:
        mode = "linear"
    return nn.Upsample(scale_factor=2, mode=mode)


def transposed_conv(
    in_channels: int, out_channels: int, style: Style
) -> nn.ConvTranspose1d | nn.ConvTranspose2d:
    """Make a learned transposed convolution (size 4, stride 2, padding 1): sides double."""
    make = nn.ConvTranspose1d if style.dims == 1 else nn.ConvTranspose2d
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
    if downsampling == "average":
        make = nn.AvgPool1d if style.dims == 1 else nn.AvgPool2d
        return make(2, ceil_mode=True)
    return (nn.MaxPool1d if style.dims == 1 else nn.MaxPool2d)(2, ceil_mode=True)


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
        kernel = self.taps if self.dims == 1 else torch.outer(self.taps, self.taps)
        weight = kernel.expand(channels, 1, *kernel.shape)
        apply = torch.conv_transpose1d if self.dims == 1 else torch.conv_transpose2d
        return apply(x, weight, None, stride=2, padding=2, output_padding=1, groups=channels)
