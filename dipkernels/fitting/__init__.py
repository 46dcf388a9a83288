"""Fitting a prior to one measurement, or to many at once: the deep image prior."""

from dipkernels.fitting.checkpoint import load_adam_metric, load_parameters
from dipkernels.fitting.fit import FitInterrupted, fit
from dipkernels.fitting.optimisers import stable_learning_rate
from dipkernels.fitting.regularisers import total_variation
from dipkernels.fitting.settings import FitSettings
from dipkernels.fitting.stopping import format_panel, stopping_panel
from dipkernels.fitting.summary import Peak, peak, summary

__all__ = [
    "FitInterrupted",
    "FitSettings",
    "Peak",
    "fit",
    "format_panel",
    "load_adam_metric",
    "load_parameters",
    "peak",
    "stable_learning_rate",
    "stopping_panel",
    "summary",
    "total_variation",
]
