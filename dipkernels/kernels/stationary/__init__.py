"""Infinite-width kernels on the lags of a torus: a calculus of covariance and tangent kernel.

A `StationaryKernel` goes through the layers of a convolutional network by the functions of this
module, each of which makes a new one. `dipkernels.kernels.infinite_width` applies them to a torch
module.

Examples
--------
>>> kernel = StationaryKernel.white((8, 8))
>>> kernel = convolve(kernel, 3, Weights.ntk(variance=2.0))
>>> kernel = upsample(activate(kernel, "relu"), 2, "bilinear", max_period=1)
>>> kernel
StationaryKernel(size 16x16, period 1x1)
"""

from dipkernels.kernels.stationary.activations import Activation, activation
from dipkernels.kernels.stationary.branches import added, mixed
from dipkernels.kernels.stationary.kernel import StationaryKernel
from dipkernels.kernels.stationary.maps import (
    Weights,
    activate,
    average_pool,
    convolve,
    stride,
)
from dipkernels.kernels.stationary.normalisation import batch_norm
from dipkernels.kernels.stationary.upsampling import upsample

__all__ = [
    "Activation",
    "StationaryKernel",
    "Weights",
    "activate",
    "activation",
    "added",
    "average_pool",
    "batch_norm",
    "convolve",
    "mixed",
    "stride",
    "upsample",
]
