"""SkipNet: the U-net with skip connections of Ulyanov et al. 2017."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import ConvBlock, centre_crop, conv, require_sizes


class SkipNet(nn.Module):
    """U-net with narrow skip connections, the original deep image prior.

    Per scale: a skip branch (1x1) and a deep branch (3x3 stride 2, 3x3, the next scale, x2
    upsampling), concatenated, normalised, then 3x3 and 1x1. BatchNorm and LeakyReLU(0.2) after
    every convolution, biases, reflection padding; a 1x1 convolution makes the image.

    Parameters
    ----------
    channels : int
        Of the image.
    code_channels : int
        Of the code.
    width : int
        Channels of every scale, down and up.
    scales : int
        Number of halvings.
    skip_channels : int
        Of the skip branches; 0 leaves them out.
    upsampling : {"bilinear", "nearest"}
        Of the deep branch.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small, or the upsampling is neither.

    Notes
    -----
    Takes a code ``(1, code_channels, height, width)`` of any size whose coarsest grid has at
    least 2 pixels a side, and returns an image of the same size, without an output
    non-linearity. Where a size is odd, the deep branch comes back one pixel larger and is
    cropped, as in the reference code. Source: Ulyanov et al. 2017; the settings of its denoising
    experiment (F16) are the defaults: 2,217,831 parameters.
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 32,
        *,
        width: int = 128,
        scales: int = 5,
        skip_channels: int = 4,
        upsampling: str = "bilinear",
    ) -> None:
        super().__init__()
        require_sizes(1, channels=channels, code_channels=code_channels, width=width)
        require_sizes(0, scales=scales, skip_channels=skip_channels)
        if upsampling not in ("bilinear", "nearest"):
            raise InvalidInputError(
                f"upsampling must be 'bilinear' or 'nearest', got {upsampling!r}"
            )
        self.body: nn.Module = nn.Identity()
        for scale in reversed(range(scales)):
            self.body = _Scale(
                code_channels if scale == 0 else width,
                width,
                inner=self.body,
                skip_channels=skip_channels,
                upsampling=upsampling,
            )
        self.head = conv(width if scales else code_channels, channels, 1)

    def forward(
        self, code: Float[Tensor, "1 code_channels height width"]
    ) -> Float[Tensor, "1 channels height width"]:
        """Make the image.

        Parameters
        ----------
        code : Tensor, shape (1, code_channels, height, width)
            The code.

        Returns
        -------
        Tensor, shape (1, channels, height, width)
            Before any output non-linearity.
        """
        image: Tensor = self.head(self.body(code))
        return image


class _Scale(nn.Module):
    """One scale of the U-net, around the next coarser one."""

    def __init__(
        self, in_channels: int, width: int, *, inner: nn.Module, skip_channels: int, upsampling: str
    ) -> None:
        super().__init__()
        self.skip = ConvBlock(in_channels, skip_channels, 1) if skip_channels else None
        self.down = nn.Sequential(
            ConvBlock(in_channels, width, 3, stride=2), ConvBlock(width, width, 3)
        )
        self.inner = inner
        self.upsample = nn.Upsample(scale_factor=2, mode=upsampling)
        self.merge = nn.Sequential(
            nn.BatchNorm2d(width + skip_channels),
            ConvBlock(width + skip_channels, width, 3),
            ConvBlock(width, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        deep = centre_crop(self.upsample(self.inner(self.down(x))), (x.shape[-2], x.shape[-1]))
        both = deep if self.skip is None else torch.cat([self.skip(x), deep], dim=1)
        merged: Tensor = self.merge(both)
        return merged
