"""Fitting a prior to one measurement, or to many at once: the deep image prior.

Names are imported when first used: a command reads the options of a fit without torch.
"""

from typing import TYPE_CHECKING

from dipkernels.base.lazy import imported_when_used

if TYPE_CHECKING:
    from dipkernels.fitting.checkpoint import load_adam_metric as load_adam_metric
    from dipkernels.fitting.checkpoint import load_parameters as load_parameters
    from dipkernels.fitting.fits import FitInterrupted as FitInterrupted
    from dipkernels.fitting.fits import fit as fit
    from dipkernels.fitting.optimisers import stable_learning_rate as stable_learning_rate
    from dipkernels.fitting.own import register_optimiser as register_optimiser
    from dipkernels.fitting.own import register_schedule as register_schedule
    from dipkernels.fitting.regularisers import total_variation as total_variation
    from dipkernels.fitting.settings import FitSettings as FitSettings
    from dipkernels.fitting.snapshots import snapshot_images as snapshot_images
    from dipkernels.fitting.summaries import Peak as Peak
    from dipkernels.fitting.summaries import peak as peak
    from dipkernels.fitting.summaries import summary as summary

_NAMES = {
    "FitInterrupted": "fits",
    "FitSettings": "settings",
    "Peak": "summaries",
    "fit": "fits",
    "load_adam_metric": "checkpoint",
    "load_parameters": "checkpoint",
    "peak": "summaries",
    "register_optimiser": "own",
    "register_schedule": "own",
    "snapshot_images": "snapshots",
    "stable_learning_rate": "optimisers",
    "summary": "summaries",
    "total_variation": "regularisers",
}
__all__ = [*_NAMES]

__getattr__, __dir__ = imported_when_used(__name__, _NAMES)
