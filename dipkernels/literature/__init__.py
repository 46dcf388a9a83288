"""Theories of the literature, each reproduced in its own terms, beside what is measured.

Heckel & Soltanolkotabi 2020: `dual_kernel`, `fitting_speed`, `jacobian_norms`,
`jacobian_along_fit`. Cheng et al. 2019: `covariance_three_ways`, `width_convergence`. Tachella et
al. 2021: `induced_filter`, `patch_tangent_kernel`, `twicing`, `filter_along_fit`.
"""

from dipkernels.literature.dual_kernels import dual_kernel, two_layer_generator
from dipkernels.literature.filters import (
    compare_filters,
    filter_along_fit,
    induced_filter,
    residual_correlation,
    twicing,
)
from dipkernels.literature.gaussian_process import covariance_three_ways, width_convergence
from dipkernels.literature.jacobians import (
    accumulated,
    jacobian,
    jacobian_along_fit,
    jacobian_norms,
)
from dipkernels.literature.non_local_means import non_local_means_weights, patch_tangent_kernel
from dipkernels.literature.speed import fitting_speed, image_and_noise, predicted_speed

__all__ = [
    "accumulated",
    "compare_filters",
    "covariance_three_ways",
    "dual_kernel",
    "filter_along_fit",
    "fitting_speed",
    "image_and_noise",
    "induced_filter",
    "jacobian",
    "jacobian_along_fit",
    "jacobian_norms",
    "non_local_means_weights",
    "patch_tangent_kernel",
    "predicted_speed",
    "residual_correlation",
    "twicing",
    "two_layer_generator",
    "width_convergence",
]
