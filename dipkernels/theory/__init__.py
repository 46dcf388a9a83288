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
from dipkernels.theory.fingerprint import (
    FingerprintEffort,
    fingerprint,
    fingerprint_row,
    plan_fingerprint,
)
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
from dipkernels.theory.stopping import PredictedOptimum, StoppingTime, stopping_time

__all__ = [
    "Dynamics",
    "Expansion",
    "FingerprintEffort",
    "FrozenAdam",
    "GradientDescent",
    "GradientFlow",
    "KernelSpectrum",
    "LinearFit",
    "Momentum",
    "PredictedOptimum",
    "PredictedPeak",
    "StoppingTime",
    "audit",
    "covariance_spectrum",
    "expand",
    "fingerprint",
    "fingerprint_row",
    "flow_curve",
    "kernel_drift",
    "kernel_spectrum",
    "learning_curve",
    "linear_fit",
    "plan_fingerprint",
    "predicted_peak",
    "rank_agreement",
    "resolved_stretch",
    "response_drift",
    "score",
    "stationary_wiener",
    "stopping_time",
]
