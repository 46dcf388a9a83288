"""Kernels measured on a prior: the empirical neural tangent kernel."""

from dipkernels.kernels.ntk import NTK

__all__ = ["NTK"]
