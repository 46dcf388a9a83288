"""How good a prior is for an image before any fit: scores from kernels, and how well they rank."""

from dipkernels.theory.score.agreement import rank_agreement
from dipkernels.theory.score.score import score
from dipkernels.theory.score.spectrum import (
    KernelSpectrum,
    PredictedPeak,
    kernel_spectrum,
    predicted_peak,
)
from dipkernels.theory.score.wiener import covariance_spectrum, stationary_wiener

__all__ = [
    "KernelSpectrum",
    "PredictedPeak",
    "covariance_spectrum",
    "kernel_spectrum",
    "predicted_peak",
    "rank_agreement",
    "score",
    "stationary_wiener",
]
