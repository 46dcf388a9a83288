"""Heckel & Soltanolkotabi: the dual kernel of a generator with fixed filters, and its spectrum."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import Activation, StationaryKernel, activate
from dipkernels.priors import ImagePrior

# What the code behind their figure 6 multiplies the kernel of the text by, which has no effect on
# shapes: it divides by 6 in all, where the derivative of a ReLU has a mean of 1/2.
PUBLISHED_SCALE = 1 / 3


@checked
def triangle(half_width: int) -> Float[Tensor, " taps"]:
    """Make a triangular filter of unit norm."""
    if half_width < 1:
        raise InvalidInputError(f"half_width must be at least 1, got {half_width}")
    taps = half_width - torch.arange(1 - half_width, half_width, dtype=torch.float64).abs()
    return _normed(taps)


@checked
def gaussian(width: float, size: int) -> Float[Tensor, " size"]:
    """Make a Gaussian filter of unit norm, ``exp(-p^2 / (width size)^2)``."""
    if not width > 0 or size < 1:
        raise InvalidInputError(f"width and size must be positive, got {width} and {size}")
    position = torch.arange(size, dtype=torch.float64) - size // 2
    taps = torch.exp(-((position / (width * size)) ** 2))
    return _normed(taps)


def circulant(
    taps: Float[Tensor, "*kernel_size"], size: tuple[int, ...]
) -> Float[Tensor, "n *size"]:
    """Shift a filter over a torus."""
    placed = _placed(taps, size)
    axes = tuple(range(len(size)))
    pixels = torch.cartesian_prod(*(torch.arange(n) for n in size)).reshape(-1, len(size))
    return torch.stack([placed.roll(tuple(shift.tolist()), axes) for shift in pixels])


@checked
def dual_kernel(
    taps: Float[Tensor, "*kernel_size"],
    size: tuple[int, ...],
    *,
    activation: str | Activation = "relu",
) -> StationaryKernel:
    """Derive the kernel of the two-layer generator ``G(C) = f(U C) v``, U circulant.

    C has standard normal entries and is trained; v, of signs over the root of the width, is not.
    At infinite width the tangent kernel is ``E[f'(u_i^T c) f'(u_j^T c)] <u_i, u_j>``, for a
    ReLU ``(1 - angle / pi) <u_i, u_j> / 2``: with U circulant it's circulant, so that its
    eigenvectors are sines and cosines and its eigenvalues their Fourier transform.

    Parameters
    ----------
    taps : Tensor, shape ``(*kernel_size)``
        The filter u, in 1D or 2D.
    size : (length,) or (height, width)
        Of the torus, no smaller than the filter.
    activation : str or Activation
        As of `dipkernels.kernels.stationary.activate`.

    Returns
    -------
    StationaryKernel
        Its ``ntk`` is the dual kernel at each lag, ``spectrum("ntk")`` the eigenvalues; its
        ``covariance`` that of the image. Costs two Fourier transforms.

    Raises
    ------
    InvalidInputError
        If the filter has other dimensions than the torus, or is larger.

    Notes
    -----
    Source: Heckel & Soltanolkotabi 2020 (arXiv:1910.14634). The spectra that they print are
    `PUBLISHED_SCALE` times these.

    Examples
    --------
    >>> eigenvalues = PUBLISHED_SCALE * dual_kernel(triangle(10), (300,)).spectrum("ntk")
    >>> round(eigenvalues.min().item(), 5), round(eigenvalues.max().item(), 3)
    (0.00487, 1.957)
    """
    spectrum = torch.fft.fftn(_placed(taps.double(), size)).abs() ** 2
    lags = torch.fft.ifftn(spectrum).real
    return activate(StationaryKernel.from_lags(lags, lags), activation)


class _TwoLayerGenerator(nn.Module):
    """``f(U C) v`` with the rows of U as the code: the network whose limit is `dual_kernel`."""

    signs: Tensor

    def __init__(self, pixels: int, width: int, dims: int) -> None:
        super().__init__()
        self.mix = (nn.Conv1d if dims == 1 else nn.Conv2d)(pixels, width, 1, bias=False)
        nn.init.normal_(self.mix.weight)
        half = torch.ones(width // 2)
        self.register_buffer("signs", torch.cat([half, -half]) / math.sqrt(width))

    def forward(self, code: Float[Tensor, "1 pixels *size"]) -> Float[Tensor, "1 1 *size"]:
        """Make the image."""
        hidden = torch.relu(self.mix(code))
        return torch.einsum("bw...,w->b...", hidden, self.signs)[:, None]


@checked
def two_layer_generator(
    taps: Float[Tensor, "*kernel_size"], size: tuple[int, ...], width: int
) -> ImagePrior:
    """Make the two-layer generator of a width, to be measured beside `dual_kernel`.

    Parameters
    ----------
    taps : Tensor, shape ``(*kernel_size)``
        The filter.
    size : (length,) or (height, width)
        Of the torus.
    width : int
        Even, positive. The tangent kernel departs from its limit by the order of its inverse root.

    Returns
    -------
    ImagePrior
        In the filter's type. Its code has n channels of n pixels.

    Raises
    ------
    InvalidInputError
        If the width isn't a positive even number, or the filter doesn't fit.
    """
    if width < 2 or width % 2:
        raise InvalidInputError(f"width must be a positive even number, got {width}")
    rows = circulant(taps, size)  # u_i over the torus
    code = rows.flatten(1).T.reshape(len(rows), *size)
    pixels, dims = len(rows), len(size)
    return ImagePrior(lambda: _TwoLayerGenerator(pixels, width, dims), code[None], name="two-layer")


def _normed(taps: Tensor) -> Tensor:
    normed: Tensor = taps / taps.norm()
    return normed


def _placed(taps: Tensor, size: tuple[int, ...]) -> Tensor:
    if taps.dim() != len(size) or any(k > n for k, n in zip(taps.shape, size, strict=True)):
        raise InvalidInputError(
            f"a filter of shape {tuple(taps.shape)} doesn't fit a torus of size {size}: give it as "
            "many axes, and no more taps than pixels"
        )
    placed = taps.new_zeros(size)
    placed[tuple(slice(k) for k in taps.shape)] = taps
    shifts = tuple(-(k // 2) for k in taps.shape)
    return placed.roll(shifts, tuple(range(len(size))))
