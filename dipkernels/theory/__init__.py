"""Theory: what a kernel predicts of a fit."""

from dipkernels.theory.agreement import rank_agreement
from dipkernels.theory.audit import audit
from dipkernels.theory.curves import PredictedPeak, learning_curve, predicted_peak, resolved_stretch
from dipkernels.theory.drift import kernel_drift, response_drift
from dipkernels.theory.dynamics import (
    Dynamics,
    FrozenAdam,
    GradientDescent,
    GradientFlow,
    Momentum,
)
from dipkernels.theory.expansion import Expansion
from dipkernels.theory.krylov import KrylovExpansion, expand
from dipkernels.theory.linear import LinearFit, linear_fit
from dipkernels.theory.optimum import PredictedOptimum, StoppingTime, stopping_time
from dipkernels.theory.scores import score
from dipkernels.theory.spectrum import (
    ExactExpansion,
    KernelSpectrum,
    kernel_spectrum,
)
from dipkernels.theory.wiener import covariance_spectrum, stationary_wiener

__all__ = [
    "Dynamics",
    "ExactExpansion",
    "Expansion",
    "FrozenAdam",
    "GradientDescent",
    "GradientFlow",
    "KernelSpectrum",
    "KrylovExpansion",
    "LinearFit",
    "Momentum",
    "PredictedOptimum",
    "PredictedPeak",
    "StoppingTime",
    "audit",
    "covariance_spectrum",
    "expand",
    "kernel_drift",
    "kernel_spectrum",
    "learning_curve",
    "linear_fit",
    "predicted_peak",
    "rank_agreement",
    "resolved_stretch",
    "response_drift",
    "score",
    "stationary_wiener",
    "stopping_time",
]
