"""Fitting a prior to one measurement: the deep image prior."""

from dipkernels.fitting.fit import FitInterrupted, fit
from dipkernels.fitting.optimisers import stable_learning_rate

__all__ = ["FitInterrupted", "fit", "stable_learning_rate"]
