"""Theory: what a kernel predicts of a fit."""

from dipkernels.theory.agreement import rank_agreement
from dipkernels.theory.curves import PredictedPeak, learning_curve, predicted_peak
from dipkernels.theory.drift import kernel_drift, response_drift
from dipkernels.theory.dynamics import Dynamics, GradientDescent, GradientFlow
from dipkernels.theory.expansion import Expansion
from dipkernels.theory.growing import expand
from dipkernels.theory.linear import linear_fit
from dipkernels.theory.momentum import FrozenAdam, Momentum
from dipkernels.theory.scores import score
from dipkernels.theory.spectrum import KernelSpectrum, kernel_spectrum
from dipkernels.theory.unseen import unseen_error
from dipkernels.theory.wiener import covariance_spectrum, stationary_wiener

__all__ = [
    "Dynamics",
    "Expansion",
    "FrozenAdam",
    "GradientDescent",
    "GradientFlow",
    "KernelSpectrum",
    "Momentum",
    "PredictedPeak",
    "covariance_spectrum",
    "expand",
    "kernel_drift",
    "kernel_spectrum",
    "learning_curve",
    "linear_fit",
    "predicted_peak",
    "rank_agreement",
    "response_drift",
    "score",
    "stationary_wiener",
    "unseen_error",
]
