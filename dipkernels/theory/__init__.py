"""Theory: what a kernel predicts of a fit."""

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
    "Momentum",
    "PredictedOptimum",
    "StoppingTime",
    "expand",
    "learning_curve",
    "resolved_stretch",
    "stopping_time",
]
