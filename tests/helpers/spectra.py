"""Random fields and modes of known spectra."""

import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.spectra import radial_frequency


def power_law(size: tuple[int, ...], exponent: float, count: int, seed: int) -> Tensor:
    """Draw Gaussian fields of one channel whose expected power is ``f ** -exponent``."""
    radius = torch.from_numpy(radial_frequency(size))
    gain = torch.where(radius > 0, radius.clamp(min=1e-9) ** (-exponent / 2), 0.0)
    white = torch.randn(count, 1, *size, generator=generator("law", seed), dtype=torch.float64)
    axes = tuple(range(2, 2 + len(size)))
    return torch.fft.ifftn(torch.fft.fftn(white, dim=axes) * gain, dim=axes).real
