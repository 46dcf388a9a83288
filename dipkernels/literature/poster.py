"""Cheng et al.: their networks and codes, and the formulas of their poster."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import StationaryKernel, Weights, activate, convolve, stride
from dipkernels.priors import ImagePrior

TAPS = 3  # of their convolutions
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)


def smooth_kernel(deviation: float, size: tuple[int, ...]) -> StationaryKernel:
    """Make the covariance of white noise of variance 1 that a Gaussian has smoothed."""
    if not 0 <= deviation < math.inf:
        raise InvalidInputError(f"the deviation must be finite and not negative, got {deviation}")
    if deviation == 0:
        return StationaryKernel.white(size)
    lags = torch.fft.ifftn(_transfer(deviation, size) ** 2).real
    return StationaryKernel.from_lags(lags / lags.flatten()[0])


def smooth_codes(
    channels: int, size: tuple[int, ...], deviation: float
) -> Callable[[int], Float[Tensor, "1 channels *size"]]:
    """Make a source of codes whose channels have the covariance `smooth_kernel`."""
    spectrum = smooth_kernel(deviation, size).spectrum().clamp(min=0).sqrt()
    axes = tuple(range(1, len(size) + 1))

    def draw(seed: int) -> Tensor:
        random = generator("smooth code", seed)
        white = torch.randn(channels, *size, generator=random, dtype=torch.float64)
        smooth = torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * spectrum, dim=axes).real
        code: Tensor = smooth[None].float()
        return code

    return draw


def unit_gain(module: nn.Module) -> None:
    """Draw all convolutions anew, normal with variance one over the fan-in."""
    for layer in module.modules():
        if isinstance(layer, _CONVOLUTIONS):
            nn.init.normal_(layer.weight, std=(layer.weight[0].numel()) ** -0.5)


def convolutional(
    size: tuple[int, ...], depth: int, *, width: int, deviation: float = 0.0
) -> ImagePrior:
    """Make Cheng et al.'s convolutional network, in one dimension or two, on a torus."""
    return networks.create(
        "conv",
        layers=depth,
        last_kernel_size=TAPS,
        initialisation=unit_gain,
        **_on_torus(size, width, deviation),
    )


def autoencoder(
    size: tuple[int, ...], depth: int, *, width: int, deviation: float = 0.0
) -> ImagePrior:
    """Make Cheng et al.'s auto-encoder: a U-net without skips and normalisation, on a torus."""
    return networks.create(
        "skip",
        scales=depth,
        skip_channels=0,
        activation="relu",
        downsampling="average",
        upsampling="bilinear",
        bias=False,
        initialisation="kaiming-normal",
        **_on_torus(size, width, deviation),
    )


def _on_torus(size: tuple[int, ...], width: int, deviation: float) -> dict[str, Any]:
    return {
        "image_size": size,
        "channels": width,
        "width": width,
        "normalisation": "none",
        "padding": "circular",
        "output": "none",
        "code": smooth_codes(width, size, deviation)(0)[0],
    }


def poster_convolutional(kernel: StationaryKernel, depth: int) -> StationaryKernel:
    """Apply the poster's formula for a ReLU layer, once for each."""
    if depth < 0:
        raise InvalidInputError(f"depth can't be negative, got {depth}")
    for _ in range(depth):
        kernel = activate(convolve(kernel, TAPS, Weights.ntk(1.0)), "relu")
    return kernel


def poster_autoencoder(kernel: StationaryKernel, depth: int) -> StationaryKernel:
    """Apply the poster's formulas for an auto-encoder: ReLU, ``K(2 r)`` down, ``K(r / 2)`` up."""
    for _ in range(depth):
        kernel = poster_convolutional(stride(kernel, 2), 2)
    for _ in range(depth):
        kernel = poster_convolutional(stretched(kernel), 2)
    return kernel


def stretched(kernel: StationaryKernel) -> StationaryKernel:
    """Interpolate by 2 with the band-limited filter: the poster's ``K(r / 2)``."""
    if any(t > 1 for t in kernel.period):
        raise InvalidInputError(f"expected a stationary kernel, got one of period {kernel.period}")
    values = kernel.covariance
    for axis in range(values.dim()):
        values = _interpolated(values.movedim(axis, -1)).movedim(-1, axis)
    return StationaryKernel.from_lags(values)


def _transfer(deviation: float, size: tuple[int, ...]) -> Tensor:
    """Fourier transform of a Gaussian that is wrapped about the torus."""
    squares = [torch.fft.fftfreq(n, dtype=torch.float64) ** 2 for n in size]
    total = torch.stack(torch.meshgrid(*squares, indexing="ij")).sum(dim=0)
    return torch.exp(-2 * math.pi**2 * deviation**2 * total)


def _interpolated(values: Tensor) -> Tensor:
    n = values.shape[-1]
    spectrum = torch.fft.fft(values)
    fine = torch.zeros(*values.shape[:-1], 2 * n, dtype=spectrum.dtype)
    half = (n + 1) // 2
    fine[..., :half] = spectrum[..., :half]
    fine[..., 2 * n - (n - half) :] = spectrum[..., half:]
    if n % 2 == 0:  # the highest frequency of an even number of values has two aliases
        fine[..., n // 2] = fine[..., 2 * n - n // 2] = spectrum[..., n // 2] / 2
    interpolated: Tensor = 2 * torch.fft.ifft(fine).real
    return interpolated
