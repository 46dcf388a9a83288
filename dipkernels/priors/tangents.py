"""A network's derivative with respect to its parameters, traced once.

Why not `torch.func.linearize` alone: at every product it runs the network's own pass again, piece
by piece, and copies and detaches what it keeps. Traced, fused and folded, a tangent of ``skip``
takes 173 operations for 1283, one of ``vit`` 224 for 1167 (32x32, views not counted).
"""

import gc
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual
from torch.func import jvp, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from dipkernels.base.memory import collect_if_grown, collected
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.priors.backward import double_backward, infinite_slope, plain_operations
from dipkernels.priors.folding import fold_constants
from dipkernels.priors.stateless import Parameters

logger = logging.getLogger(__name__)

ImageOf = Callable[[Parameters], Tensor]

# Rounding moves them apart by less, in every registered network.
AGREEMENT = {torch.float64: 1e-8, torch.float32: 1e-3}
ROUGHLY = 0.1  # in half precision
SINGLE = 1e-5  # where a network of float64 takes a step in float32, as some normalisations do


class Tangents:
    """The derivative ``J`` of an image with respect to parameters, in blocks of columns.

    Tracing takes as long as some hundred products, each of which is half as long again untraced.
    """

    def __init__(
        self, image_of: ImageOf, parameters: Parameters, chunk: int, *, traced: bool = True
    ) -> None:
        self.parameters, self.chunk, self._trace = parameters, chunk, traced
        self._batches = self._functional = True
        if traced and next(iter(parameters.values())).is_cpu:
            collect_if_grown()
        elif traced:
            gc.collect()
        try:
            self._differentiate(image_of)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever torch.func can't do
            self._differentiate_plainly(image_of, error)
        self.image_shape, self.size = tuple(self.image.shape), self.image.numel()
        self.dtype, self.device = self.image.dtype, self.image.device

    # In this order, and with what each leaves behind collected: the memory adds up.
    def _differentiate(self, image_of: ImageOf) -> None:
        self.jvp_one = self._traced(image_of)
        image, self._vjp = vjp(image_of, self.parameters)  # type: ignore[misc]  # two, without aux
        self.image = image.detach()

    def _differentiate_plainly(self, image_of: ImageOf, error: Exception) -> None:
        logger.info("torch.func can't differentiate this network: %s", error)
        try:
            with plain_operations():
                self._differentiate(image_of)
            return
        except torch.OutOfMemoryError:
            raise
        except Exception as again:  # whatever torch.func can't do
            logger.info("nor by plain operations: %s", again)
        road = double_backward(image_of, self.parameters)
        self.image, self._vjp, self.jvp_one = road.image, road.vjp, road.jvp
        self._batches = self._functional = False
        warnings.warn(
            "torch.func can't differentiate this network; products with its kernel take ordinary "
            "double backward passes, one column at a time, which is slower "
            f"({_first_line(error)})",
            stacklevel=4,
        )

    def require_adjoint(self, image_of: ImageOf) -> None:
        """Check that both passes are of one Jacobian: ``v . J J^T v = |J^T v|^2``."""
        # Where a forward-mode derivative differs, the backward pass is what training follows.
        apart = self._disagreement()
        if self._agrees(apart):
            return
        if self._functional:
            logger.info("forward mode differs from the backward pass, which is used alone")
            self.jvp_one = _transposed_twice(image_of, self.parameters)
            apart = self._disagreement()
        if not math.isfinite(apart):
            raise DivergenceError(
                "the derivative of the image by the parameters isn't finite"
                f"{infinite_slope(image_of, self.parameters)}; a kernel is the network's "
                "linearisation, which it doesn't have here: keep the operation away from this "
                "value, sqrt(x + 1e-6) for sqrt(x)"
            )
        if self.dtype == torch.float64 and AGREEMENT[torch.float64] < apart <= SINGLE:
            warnings.warn(
                f"products with the kernel agree to {apart:.1g} only, as a part of the network "
                "computes in single precision",
                stacklevel=4,
            )
        elif not self._agrees(apart):
            raise InvalidInputError(
                "products with the Jacobian of this network and with its transpose disagree by "
                f"{100 * apart:.2g} %: an operation's backward pass can't be differentiated in its "
                "turn (torch.cond, once_differentiable), or the precision is too low, which "
                "prior.to(dtype=torch.float64) cures"
            )

    def _agrees(self, apart: float) -> bool:
        return apart <= AGREEMENT.get(self.dtype, ROUGHLY)

    def _disagreement(self) -> float:
        rng = torch.Generator().manual_seed(0)
        v = torch.randn(self.image_shape, generator=rng).to(self.device, self.dtype)
        gradients = self.vjp_one(v)
        both = float((v.double() * self.jvp_one(gradients).double()).sum())
        form = sum(float(g.double().square().sum()) for g in gradients.values())
        return abs(both - form) / max(form, torch.finfo(self.dtype).tiny)

    def vjp_one(self, image: Tensor) -> Parameters:
        """Multiply one image by ``J^T``."""
        gradients: Parameters = self._vjp(image)[0]
        return gradients

    def _traced(self, image_of: ImageOf) -> ImageOf:
        linearise = tangent_map if self._trace else untraced_map
        return linearise(image_of, self.parameters)

    def vjp(self, images: Float[Tensor, "n k"]) -> Parameters:
        """Multiply columns by ``J^T``: each result is of shape ``(k, ...)``."""
        if images.dim() != 2 or images.shape[0] != self.size or images.shape[1] < 1:
            raise InvalidInputError(
                f"expected flattened images, shape ({self.size}, k), got {tuple(images.shape)}"
            )
        blocks = images.T.reshape(-1, *self.image_shape)
        if len(blocks) == 1:  # batching one column costs 7 to 25 % on a CPU
            return {key: value.detach()[None] for key, value in self.vjp_one(blocks[0]).items()}
        found = self._batched(lambda: vmap(self._vjp)(blocks)[0])
        if found is None:
            each = [self.vjp_one(block) for block in blocks]
            found = {key: torch.stack([one[key] for one in each]) for key in self.parameters}
        return {key: value.detach() for key, value in found.items()}

    def jvp(self, tangents: Parameters) -> Float[Tensor, "n k"]:
        """Multiply directions, each of shape ``(k, ...)``, by ``J``: images, one a column."""
        columns = len(next(iter(tangents.values())))
        found = None if columns == 1 else self._batched(lambda: vmap(self.jvp_one)(tangents))
        if found is None:
            each = ({key: value[i] for key, value in tangents.items()} for i in range(columns))
            found = torch.stack([self.jvp_one(one) for one in each])
        images: Tensor = found
        return images.detach().reshape(-1, self.size).T

    # None, and from then on, for a network with an operation that torch can't batch.
    def _batched(self, product: Callable[[], Any]) -> Any:
        if self._batches:
            try:
                return product()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                logger.info("products are made one by one: %s", _first_line(error))
                self._batches = False
        return None

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

    # With gradients enabled, so that a network that disables them for a while is seen to.
    with warnings.catch_warnings(), collected(), torch.enable_grad():
        # torch's tracing uses its own torch.jit
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
        try:
            with _FusedTangents():
                traced = make_fx(tangent_of)(*map(torch.zeros_like, parameters.values()))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # such as an operation without a forward-mode derivative
            _say_backward(error)
            return _transposed_twice(image_of, parameters)
        with torch.no_grad():
            folded = fold_constants(traced)
        del traced

    def tangent(directions: Parameters) -> Tensor:
        image: Tensor = folded(*(directions[key] for key in parameters))
        return image

    return tangent


