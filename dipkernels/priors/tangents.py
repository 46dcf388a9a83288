"""A network's derivative with respect to its parameters, traced once.

Why not `torch.func.linearize` alone: at every product it runs the network's own pass again, piece
by piece, and copies and detaches what it keeps. Traced, fused and folded, a tangent of ``skip``
takes 173 operations for 1283, one of ``vit`` 224 for 1167 (32x32, views not counted).
"""

import gc
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dipkernels.errors import InvalidInputError
from dipkernels.priors.folding import fold_constants
from dipkernels.priors.stateless import Parameters

logger = logging.getLogger(__name__)

ImageOf = Callable[[Parameters], Tensor]


class Tangents:
    """The derivative ``J`` of an image with respect to parameters, in blocks of columns."""

    def __init__(self, image_of: ImageOf, parameters: Parameters, chunk: int) -> None:
        self.parameters, self.chunk = parameters, chunk
        # In this order, and with what each leaves behind collected: the memory adds up.
        gc.collect()
        self.jvp_one = self._traced(image_of)
        image, self._vjp = vjp(image_of, parameters)  # type: ignore[misc]  # two, without aux
        self.image = image.detach()
        self.image_shape, self.size = tuple(image.shape), image.numel()
        self.dtype, self.device = image.dtype, image.device

    def vjp_one(self, image: Tensor) -> Parameters:
        """Multiply one image by ``J^T``."""
        gradients: Parameters = self._vjp(image)[0]
        return gradients

    def _traced(self, image_of: ImageOf) -> ImageOf:
        return tangent_map(image_of, self.parameters)

    def vjp(self, images: Float[Tensor, "n k"]) -> Parameters:
        """Multiply columns by ``J^T``: each result is of shape ``(k, ...)``."""
        if images.dim() != 2 or images.shape[0] != self.size or images.shape[1] < 1:
            raise InvalidInputError(
                f"expected flattened images, shape ({self.size}, k), got {tuple(images.shape)}"
            )
        blocks = images.T.reshape(-1, *self.image_shape)
        if len(blocks) == 1:  # batching one column costs 7 to 25 % on a CPU
            return {key: value.detach()[None] for key, value in self.vjp_one(blocks[0]).items()}
        return {key: value.detach() for key, value in vmap(self._vjp)(blocks)[0].items()}

    def jvp(self, tangents: Parameters) -> Float[Tensor, "n k"]:
        """Multiply directions, each of shape ``(k, ...)``, by ``J``: images, one a column."""
        if all(len(tangent) == 1 for tangent in tangents.values()):
            images = self.jvp_one({key: tangent[0] for key, tangent in tangents.items()})
        else:
            images = vmap(self.jvp_one)(tangents)
        return images.detach().reshape(-1, self.size).T

    def gradients(self, block: Float[Tensor, "n k"]) -> Iterator[Parameters]:
        """Multiply columns by ``J^T``, a chunk at a time."""
        for chunk in block.split(self.chunk, dim=-1):
            yield self.vjp(chunk)

    def unit_images(self, indices: Tensor) -> Float[Tensor, "n m"]:
        """Make images that are 1 at one pixel each, one a column."""
        units = torch.zeros(self.size, len(indices), dtype=self.dtype, device=self.device)
        units[indices.to(self.device), torch.arange(len(indices), device=self.device)] = 1
        return units


def tangent_map(image_of: ImageOf, parameters: Parameters) -> ImageOf:
    """Linearise a network at some parameters."""

    def tangent_of(*directions: Tensor) -> Tensor:
        with dual_level():
            pairs = zip(parameters.items(), directions, strict=True)
            duals = {key: make_dual(value, direction) for (key, value), direction in pairs}
            image, tangent = unpack_dual(image_of(duals))
            return torch.zeros_like(image) if tangent is None else tangent

    with warnings.catch_warnings(), torch.no_grad():
        # torch's tracing uses its own torch.jit
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        try:
            with _FusedTangents():
                traced = make_fx(tangent_of)(*map(torch.zeros_like, parameters.values()))
        except NotImplementedError as error:  # an operation without a forward-mode derivative
            logger.info(
                "products with the Jacobian take backward passes, at up to twice the cost: %s",
                str(error).split("\n")[0],
            )
            return _transposed_twice(image_of, parameters)
        folded = fold_constants(traced)

    def tangent(directions: Parameters) -> Tensor:
        image: Tensor = folded(*(directions[key] for key in parameters))
        return image

    return tangent


