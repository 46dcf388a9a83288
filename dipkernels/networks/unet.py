"""The classical U-net, as Ulyanov et al. 2017 tried it for inpainting."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import Style, centre_crop, require_choice, require_sizes
from dipkernels.networks.registry import CONVOLUTIONAL, Options, Variant, family, register
from dipkernels.networks.resampling import UPSAMPLINGS, pool, transposed_conv, upsampler
from dipkernels.networks.scaling import scaled_halvings
from dipkernels.priors.codes import Spatial

__all__ = ["UNet"]

BASE_WIDTHS = (64, 128, 256, 512, 1024)
POOLINGS = ("max", "average")
PUBLISHED = Style(normalisation="instance", activation="relu", padding="zero")


@checked
class UNet(nn.Module):
    """U-net with wide skip connections: pooling, pairs of convolutions, concatenation.

    On the way down: pooling (not at the finest scale), then twice a 3x3 convolution,
    normalisation and activation. On the way up: a transposed convolution, or an interpolation and
    a 3x3 convolution, then the concatenation with what the way down had there, then twice a 3x3
    convolution and activation, without normalisation. A 1x1 convolution makes the image.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code.
    feature_scale : int
        Divides the widths 64, 128, 256, 512, 1024 of the five grids.
    halvings : int
        Number of grids below the finest. Any beyond the fourth have the width of the fifth grid.
    upsampling : str
        One of `dipkernels.networks.resampling.UPSAMPLINGS`.
    downsampling : {"max", "average"}
        The pooling.
    style : Style
        Dimensions, normalisation, activation, padding; by default instance, ReLU, zeros.

    Raises
    ------
    InvalidInputError
        If a size is too small or a name unknown.

    Notes
    -----
    The code has the image's size. Pooling rounds up and the way up is cropped; the reference code
    rounds down and crops the way down, so that its image may be smaller than its code.
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 1,
        *,
        feature_scale: int = 8,
        halvings: int = 5,
        upsampling: str = "transposed",
        downsampling: str = "max",
        style: Style | None = None,
    ) -> None:
        super().__init__()
        style = style or PUBLISHED
        require_sizes(1, channels=channels, code_channels=code_channels)
        require_sizes(1, feature_scale=feature_scale)
        require_sizes(0, halvings=halvings)
        require_choice("upsampling", upsampling, UPSAMPLINGS)
        require_choice("downsampling", downsampling, POOLINGS)
        if feature_scale > BASE_WIDTHS[0]:
            raise InvalidInputError(
                f"feature_scale divides widths of which the least is {BASE_WIDTHS[0]}, "
                f"got {feature_scale}"
            )
        widths = [BASE_WIDTHS[min(i, 4)] // feature_scale for i in range(halvings + 1)]
        bare = Style(style.dims, "none", style.activation, style.padding, style.bias)
        self.pool = pool(downsampling, style)
        self.down = nn.ModuleList(
            _pair(code_channels if i == 0 else widths[i - 1], width, style)
            for i, width in enumerate(widths)
        )
        self.up = nn.ModuleList(
            _doubling(upsampling, widths[i + 1], widths[i], bare, level=i) for i in range(halvings)
        )
        self.merge = nn.ModuleList(_pair(2 * width, width, bare) for width in widths[:-1])
        self.head = style.conv(widths[0], channels, 1)

    def forward(
        self, code: Float[Tensor, "1 code_channels *spatial"]
    ) -> Float[Tensor, "1 channels *spatial"]:
        """Make the image.

        Parameters
        ----------
        code : Tensor, shape ``(1, code_channels, *spatial)``
            The code.

        Returns
        -------
        Tensor, shape ``(1, channels, *spatial)``
            Before any output non-linearity: any real values.
        """
        x = self.down[0](code)
        passed = []
        for block in self.down[1:]:
            passed.append(x)
            x = block(self.pool(x))
        for up, merge in zip(reversed(self.up), reversed(self.merge), strict=True):
            across = passed.pop()
            x = merge(torch.cat([centre_crop(up(x), tuple(across.shape[2:])), across], dim=1))
        image: Tensor = self.head(x)
        return image


def _pair(in_channels: int, width: int, style: Style) -> nn.Sequential:
    return nn.Sequential(style.block(in_channels, width, 3), style.block(width, width, 3))


def _doubling(
    upsampling: str, in_channels: int, width: int, style: Style, *, level: int
) -> nn.Module:
    if upsampling == "transposed":
        return transposed_conv(in_channels, width, style)
    return nn.Sequential(
        upsampler(upsampling, in_channels, style, level=level), style.conv(in_channels, width, 3)
    )


@register(
    "unet",
    learning_rate=0.001,
    iterations=3001,
    source="Ulyanov et al. 2017, library",
    variants={
        "library": Variant(),
        "get-net": Variant(
            {
                "feature_scale": 4,
                "extra_scales": 0,
                "upsampling": "bilinear",
                "normalisation": "batch",
                "padding": "reflect",
                "code_channels": 32,
            }
        ),
    },
    **CONVOLUTIONAL,
)
@family(UNet, PUBLISHED, without=("halvings", "bias"))
def _unet(size: Spatial, options: Options, *, extra_scales: int = 1) -> Spatial:
    """U-net with wide skip connections and pooling."""
    require_sizes(0, extra_scales=extra_scales)
    options["halvings"] = scaled_halvings(4 + extra_scales, size)
    return size
