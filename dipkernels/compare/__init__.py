"""The main job: fit several priors to one image, measure their kernels, and predict the fits.

For each prior: a fit with Adam; the kernel at initialisation (spectral density, leading
eigenpairs, frequency response); the fit that this kernel predicts; and a fit by plain gradient
descent, of which the theory speaks.
"""

from dipkernels.compare.plan import Plan, plan_comparison
from dipkernels.compare.run import STAGES, compare, load_stages, make_priors, run_prior, summary_row
from dipkernels.compare.settings import DEFAULT_PRIORS, EFFORTS, Effort, Settings
from dipkernels.stages.kernel import measure_kernel
from dipkernels.stages.subject import probe_spaces

__all__ = [
    "DEFAULT_PRIORS",
    "EFFORTS",
    "STAGES",
    "Effort",
    "Plan",
    "Settings",
    "compare",
    "load_stages",
    "make_priors",
    "measure_kernel",
    "plan_comparison",
    "probe_spaces",
    "run_prior",
    "summary_row",
]