class _FusedTangents(TorchFunctionMode):
    """Write the tangents of normalisations and softmax with their fused backward kernels.

    BatchNorm and LayerNorm scale ``(I - 1 1^T / N - h h^T / N) x``, h the normalised x: a symmetric
    matrix, which their backward passes apply in one sweep. torch's own tangents take some ten
    sweeps over the image, a third of the time of a convolutional network's tangent pass, and keep
    three images of constants where this keeps one.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func is functional.layer_norm:
            return _layer_norm(*args, **kwargs)
        if func is functional.leaky_relu:
            return _leaky_relu(*args, **kwargs)
        if func in (functional.softmax, torch.softmax, Tensor.softmax) and len(args) < 3:
            return _softmax(func, *args, **kwargs)
        return func(*args, **kwargs)


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    (x0, dx), (w0, dw), (b0, db) = unpack_dual(x), _unpack(weight), _unpack(bias)
    statistics = (running_mean, running_var)
    if dx is None or not training or statistics != (None, None):
        return functional.batch_norm(x, *statistics, weight, bias, training, momentum, eps)
    h, mean, scale = torch.native_batch_norm(x0, None, None, None, None, True, 0.0, eps)
    gain = scale if w0 is None else scale * w0
    # of h the mean is 0, and its scale is in the gain
    zero, one = torch.zeros_like(mean), torch.ones_like(scale)
    tangent, _, _ = torch.ops.aten.native_batch_norm_backward(
        dx, h, gain, None, None, zero, one, True, eps, [True, False, False]
    )
    shape = (1, -1) + (1,) * (x0.dim() - 2)
    return _affine(h, tangent, (w0, dw), (b0, db), shape)


def _layer_norm(
    x: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    (x0, dx), (w0, dw), (b0, db) = unpack_dual(x), _unpack(weight), _unpack(bias)
    if dx is None:
        return functional.layer_norm(x, normalized_shape, weight, bias, eps)
    shape = list(normalized_shape)
    h, mean, scale = torch.native_layer_norm(x0, shape, None, None, eps)
    tangent, _, _ = torch.ops.aten.native_layer_norm_backward(
        dx, x0, shape, mean, scale, None, None, [True, False, False]
    )
    if w0 is not None:
        tangent = tangent * w0
    return _affine(h, tangent, (w0, dw), (b0, db), tuple(shape))


# The sign of the output tells that of the input, and is kept for the next layer anyway.
def _leaky_relu(x: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    x0, dx = unpack_dual(x)
    if dx is None or inplace or not negative_slope > 0:
        return functional.leaky_relu(x, negative_slope, inplace)
    out = functional.leaky_relu(x0, negative_slope)
    tangent = torch.ops.aten.leaky_relu_backward(dx, out, negative_slope, True)
    dual: Tensor = make_dual(out, tangent)
    return dual


# Its derivative ``diag(s) - s s^T`` is symmetric, too.
def _softmax(func: Any, x: Tensor, dim: int | None = None, **kwargs: Any) -> Tensor:
    x0, dx = unpack_dual(x)
    if dx is None or dim is None or kwargs:
        result: Tensor = func(x, dim, **kwargs)
        return result
    out = torch.softmax(x0, dim)
    tangent = torch.ops.aten._softmax_backward_data(dx, out, dim, x0.dtype)
    dual: Tensor = make_dual(out, tangent)
    return dual


# h * weight + bias with its tangent, given that of h in the units of the output.
def _affine(
    h: Tensor,
    tangent: Tensor,
    weight: tuple[Tensor | None, Tensor | None],
    bias: tuple[Tensor | None, Tensor | None],
    shape: tuple[int, ...],
) -> Tensor:
    (w0, dw), (b0, db) = weight, bias
    out = h if w0 is None else h * w0.reshape(shape)
    out = out if b0 is None else out + b0.reshape(shape)
    if dw is not None:
        tangent = torch.addcmul(tangent, h, dw.reshape(shape))
    if db is not None:
        tangent = tangent + db.reshape(shape)
    dual: Tensor = make_dual(out, tangent)
    return dual


def _unpack(tensor: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    return (None, None) if tensor is None else tuple(unpack_dual(tensor))


# J u as the derivative of v -> J^T v, which is linear in v: only backward passes are needed.
def _transposed_twice(image_of: ImageOf, parameters: Parameters) -> ImageOf:
    def backward(image: Tensor) -> Parameters:
        gradients: Parameters = vjp(image_of, parameters)[1](image)[0]
        return gradients

    with torch.no_grad():
        origin = torch.zeros_like(image_of(parameters))
    _, transposed = vjp(backward, origin)  # type: ignore[misc]  # two, without aux

    def tangent(tangents: Parameters) -> Tensor:
        image: Tensor = transposed(tangents)[0]
        return image

    return tangent
