"""Gaussian-process regression on images: posteriors of tasks, by FFTs and conjugate gradients.

A `GaussianProcess` has a stationary or cyclostationary kernel: a function of distance, one that
was derived from a network (`dipkernels.kernels.infinite_width`), or one that was measured on it
(`from_covariance`). Given a task it makes a `GPPosterior`, with mean, variance, draws and evidence.
No matrix is formed unless it's asked for.
"""

from dipkernels.gp.hyperparameters import fit_hyperparameters
from dipkernels.gp.lags import LagKernel, matern, rbf
from dipkernels.gp.process import GaussianProcess, GPPosterior
from dipkernels.gp.tabulated import from_covariance

__all__ = [
    "GPPosterior",
    "GaussianProcess",
    "LagKernel",
    "fit_hyperparameters",
    "from_covariance",
    "matern",
    "rbf",
]
