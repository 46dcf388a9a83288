"""Kernels measured on a prior: the empirical neural tangent kernel, the covariance of outputs."""

from dipkernels.kernels.covariance import covariance
from dipkernels.kernels.ntk import NTK

__all__ = ["NTK", "covariance"]
