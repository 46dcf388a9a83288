"""Fitting a prior to one measurement, or to many at once: the deep image prior."""

from dipkernels.fitting.checkpoint import load_parameters
from dipkernels.fitting.fit import FitInterrupted, fit
from dipkernels.fitting.optimisers import stable_learning_rate
from dipkernels.fitting.regularisers import total_variation
from dipkernels.fitting.settings import FitSettings

__all__ = [
    "FitInterrupted",
    "FitSettings",
    "fit",
    "load_parameters",
    "stable_learning_rate",
    "total_variation",
]
