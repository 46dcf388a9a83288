"""Theories of the literature, each reproduced in its own terms, beside what is measured.

Heckel & Soltanolkotabi 2020: `dual_kernel`, `fitting_speed`, `jacobian_norms`. Cheng et al. 2019:
`dipkernels.literature.poster`. Tachella et al. 2021: `induced_filter`, `patch_tangent_kernel`,
`twicing`. What follows a fit, for one figure of a paper, stands in its experiment.
"""

from dipkernels.literature.dual_kernels import dual_kernel, two_layer_generator
from dipkernels.literature.filters import (
    compare_filters,
    induced_filter,
    residual_correlation,
    twicing,
)
from dipkernels.literature.jacobians import jacobian, jacobian_norms
from dipkernels.literature.non_local_means import non_local_means_weights, patch_tangent_kernel
from dipkernels.literature.speed import fitting_speed, image_and_noise, predicted_speed

__all__ = [
    "compare_filters",
    "dual_kernel",
    "fitting_speed",
    "image_and_noise",
    "induced_filter",
    "jacobian",
    "jacobian_norms",
    "non_local_means_weights",
    "patch_tangent_kernel",
    "predicted_speed",
    "residual_correlation",
    "twicing",
    "two_layer_generator",
]
