"""Complex images as real ones: two channels of each, its real and its imaginary part."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError


@checked
def from_complex(values: Complex[Tensor, "channels *spatial"]) -> Float[Tensor, "pairs *spatial"]:
    """Make two real channels of each complex one: its real part, then its imaginary part.

    Parameters
    ----------
    values : Tensor, complex, shape ``(channels, *spatial)``
        Any values. Networks for them have ``output="none"``, since a sigmoid makes no negative
        ones.

    Returns
    -------
    Tensor, real, shape ``(2 * channels, *spatial)``
        A copy. Scores are those of a real image of so many channels: `mse` is half of the mean
        squared modulus of the complex error, `psnr` that for a peak of 1, `ssim` the mean over
        real and imaginary parts. Noise of deviation s in each channel is complex noise of
        variance ``2 s ** 2``.

    Raises
    ------
    InvalidInputError
        If it isn't complex.

    Examples
    --------
    >>> from_complex(torch.tensor([[1 + 2j, 3 - 1j]]))
    tensor([[ 1.,  3.],
            [ 2., -1.]])
    """
    if not values.is_complex() or values.dim() < 1:
        raise InvalidInputError(
            f"expected a complex image (channels, *spatial), got {values.dtype} of shape "
            f"{tuple(values.shape)}"
        )
    return torch.stack([values.real, values.imag], dim=1).flatten(0, 1)


@checked
def to_complex(image: Float[Tensor, "pairs *spatial"]) -> Complex[Tensor, "channels *spatial"]:
    """Make a complex image of a real one, as `from_complex` laid it out.

    Parameters
    ----------
    image : Tensor, real, shape ``(2 * channels, *spatial)``
        Of an even number of channels.

    Returns
    -------
    Tensor, complex, shape ``(channels, *spatial)``
        A copy.

    Raises
    ------
    InvalidInputError
        If it isn't real and of an even number of channels.

    Examples
    --------
    >>> to_complex(from_complex(torch.tensor([[1 + 2j, 3 - 1j]])))
    tensor([[1.+2.j, 3.-1.j]])
    """
    if not image.is_floating_point() or image.dim() < 1 or image.shape[0] % 2:
        raise InvalidInputError(
            "expected a floating-point image with two channels for each complex one, got "
            f"{image.dtype} of shape {tuple(image.shape)}"
        )
    return torch.complex(*image.unflatten(0, (-1, 2)).unbind(dim=1))
