"""Kernels of a prior: the empirical tangent kernel, measured; infinite-width limits, derived."""

from dipkernels.kernels import stationary
from dipkernels.kernels.infinite import InfiniteWidth, infinite_width
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.stationary import StationaryKernel

__all__ = ["NTK", "InfiniteWidth", "StationaryKernel", "infinite_width", "stationary"]
