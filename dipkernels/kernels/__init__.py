"""Kernels of a prior: measured (tangent kernel, covariance) and derived (infinite widths)."""

from dipkernels.kernels.covariances import (
    covariance,
    covariance_of,
    pool_covariances,
    radial_average,
)
from dipkernels.kernels.covariances.lagged import LaggedProducts
from dipkernels.kernels.dense import DenseKernel
from dipkernels.kernels.gauss_newton import GaussNewton
from dipkernels.kernels.infinite import (
    InfiniteWidth,
    infinite_width,
    register_activation,
)
from dipkernels.kernels.kernel import Kernel
from dipkernels.kernels.layers import LayerKernels, select_parameters
from dipkernels.kernels.metric import adam_metric, adam_metric_of
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.observed import ObservedKernel
from dipkernels.kernels.pixels import pixel_indices

__all__ = [
    "NTK",
    "DenseKernel",
    "GaussNewton",
    "InfiniteWidth",
    "Kernel",
    "LaggedProducts",
    "LayerKernels",
    "ObservedKernel",
    "adam_metric",
    "adam_metric_of",
    "covariance",
    "covariance_of",
    "infinite_width",
    "pixel_indices",
    "pool_covariances",
    "radial_average",
    "register_activation",
    "select_parameters",
]
