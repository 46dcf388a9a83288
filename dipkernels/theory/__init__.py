"""Theory: what a kernel at initialisation predicts of a fit."""

from dipkernels.theory.dynamics import Dynamics, GradientDescent, GradientFlow
from dipkernels.theory.expansion import Expansion, expand
from dipkernels.theory.learning_curve import learning_curve, resolved_stretch
from dipkernels.theory.score import (
    KernelSpectrum,
    PredictedPeak,
    covariance_spectrum,
    kernel_spectrum,
    predicted_peak,
    rank_agreement,
    score,
    stationary_wiener,
)

__all__ = [
    "Dynamics",
    "Expansion",
    "GradientDescent",
    "GradientFlow",
    "KernelSpectrum",
    "PredictedPeak",
    "covariance_spectrum",
    "expand",
    "kernel_spectrum",
    "learning_curve",
    "predicted_peak",
    "rank_agreement",
    "resolved_stretch",
    "score",
    "stationary_wiener",
]
