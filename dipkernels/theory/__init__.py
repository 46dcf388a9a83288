"""Theory: what a kernel predicts of a fit."""

from dipkernels.theory.dynamics import (
    Dynamics,
    FrozenAdam,
    GradientDescent,
    GradientFlow,
    Momentum,
)
from dipkernels.theory.expansion import Expansion, expand
from dipkernels.theory.fingerprint import (
    FingerprintEffort,
    fingerprint,
    fingerprint_row,
    plan_fingerprint,
)
from dipkernels.theory.learning_curve import learning_curve, resolved_stretch
from dipkernels.theory.stopping import PredictedOptimum, StoppingTime, stopping_time

__all__ = [
    "Dynamics",
    "Expansion",
    "FingerprintEffort",
    "FrozenAdam",
    "GradientDescent",
    "GradientFlow",
    "Momentum",
    "PredictedOptimum",
    "StoppingTime",
    "expand",
    "fingerprint",
    "fingerprint_row",
    "learning_curve",
    "plan_fingerprint",
    "resolved_stretch",
    "stopping_time",
]
