"""Infinite-width kernels read off a torch module."""

from dipkernels.kernels.infinite.limit import InfiniteWidth, infinite_width, register_activation
from dipkernels.kernels.infinite.reader import Operation

__all__ = ["InfiniteWidth", "Operation", "infinite_width", "register_activation"]
