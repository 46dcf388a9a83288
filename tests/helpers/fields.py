"""Random fields of known covariance."""

import math

import torch
from torch import Tensor


def spectrum(size: tuple[int, ...], scale: float = 1.5, white: float = 0.05) -> Tensor:
    """Take a Gaussian spectrum, of that length scale in pixels, and some white noise."""
    axes = [torch.fft.fftfreq(side, dtype=torch.float64) for side in size]
    squares = sum(axis**2 for axis in torch.meshgrid(*axes, indexing="ij"))
    return (-2 * (math.pi * scale) ** 2 * squares).exp() + white


def stationary(n: int, size: tuple[int, ...], seed: int, **shape: float) -> tuple[Tensor, Tensor]:
    """Draw n Gaussian fields on a torus, (n, 1, *size); and their covariance by lag."""
    power = spectrum(size, **shape)
    dims = tuple(range(-len(size), 0))
    generator = torch.Generator().manual_seed(seed)
    white = torch.randn(n, 1, *size, generator=generator, dtype=torch.float64)
    fields = torch.fft.ifftn(power.sqrt() * torch.fft.fftn(white, dim=dims), dim=dims).real
    return fields, torch.fft.ifftn(power, dim=dims).real


def windowed(n: int, size: tuple[int, ...], seed: int) -> tuple[Tensor, Tensor]:
    """Draw the same as a window of a torus of twice the sides, so that its borders don't meet."""
    fields, kernel = stationary(n, tuple(2 * side for side in size), seed)
    return fields[(..., *(slice(side) for side in size))], kernel
