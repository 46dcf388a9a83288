"""Theory: what a kernel at initialisation predicts of a fit."""

from dipkernels.theory.dynamics import Dynamics, GradientDescent, GradientFlow
from dipkernels.theory.expansion import Expansion, expand
from dipkernels.theory.learning_curve import learning_curve, resolved_stretch

__all__ = [
    "Dynamics",
    "Expansion",
    "GradientDescent",
    "GradientFlow",
    "expand",
    "learning_curve",
    "resolved_stretch",
]
