"""Sample the posterior of a network's parameters, with the target stated, and judge the result."""

from dipkernels.sampling import uncertainty
from dipkernels.sampling.alternatives import deep_ensemble, linearised
from dipkernels.sampling.chains import SamplingInterrupted
from dipkernels.sampling.diagnostics import Verdict, diagnose, summary, to_inference_data, verdict
from dipkernels.sampling.fits import averaged, gp_dip, mc_dropout
from dipkernels.sampling.posterior import (
    Posterior,
    WeightPrior,
    initialisation_prior,
    isotropic_prior,
    weight_decay_prior,
)
from dipkernels.sampling.samplers import sample
from dipkernels.sampling.schedules import step_factor
from dipkernels.sampling.settings import ChainSettings
from dipkernels.sampling.steps import psgld_step, sghmc_step, sgld_step

__all__ = [
    "ChainSettings",
    "Posterior",
    "SamplingInterrupted",
    "Verdict",
    "WeightPrior",
    "averaged",
    "deep_ensemble",
    "diagnose",
    "gp_dip",
    "initialisation_prior",
    "isotropic_prior",
    "linearised",
    "mc_dropout",
    "psgld_step",
    "sample",
    "sghmc_step",
    "sgld_step",
    "step_factor",
    "summary",
    "to_inference_data",
    "uncertainty",
    "verdict",
    "weight_decay_prior",
]
