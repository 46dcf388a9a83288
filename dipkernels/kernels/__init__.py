"""Kernels of a prior: the tangent kernel and the covariance, measured; infinite widths, derived."""

from dipkernels.kernels.covariance import covariance
from dipkernels.kernels.infinite import InfiniteWidth, Operation, infinite_width
from dipkernels.kernels.kernel import Kernel, RestrictedKernel
from dipkernels.kernels.layers import LayerKernel, LayerKernels, select_parameters
from dipkernels.kernels.metric import adam_metric, adam_metric_of
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.pixels import KernelBlock, pixel_indices

__all__ = [
    "NTK",
    "InfiniteWidth",
    "Kernel",
    "KernelBlock",
    "LayerKernel",
    "LayerKernels",
    "Operation",
    "RestrictedKernel",
    "adam_metric",
    "adam_metric_of",
    "covariance",
    "infinite_width",
    "pixel_indices",
    "select_parameters",
]
