"""Covariance of a network's output over its initialisations, by Monte Carlo, streaming."""

from dipkernels.kernels.covariance.draws import draw_images
from dipkernels.kernels.covariance.estimate import covariance, covariance_of
from dipkernels.kernels.covariance.pooling import pool, radial_average

__all__ = ["covariance", "covariance_of", "draw_images", "pool", "radial_average"]
