"""Plans: memory, products and seconds of a computation, before anything of it runs."""

from dipkernels.planning.planner import plan
from dipkernels.planning.plans import Plan

__all__ = [
    "Plan",
    "plan",
]
