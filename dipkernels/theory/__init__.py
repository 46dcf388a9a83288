"""Theory: what a kernel predicts of a fit."""

from dipkernels.theory.audit import LinearFit, audit, flow_curve, linear_fit
from dipkernels.theory.drift import kernel_drift, response_drift
from dipkernels.theory.dynamics import (
    Dynamics,
    FrozenAdam,
    GradientDescent,
    GradientFlow,
    Momentum,
)
from dipkernels.theory.expansion import Expansion, expand
from dipkernels.theory.learning_curve import learning_curve, resolved_stretch
from dipkernels.theory.stopping import PredictedOptimum, StoppingTime, stopping_time

__all__ = [
    "Dynamics",
    "Expansion",
    "FrozenAdam",
    "GradientDescent",
    "GradientFlow",
    "LinearFit",
    "Momentum",
    "PredictedOptimum",
    "StoppingTime",
    "audit",
    "expand",
    "flow_curve",
    "kernel_drift",
    "learning_curve",
    "linear_fit",
    "resolved_stretch",
    "response_drift",
    "stopping_time",
]
