"""Kernels of a prior: measured (tangent kernel, covariance of outputs)."""

from dipkernels.kernels.covariance import (
    covariance,
    covariance_of,
    draw_images,
    pool_covariances,
    radial_average,
)
from dipkernels.kernels.covariance.lagged import LaggedProducts
from dipkernels.kernels.kernel import Kernel, RestrictedKernel
from dipkernels.kernels.layers import LayerKernel, LayerKernels, select_parameters
from dipkernels.kernels.metric import adam_metric, adam_metric_of
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.pixels import KernelBlock, pixel_indices

__all__ = [
    "NTK",
    "Kernel",
    "KernelBlock",
    "LaggedProducts",
    "LayerKernel",
    "LayerKernels",
    "RestrictedKernel",
    "adam_metric",
    "adam_metric_of",
    "covariance",
    "covariance_of",
    "draw_images",
    "pixel_indices",
    "pool_covariances",
    "radial_average",
    "select_parameters",
]
