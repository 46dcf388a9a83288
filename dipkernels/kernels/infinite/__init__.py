"""Infinite-width kernels read off a torch module."""

from dipkernels.kernels.infinite.limit import InfiniteWidth, infinite_width, register_activation

__all__ = ["InfiniteWidth", "infinite_width", "register_activation"]
