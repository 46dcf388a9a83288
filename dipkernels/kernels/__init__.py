"""Kernels of a prior: the empirical tangent kernel and the covariance of outputs, measured."""

from dipkernels.kernels.covariance import covariance
from dipkernels.kernels.kernel import Kernel, RestrictedKernel
from dipkernels.kernels.layers import LayerKernel, LayerKernels, select_parameters
from dipkernels.kernels.metric import adam_metric, adam_metric_of
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.pixels import KernelBlock, pixel_indices

__all__ = [
    "NTK",
    "Kernel",
    "KernelBlock",
    "LayerKernel",
    "LayerKernels",
    "RestrictedKernel",
    "adam_metric",
    "adam_metric_of",
    "covariance",
    "pixel_indices",
    "select_parameters",
]
