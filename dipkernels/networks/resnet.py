"""The residual network at full resolution that Ulyanov et al. 2017 tried for inpainting."""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.networks.layers import Style, require_sizes
from dipkernels.networks.registry import BOTH, Recipe, Spatial, register

__all__ = ["ResNet"]


class ResNet(nn.Module):
    """Residual blocks at full resolution, between two 3x3 convolutions.

    A convolution and activation; blocks of convolution, normalisation, activation, convolution,
    normalisation, added to their input without an activation after; a convolution with
    normalisation; a last convolution that makes the image. All are 3x3.

    Parameters
    ----------
    channels : int
        Of the image.
    code_channels : int
        Of the code.
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
    Takes a code ``(1, code_channels, *spatial)`` and returns an image of the same size, without
    an output non-linearity. Convolutions of the blocks have no biases, the others have. What the
    convolutions see of the image doesn't grow by halvings: with 8 blocks each pixel sees 39x39.
    Batch normalisation lets each see the statistics of the whole image.
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 1,
        *,
        width: int = 32,
        blocks: int = 8,
        style: Style | None = None,
        inner_padding: str = "zero",
    ) -> None:
        super().__init__()
        style = style or Style()
        require_sizes(1, channels=channels, width=width, code_channels=code_channels)
        require_sizes(0, blocks=blocks)
        inner = replace(style, padding=inner_padding)
        self.first = nn.Sequential(style.conv(code_channels, width, 3), *style.activate())
        self.blocks = nn.Sequential(
            *(_Residual(width, replace(inner, bias=False)) for _ in range(blocks))
        )
        self.last = nn.Sequential(
            inner.conv(width, width, 3), *inner.norm(width), style.conv(width, channels, 3)
        )

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
            Before any output non-linearity.
        """
        image: Tensor = self.last(self.blocks(self.first(code)))
        return image


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
    dimensions=BOTH,
    least_side=3,
)
def _resnet(
    size: Spatial,
    channels: int,
    *,
    blocks: int = 8,
    width: int = 32,
    normalisation: str = "batch",
    activation: str = "leaky-relu",
    padding: str | None = None,
    code_channels: int = 1,
) -> Recipe:
    """Residual blocks at full resolution; padding=None reflects outside, has zeros in blocks."""
    style = Style(len(size), normalisation, activation, padding or "reflect")
    inner = padding or "zero"

    def factory() -> nn.Module:
        return ResNet(
            channels, code_channels, width=width, blocks=blocks, style=style, inner_padding=inner
        )

    return Recipe(factory, (code_channels, *size))
