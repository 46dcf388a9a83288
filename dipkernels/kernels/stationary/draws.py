"""Draws of Gaussian features that go through the layers of one channel, with their derivatives.

Between two layers of random weights every channel of an infinitely wide network is a Gaussian
process that goes through the same fixed function (normalisation, activation, resampling, pooling).
Drawing many of them gives the moments after that function for every grid, however small, where
closed forms need large images.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.func import jvp

from dipkernels.base.seeds import derive, generator
from dipkernels.kernels.stationary.blocks import phase_means
from dipkernels.kernels.stationary.kernel import StationaryKernel

MOST_VALUES = 2**20  # drawn in all: 4096 images of 16x16
LEAST_DRAWS, MOST_DRAWS = 64, 2**18


@dataclass(frozen=True)
class Draws:
    """Fields of many independent channels, and random directions of their tangents.

    Draws ``x ~ N(0, K)``, or what has become of them, and ``v ~ N(0, Theta)``, moved along by the
    derivative of all that was applied: ``E v v^T`` is the tangent kernel.
    """

    fields: Tensor  # (n, *size)
    tangents: Tensor
    period: tuple[int, ...]  # shifts by which leave the distribution unchanged
    seed: int  # of further draws

    @classmethod
    def of(cls, kernel: StationaryKernel, seed: int = 0, count: int | None = None) -> "Draws":
        """Draw from the Gaussian processes of a kernel, by default some million values."""
        if count is None:
            count = min(max(MOST_VALUES // math.prod(kernel.size), LEAST_DRAWS), MOST_DRAWS)
        return cls(
            kernel.sample(count, derive("fields", seed)),
            kernel.sample(count, derive("tangents", seed), "ntk"),
            kernel.period,
            seed,
        )

    def apply(
        self, function: Callable[[Tensor], Tensor], *, period: tuple[int, ...] | None = None
    ) -> "Draws":
        """Apply a differentiable function to each channel of ``(n, *size)``."""
        fields, tangents = jvp(function, (self.fields,), (self.tangents,))  # type: ignore[misc]
        return Draws(fields, tangents, period or self.period, derive("next", self.seed))

    def scaled(self, scale: float, own_scale: bool = True, own_bias: bool = True) -> "Draws":
        """Multiply by each channel's own scale, and add its own bias (which is 0)."""
        # Scales of that root mean square; tangents get random directions of what is trained.
        shape = (len(self.fields), *(1,) * (self.fields.dim() - 1))
        random = generator("channel parameters", self.seed)
        directions = torch.randn(2, *shape, dtype=torch.float64, generator=random)
        by_scale, by_bias = directions.to(self.fields.device)
        own = own_scale * by_scale * self.fields + own_bias * by_bias
        tangents = scale * self.tangents + own
        return Draws(scale * self.fields, tangents, self.period, derive("next", self.seed))

    def learned(self, change: Tensor) -> "Draws":
        """Add random directions of a trained parameter; `change` is the channels' derivative."""
        random = generator("channel parameter", self.seed)
        shape = (len(self.fields), *(1,) * (self.fields.dim() - 1))
        directions = torch.randn(shape, dtype=torch.float64, generator=random)
        tangents = self.tangents + directions.to(self.fields.device) * change
        return Draws(self.fields, tangents, self.period, derive("next", self.seed))

    def moments(self) -> StationaryKernel:
        """Average over draws and over shifts by the period."""
        # The variance's relative error is about sqrt(2 / (draws * shifts)), more where correlations
        # are long.
        covariance, ntk = (_second_moments(v, self.period) for v in (self.fields, self.tangents))
        return StationaryKernel(covariance, ntk, phase_means(self.fields.mean(dim=0), self.period))


def normalise(x: Tensor, epsilon: float) -> Tensor:
    """Normalise each channel to mean 0 and variance 1."""
    axes = tuple(range(1, x.dim()))
    x = x - x.mean(dim=axes, keepdim=True)
    return x * (x.square().mean(dim=axes, keepdim=True) + epsilon).rsqrt()


# E x(p) x(p + r), by a Fourier transform for each phase: of x at that phase's pixels, and of x.
def _second_moments(values: Tensor, period: tuple[int, ...]) -> Tensor:
    size = values.shape[1:]
    axes = tuple(range(1, values.dim()))
    spectrum = torch.fft.fftn(values, dim=axes)
    table = values.new_empty(*period, *size)
    positions = len(values) * math.prod(n // t for n, t in zip(size, period, strict=True))
    for phase in np.ndindex(*period):
        comb = torch.zeros_like(values)
        kept = (slice(None), *(slice(p, None, t) for p, t in zip(phase, period, strict=True)))
        comb[kept] = values[kept]
        cross = (torch.fft.fftn(comb, dim=axes).conj() * spectrum).sum(dim=0)
        table[phase] = torch.fft.ifftn(cross).real / positions
    return table
