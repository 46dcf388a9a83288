"""Small modules that the network families share. All are free of state."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.errors import InvalidInputError


class ConvBlock(nn.Sequential):
    """Convolution, normalisation, activation: the unit of the convolutional families.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    kernel_size : int
        Odd; reflection padding keeps the size.
    stride : int
        Of the convolution.
    activation : nn.Module, optional
        By default LeakyReLU(0.2), as Ulyanov et al.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        activation: nn.Module | None = None,
    ) -> None:
        super().__init__(
            conv(in_channels, out_channels, kernel_size, stride=stride),
            nn.BatchNorm2d(out_channels),
            nn.LeakyReLU(0.2) if activation is None else activation,
        )


class CentreCrop(nn.Module):
    """Crop an image about its centre to a size; does nothing where it has that size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels new_height new_width"]:
        """Crop.

        Parameters
        ----------
        x : Tensor, shape (batch, channels, height, width)
            At least as large as the size.

        Returns
        -------
        Tensor, shape ``(batch, channels, *size)``
            Its middle.
        """
        return centre_crop(x, self.size)


def centre_crop(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop the last two axes about their centre.

    Parameters
    ----------
    x : Tensor, shape (..., height, width)
        At least as large as ``size``.
    size : (height, width)
        Of the result.

    Returns
    -------
    Tensor, shape ``(..., *size)``
        A view.
    """
    height, width = size
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def conv(
    in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1, bias: bool = True
) -> nn.Conv2d:
    """Make a convolution with reflection padding and PyTorch's default initialisation.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels.
    kernel_size : int
        Odd.
    stride : int
        1 keeps the size, 2 halves it (rounding up).
    bias : bool
        Whether there is one.

    Returns
    -------
    nn.Conv2d
        The layer.
    """
    padding = (kernel_size - 1) // 2
    # Padding by nothing is spelt "zeros": the reflecting path would copy the image for it.
    mode: Literal["reflect", "zeros"] = "reflect" if padding else "zeros"
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, bias=bias, padding_mode=mode
    )


class TiedConvs(nn.Module):
    """One convolution applied several times, with ReLU between (not after).

    The transformer report's "three convolutions" are this: its code repeats one layer object in a
    list, so that the three share their weights.

    Parameters
    ----------
    channels : int
        In and out.
    repeats : int
        How often it is applied.
    """

    def __init__(self, channels: int, repeats: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels, 3)
        self.repeats = repeats

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Apply.

        Parameters
        ----------
        x : Tensor, shape (batch, channels, height, width)
            An image.

        Returns
        -------
        Tensor, shape (batch, channels, height, width)
            Of the same size.
        """
        for _ in range(self.repeats - 1):
            x = torch.relu(self.conv(x))
        image: Tensor = self.conv(x)
        return image


def require_sizes(least: int, **sizes: int) -> None:
    """Check sizes of a network.

    Parameters
    ----------
    least : int
        The smallest that each may be.
    **sizes : int
        By their names.

    Raises
    ------
    InvalidInputError
        If one is smaller, or no whole number.
    """
    for name, size in sizes.items():
        if not isinstance(size, int) or size < least:
            raise InvalidInputError(
                f"{name} must be a whole number, at least {least}, got {size!r}"
            )
