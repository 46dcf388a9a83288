"""The residual network at full resolution that Ulyanov et al. 2017 tried for inpainting."""

from dataclasses import replace

from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.networks.layers import Generator, Style, require_sizes
from dipkernels.networks.registry import CONVOLUTIONAL, Options, family, register
from dipkernels.priors.codes import Spatial

__all__ = ["ResNet"]


@checked
class ResNet(Generator):
    """Residual blocks at full resolution, between two 3x3 convolutions.

    A convolution and activation; blocks of convolution, normalisation, activation, convolution,
    normalisation, added to their input without an activation after; a convolution with
    normalisation; a last convolution that makes the image. All are 3x3.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code.
    width : int
        Channels everywhere between.
    blocks : int
        How many.
    style : Style
        Dimensions, normalisation, activation, padding of the first and of the last convolution.
    inner_padding : str
        Of all others.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small.

    Notes
    -----
    The code has the image's size. Convolutions of the blocks have no biases, the others have. With
    8 blocks each pixel sees 39x39, and, by batch normalisation, the statistics of the whole image.
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 1,
        *,
        width: int = 32,
        blocks: Layers = 8,
        style: Style | None = None,
        inner_padding: str = "zero",
    ) -> None:
        style = style or Style()
        require_sizes(1, channels=channels, width=width, code_channels=code_channels)
        require_sizes(0, blocks=blocks)
        inner = replace(style, padding=inner_padding)
        first = nn.Sequential(style.conv(code_channels, width, 3), *style.activate())
        unbiased = replace(inner, bias=False)
        middle = nn.Sequential(*(_Residual(width, unbiased) for _ in range(blocks)))
        last = nn.Sequential(
            inner.conv(width, width, 3), *inner.norm(width), style.conv(width, channels, 3)
        )
        super().__init__(first=first, blocks=middle, last=last)


class _Residual(nn.Module):
    """Two convolutions around an activation, added to their input."""

    def __init__(self, width: int, style: Style) -> None:
        super().__init__()
        self.inside = nn.Sequential(
            style.block(width, width, 3), style.conv(width, width, 3), *style.norm(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        inside: Tensor = self.inside(x)
        return x + inside


@register(
    "resnet",
    learning_rate=0.001,
    iterations=3001,
    source="Ulyanov et al. 2017, library",
    **CONVOLUTIONAL,
)
@family(ResNet, Style(), without=("bias", "inner_padding"))
def _resnet(size: Spatial, options: Options, *, padding: str | None = None) -> Spatial:
    """Residual blocks at full resolution; padding=None reflects outside, has zeros in blocks."""
    options["style"] = replace(options["style"], padding=padding or "reflect")
    options["inner_padding"] = padding or "zero"
    return size
