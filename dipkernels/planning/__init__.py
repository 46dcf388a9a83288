"""Plans: memory, products and seconds of a computation, before anything of it runs."""

from dipkernels.planning.planner import plan
from dipkernels.planning.plans import Plan, readable_bytes, readable_seconds

__all__ = ["Plan", "plan", "readable_bytes", "readable_seconds"]
