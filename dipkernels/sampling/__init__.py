"""Sample the posterior of a network's parameters, with the target stated, and judge the result.

Names are imported when first used: a command reads the options of chains without torch.
"""

from typing import TYPE_CHECKING

from dipkernels.base.lazy import imported_when_used

if TYPE_CHECKING:
    from dipkernels.sampling import conformal as conformal
    from dipkernels.sampling import uncertainty as uncertainty
    from dipkernels.sampling.alternatives import deep_ensemble as deep_ensemble
    from dipkernels.sampling.alternatives import linearised as linearised
    from dipkernels.sampling.chains import SamplingInterrupted as SamplingInterrupted
    from dipkernels.sampling.diagnostics import diagnose as diagnose
    from dipkernels.sampling.diagnostics import summary as summary
    from dipkernels.sampling.diagnostics import to_inference_data as to_inference_data
    from dipkernels.sampling.diagnostics import verdict as verdict
    from dipkernels.sampling.fits import averaged as averaged
    from dipkernels.sampling.fits import gp_dip as gp_dip
    from dipkernels.sampling.fits import mc_dropout as mc_dropout
    from dipkernels.sampling.posterior import WeightPosterior as WeightPosterior
    from dipkernels.sampling.posterior import WeightPrior as WeightPrior
    from dipkernels.sampling.posterior import isotropic_prior as isotropic_prior
    from dipkernels.sampling.posterior import weight_decay_prior as weight_decay_prior
    from dipkernels.sampling.samplers import sample as sample
    from dipkernels.sampling.settings import ChainSettings as ChainSettings
    from dipkernels.sampling.steps import register_sampler as register_sampler

_NAMES = {
    "ChainSettings": "settings",
    "SamplingInterrupted": "chains",
    "WeightPosterior": "posterior",
    "WeightPrior": "posterior",
    "averaged": "fits",
    "deep_ensemble": "alternatives",
    "diagnose": "diagnostics",
    "gp_dip": "fits",
    "isotropic_prior": "posterior",
    "linearised": "alternatives",
    "mc_dropout": "fits",
    "register_sampler": "steps",
    "sample": "samplers",
    "summary": "diagnostics",
    "to_inference_data": "diagnostics",
    "verdict": "diagnostics",
    "weight_decay_prior": "posterior",
}
__all__ = [*_NAMES, "conformal", "uncertainty"]

__getattr__, __dir__ = imported_when_used(__name__, _NAMES, ("conformal", "uncertainty"))
