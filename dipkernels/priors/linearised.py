"""A network's derivative as an operation that torch differentiates, batches and nests."""

from typing import Any

import torch
from torch import Tensor

from dipkernels.priors.tangents import Tangents


class JacobianProduct(torch.autograd.Function):
    """``J u``: linear, so that its derivative is itself, and its transpose ``J^T``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tangents: Tangents, *directions: Tensor) -> Tensor:
        """Multiply one direction, a tensor for each parameter."""
        image: Tensor = tangents.jvp_one(dict(zip(tangents.parameters, directions, strict=True)))
        return image

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the map."""
        ctx.tangents = inputs[0]

    @staticmethod
    def backward(ctx: Any, image: Tensor) -> Any:
        """Multiply by the transpose."""
        return (None, *_TransposedProduct.apply(ctx.tangents, image))

    @staticmethod
    def jvp(ctx: Any, _: None, *directions: Tensor | None) -> Any:
        """Multiply the tangents."""
        given = zip(ctx.tangents.parameters.values(), directions, strict=True)
        full = [torch.zeros_like(p) if d is None else d for p, d in given]
        return JacobianProduct.apply(ctx.tangents, *full)


class _TransposedProduct(torch.autograd.Function):
    """``J^T v``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(tangents: Tangents, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(tangents.vjp_one(image).values())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.tangents = inputs[0]

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> Any:
        return None, JacobianProduct.apply(ctx.tangents, *directions)

    @staticmethod
    def jvp(ctx: Any, _: None, image: Tensor) -> Any:
        return _TransposedProduct.apply(ctx.tangents, image)
