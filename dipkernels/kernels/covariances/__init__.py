"""Covariance of a network's output over its initialisations, by Monte Carlo, streaming."""

from dipkernels.kernels.covariances.estimate import covariance, covariance_of
from dipkernels.kernels.covariances.pooling import pool_covariances, radial_average

__all__ = ["covariance", "covariance_of", "pool_covariances", "radial_average"]
