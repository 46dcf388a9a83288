"""Decoders: a coarse code, upsampled step by step."""

from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.networks.layers import CentreCrop, conv, require_sizes


class Decoder(nn.Sequential):
    """Blocks of convolution, upsampling, ReLU and (optionally) BatchNorm, then a 1x1 convolution.

    Block order: convolution, x2 bilinear upsampling (not in the last block), ReLU, BatchNorm.
    With ``kernel_size=1`` and BatchNorm this is the deep decoder of Heckel & Hand 2019, whose
    only spatial coupling is the interpolation; with ``kernel_size=3`` a convolutional decoder.

    Parameters
    ----------
    size : (height, width)
        Of the image; the last grid is cropped to it.
    channels : int
        Of the image.
    width : int
        Channels of the code and of every block.
    upsamplings : int
        Number of x2 steps; there is one block more.
    kernel_size : int
        Of the blocks' convolutions.
    normalise : bool
        Whether each block ends in BatchNorm.

    Notes
    -----
    Takes a code ``(1, width, *coarse_size(size, upsamplings))`` and returns an image of ``size``,
    without an output non-linearity. No biases. Parameters: ``(u+1)(k^2 w^2 + 2w) + w c`` for
    width w, u upsamplings, kernels of size k, c channels and BatchNorm; the
    published deep decoder (w = 128, u = 5) has 100,224.
    """

    def __init__(
        self,
        size: tuple[int, int],
        channels: int = 3,
        *,
        width: int = 128,
        upsamplings: int = 5,
        kernel_size: int = 1,
        normalise: bool = True,
    ) -> None:
        require_sizes(1, channels=channels, width=width, kernel_size=kernel_size)
        require_sizes(0, upsamplings=upsamplings)
        layers: list[nn.Module] = []
        for block in range(upsamplings + 1):
            layers.append(conv(width, width, kernel_size, bias=False))
            if block < upsamplings:
                layers.append(nn.Upsample(scale_factor=2, mode="bilinear"))
            layers.append(nn.ReLU())
            if normalise:
                layers.append(nn.BatchNorm2d(width))
        layers += [CentreCrop(size), conv(width, channels, 1, bias=False)]
        super().__init__(*layers)

    def forward(
        self, input: Float[Tensor, "1 code_channels coarse_height coarse_width"]
    ) -> Float[Tensor, "1 channels height width"]:
        """Make the image.

        Parameters
        ----------
        input : Tensor, shape (1, width, coarse_height, coarse_width)
            The code.

        Returns
        -------
        Tensor, shape (1, channels, height, width)
            Before any output non-linearity.
        """
        image: Tensor = super().forward(input)
        return image


def coarse_size(size: tuple[int, int], halvings: int) -> tuple[int, int]:
    """Size of the grid that ``halvings`` x2 upsamplings bring to at least ``size``.

    Parameters
    ----------
    size : (height, width)
        Of the image.
    halvings : int
        Number of x2 steps.

    Returns
    -------
    (height, width)
        Rounded up.

    Examples
    --------
    >>> coarse_size((64, 48), 5)
    (2, 2)
    """
    factor = 2**halvings
    return -(-size[0] // factor), -(-size[1] // factor)
