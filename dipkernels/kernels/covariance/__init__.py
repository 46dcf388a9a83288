"""Covariance of a network's output over its initialisations, by Monte Carlo, streaming."""

from dipkernels.kernels.covariance.estimate import covariance, covariance_of
from dipkernels.kernels.covariance.pooling import pool_covariances, radial_average

__all__ = ["covariance", "covariance_of", "pool_covariances", "radial_average"]
