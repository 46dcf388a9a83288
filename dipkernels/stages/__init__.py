"""What is computed on a prior, a task and a seed, each step once, and the jobs made of steps.

`compare` holds fits of several priors against what their kernels predict, `audit` follows one fit
with the prediction all along the way. Names are imported when first used.
"""

import importlib
from typing import TYPE_CHECKING

_NAMES = {
    "DEFAULT_PRIORS": "comparison",
    "EFFORTS": "comparison",
    "STAGES": "comparison",
    "ComparisonSettings": "comparison",
    "Effort": "comparison",
    "audit": "audits",
    "compare": "comparison",
    "load_stages": "comparison",
    "make_priors": "comparison",
    "measure_kernel": "kernel",
    "plan_comparison": "comparison",
    "probe_spaces": "subject",
    "summary_row": "comparison",
}

__all__ = list(_NAMES)

if TYPE_CHECKING:
    from dipkernels.stages.audits import audit as audit
    from dipkernels.stages.comparison import DEFAULT_PRIORS as DEFAULT_PRIORS
    from dipkernels.stages.comparison import EFFORTS as EFFORTS
    from dipkernels.stages.comparison import STAGES as STAGES
    from dipkernels.stages.comparison import ComparisonSettings as ComparisonSettings
    from dipkernels.stages.comparison import Effort as Effort
    from dipkernels.stages.comparison import compare as compare
    from dipkernels.stages.comparison import load_stages as load_stages
    from dipkernels.stages.comparison import make_priors as make_priors
    from dipkernels.stages.comparison import plan_comparison as plan_comparison
    from dipkernels.stages.comparison import summary_row as summary_row
    from dipkernels.stages.kernel import measure_kernel as measure_kernel
    from dipkernels.stages.subject import probe_spaces as probe_spaces


def __getattr__(name: str) -> object:
    if name in _NAMES:
        return getattr(importlib.import_module(f"dipkernels.stages.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'dipkernels.stages' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
