"""Kernels measured on a prior: the empirical neural tangent kernel."""

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
    "pixel_indices",
    "select_parameters",
]
