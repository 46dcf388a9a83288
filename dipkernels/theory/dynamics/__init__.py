"""How an error along an eigenvector of the kernel shrinks with time, by optimiser."""

from dipkernels.theory.dynamics.base import Dynamics
from dipkernels.theory.dynamics.gradient import GradientDescent, GradientFlow
from dipkernels.theory.dynamics.momentum import FrozenAdam, Momentum

__all__ = ["Dynamics", "FrozenAdam", "GradientDescent", "GradientFlow", "Momentum"]
