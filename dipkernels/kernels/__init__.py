"""Kernels measured on a prior: the empirical neural tangent kernel, the covariance of outputs."""

from dipkernels.kernels.covariance import (
    covariance,
    covariance_of,
    draw_images,
    pool_covariances,
    radial_average,
)
from dipkernels.kernels.covariance.lagged import LaggedProducts
from dipkernels.kernels.ntk import NTK

__all__ = [
    "NTK",
    "LaggedProducts",
    "covariance",
    "covariance_of",
    "draw_images",
    "pool_covariances",
    "radial_average",
]