def untraced_map(image_of: ImageOf, parameters: Parameters) -> ImageOf:
    """Linearise a network at some parameters, for a few products."""
    otherwise: list[ImageOf] = []

    def tangent(directions: Parameters) -> Tensor:
        if not otherwise:
            try:
                # Not dual_level: within an autograd.Function forward mode is off.
                with torch.no_grad():
                    image: Tensor = jvp(image_of, (parameters,), (directions,))[1]
                    return image
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # such as an operation without a forward-mode derivative
                _say_backward(error)
                otherwise.append(_transposed_twice(image_of, parameters))
        return otherwise[0](directions)

    return tangent


def _say_backward(error: Exception) -> None:
    logger.info(
        "products with the Jacobian take backward passes, at up to twice the cost: %s",
        _first_line(error),
    )


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
        if func is torch._C._set_grad_enabled:  # torch.no_grad() doesn't stop tangents by itself
            torch._C._set_fwd_grad_enabled(args[0])
        if not torch._C._is_fwd_grad_enabled():
            return func(*args, **kwargs)
        if func is functional.batch_norm:
            return _batch_norm(*args, **kwargs)
        if func is functional.group_norm:
            return _group_norm(*args, **kwargs)
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


# As the two above. torch's own tangent fails on an input that isn't contiguous.
def _group_norm(
    x: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    (x0, dx), (w0, dw), (b0, db) = unpack_dual(x), _unpack(weight), _unpack(bias)
    if dx is None:
        return functional.group_norm(x, num_groups, weight, bias, eps)
    x0, dx, (n, c), size = x0.contiguous(), dx.contiguous(), x0.shape[:2], x0[0, 0].numel()
    h, mean, scale = torch.native_group_norm(x0, None, None, n, c, size, num_groups, eps)
    tangent, _, _ = torch.ops.aten.native_group_norm_backward(
        dx, x0, mean, scale, None, n, c, size, num_groups, [True, False, False]
    )
    shape = (1, -1) + (1,) * (x0.dim() - 2)
    tangent = tangent if w0 is None else tangent * w0.reshape(shape)
    return _affine(h, tangent, (w0, dw), (b0, db), shape)


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

    tangent({key: torch.zeros_like(p) for key, p in parameters.items()})  # fails now, if it does
    return tangent


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0][:200]
