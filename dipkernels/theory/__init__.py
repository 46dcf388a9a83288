"""Theory: what a kernel at initialisation predicts of a fit."""

from dipkernels.theory.audit import LinearFit, audit, flow_curve, linear_fit
from dipkernels.theory.drift import kernel_drift, response_drift
from dipkernels.theory.dynamics import Dynamics, GradientDescent, GradientFlow
from dipkernels.theory.expansion import Expansion, expand
from dipkernels.theory.learning_curve import learning_curve, resolved_stretch

__all__ = [
    "Dynamics",
    "Expansion",
    "GradientDescent",
    "GradientFlow",
    "LinearFit",
    "audit",
    "expand",
    "flow_curve",
    "kernel_drift",
    "learning_curve",
    "linear_fit",
    "resolved_stretch",
    "response_drift",
]
