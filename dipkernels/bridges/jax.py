"""The empirical tangent kernel of a JAX function, as an operator of ours.

`JaxNTK` takes ``apply(parameters, code) -> image`` of any JAX library (Flax, Equinox, Haiku,
``stax``, plain functions). Whatever takes an `NTK` takes it: products, eigenpairs, densities,
responses by frequency, kernels of layers, predicted curves. Needs the extra ``jax``.
"""

import functools
import importlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from dipkernels.base.checks import checked
from dipkernels.errors import (
    DivergenceError,
    InvalidInputError,
    MissingExtraError,
    install_command,
)
from dipkernels.kernels import NTK, select_parameters
from dipkernels.kernels.metric import Metric, check_metric
from dipkernels.priors import Parameters
from dipkernels.priors.memory import DEFAULT_BUDGET, parameter_bytes
from dipkernels.priors.tangents import Tangents

__all__ = ["JaxFunction", "JaxNTK", "tensors_of"]

logger = logging.getLogger(__name__)
DTYPES = ("float32", "float64")
ALIGNED = 64  # bytes


@checked
@dataclass(frozen=True)
class JaxFunction:
    """What a JAX function is, in the words of an `ImagePrior`.

    Attributes
    ----------
    name : str
        For tables and messages.
    shape : tuple of int
        Of its image, ``(channels, *spatial)``.
    parameter_shapes : dict of str to tuple of int
        Of all parameters, by the path in their tree.
    dtype, device
        Of parameters and image.
    """

    name: str
    shape: tuple[int, ...]
    parameter_shapes: dict[str, tuple[int, ...]]
    dtype: torch.dtype
    device: torch.device


@checked
class JaxNTK(NTK):
    """Empirical neural tangent kernel ``Theta = J M J^T`` of a JAX function at given parameters.

    The function is linearised once, by `jax.linearize` and `jax.vjp`; products are compiled. See
    `dipkernels.kernels.NTK`, whose methods it has, for what can be asked of it. Vectors, images and
    parameters are torch tensors, on the device of the JAX arrays, without a copy where that is
    possible.

    Parameters
    ----------
    apply : callable
        ``apply(parameters, code)``, pure and differentiable; returns an image
        ``(channels, *spatial)``, or ``(1, channels, height, width)``.
    parameters : tree of jax.Array
        Where to linearise: any pytree whose leaves are arrays of one type, float32 or float64. Of
        an Equinox module take the arrays, ``equinox.partition(model, equinox.is_inexact_array)``,
        and let `apply` combine them.
    code : tree of jax.Array
        What `apply` is called with; a constant.
    channels_last : bool
        Whether the image's last axis is the channels', as Flax has it.
    metric : dict of str to Tensor, or callable, optional
        As of `NTK`, by the names of `parameters`.
    layers : str or sequence of str, optional
        As of `NTK`: names, or patterns such as ``"*.bias"``. Names are the paths in the tree,
        joined by dots: ``"params.Conv_0.kernel"``, ``"0.1"``.
    name : str, optional
        For tables; by default that of `apply`.
    memory_budget : int
        Bytes that one block of products may take beyond what the linearisation holds.

    Raises
    ------
    MissingExtraError
        If JAX isn't there.
    InvalidInputError
        If a parameter isn't a floating-point array, types differ, the result is no image, or JAX
        can't differentiate the function.
    DivergenceError
        If a parameter, the metric or the image isn't finite.

    Notes
    -----
    Time of a product: 4/3 training steps by its operations; ``benchmarks/jax_products.py`` measures
    it. A block of columns is cut into powers of two, each of which is compiled once, in seconds for
    convolutions. Memory: twice what a forward pass keeps for its backward pass. A function with
    `jax.custom_vjp`, which has no forward mode, is transposed twice. float64 works whether or not
    JAX's own setting for it is on.

    Examples
    --------
    >>> import jax
    >>> def apply(parameters, code):
    ...     return jax.numpy.tanh(parameters["w"] @ code + parameters["b"])
    >>> code = jax.random.normal(jax.random.PRNGKey(0), (5, 12))
    >>> ntk = JaxNTK(apply, {"w": jax.numpy.ones((2, 5)), "b": jax.numpy.zeros((2, 1))}, code)
    >>> ntk.shape, (ntk @ torch.ones(24)).shape, sorted(ntk.by_layer().names)
    ((24, 24), torch.Size([24]), ['b', 'w'])
    """

    prior: JaxFunction  # type: ignore[assignment]  # of which a kernel needs the name and the shapes

    @checked
    def __init__(
        self,
        apply: Callable[[Any, Any], Any],
        parameters: Any,
        code: Any,
        *,
        channels_last: bool = False,
        metric: Metric | None = None,
        layers: str | Sequence[str] | None = None,
        name: str | None = None,
        memory_budget: int = DEFAULT_BUDGET,
    ) -> None:
        jax = _jax()
        leaves, tree = _leaves(jax, parameters)
        names = list(leaves)
        chosen = names if layers is None else select_parameters(names, layers)
        fixed = {key: value for key, value in leaves.items() if key not in chosen}

        def image_of(variable: list[Any], constant: dict[str, Any], given: Any) -> Any:
            every = {**constant, **dict(zip(chosen, variable, strict=True))}
            whole = jax.tree_util.tree_unflatten(tree, [every[key] for key in names])
            return _image(jax, apply(whole, given), channels_last)

        tangents = _JaxTangents(
            jax,
            lambda variable: image_of(variable, fixed, code),
            {key: leaves[key] for key in chosen},
            memory_budget,
        )
        self.parameters, self.codes = tangents.parameters, None
        self._fixed = {key: _to_torch(jax, value) for key, value in fixed.items()}
        self.metric = None if metric is None else check_metric(metric, self.parameters)
        self.image_shape, self.image = tangents.image_shape, tangents.image
        shapes = {key: tuple(value.shape) for key, value in leaves.items()}
        called = name or str(getattr(apply, "__name__", type(apply).__name__))
        dtype, device = tangents.dtype, tangents.device
        self.prior = JaxFunction(called, self.image_shape, shapes, dtype, device)
        self._hold(tangents, memory_budget)
        if not self.image.isfinite().all():
            raise DivergenceError(f"the image of {called} at these parameters is not finite")

    def __repr__(self) -> str:
        return f"Jax{super().__repr__()}"


class _JaxTangents(Tangents):
    """The derivative of a JAX function, compiled, between torch tensors."""

    def __init__(
        self,
        jax: Any,
        image_of: Callable[[list[Any]], Any],
        parameters: dict[str, Any],
        memory_budget: int,
    ) -> None:
        self._jax = jax
        values = list(parameters.values())
        self._double = str(values[0].dtype) == "float64"
        self.parameters = {key: _to_torch(jax, value) for key, value in parameters.items()}
        # what is kept comes in as an argument: closed over, it would be compiled as constants
        self._one = jax.jit(lambda linear, given: linear(given))
        self._many = jax.jit(lambda linear, given: jax.vmap(linear)(given))
        with self._precision():
            image, self._back, self._ahead = _linearised(jax, image_of, values, self._one)
            kept = sum(x.nbytes for x in jax.tree_util.tree_leaves(self._back))
            self.image = _to_torch(jax, image).clone()
        if self.image.dtype != next(iter(self.parameters.values())).dtype:
            raise InvalidInputError(
                f"the image is {image.dtype}, the parameters are {values[0].dtype}: they must be "
                "of one type, so convert the code"
            )
        self.image_shape, self.size = tuple(self.image.shape), self.image.numel()
        self.dtype, self.device = self.image.dtype, self.image.device
        column = kept + parameter_bytes(self.parameters)
        self.chunk = max(1, memory_budget // max(1, column))

    def vjp_one(self, image: Tensor) -> Parameters:
        """Multiply one image by ``J^T``."""
        return {key: value[0] for key, value in self.vjp(image.reshape(-1, 1)).items()}

    def jvp_one(self, tangents: Parameters) -> Tensor:
        """Multiply one direction by ``J``."""
        rows = {key: value[None] for key, value in tangents.items()}
        return self.jvp(rows).reshape(self.image_shape)

    def vjp(self, images: Float[Tensor, "n k"]) -> Parameters:
        """Multiply columns by ``J^T``: each result is of shape ``(k, ...)``."""
        if images.dim() != 2 or images.shape[0] != self.size or images.shape[1] < 1:
            raise InvalidInputError(
                f"expected flattened images, shape ({self.size}, k), got {tuple(images.shape)}"
            )
        rows = images.T.reshape(-1, *self.image_shape)
        parts = [self._apply(self._back, [rows[each]]) for each in _powers(len(rows))]
        joined = [
            torch.cat(part) if len(part) > 1 else part[0] for part in zip(*parts, strict=True)
        ]
        return dict(zip(self.parameters, joined, strict=True))

    def jvp(self, tangents: Parameters) -> Float[Tensor, "n k"]:
        """Multiply directions, each of shape ``(k, ...)``, by ``J``: images, one a column."""
        rows = [tangents[key].to(self.device, self.dtype) for key in self.parameters]
        parts = [
            self._apply(self._ahead, [row[each] for row in rows])[0]
            for each in _powers(len(rows[0]))
        ]
        return torch.cat(parts).reshape(-1, self.size).T

    def _apply(self, linear: Any, rows: list[Tensor]) -> list[Tensor]:
        jax, single = self._jax, len(rows[0]) == 1
        with self._precision():
            given = [_to_jax(jax, row[0] if single else row) for row in rows]
            found = jax.block_until_ready((self._one if single else self._many)(linear, given))
            images = [_to_torch(jax, value) for value in found]
        return [image[None] for image in images] if single else images

    def _precision(self) -> AbstractContextManager[Any]:
        if not self._double:
            return nullcontext()
        jax = self._jax
        owner = jax if hasattr(jax, "enable_x64") else jax.experimental  # where older ones have it
        context: AbstractContextManager[Any] = owner.enable_x64(True)
        return context


@checked
def tensors_of(parameters: Any) -> Parameters:
    """Name the parameters of a JAX function, as `JaxNTK` does.

    Parameters
    ----------
    parameters : tree of jax.Array
        Any pytree of floating-point arrays.

    Returns
    -------
    dict of str to Tensor
        By the path in the tree, joined by dots; without a copy where that is possible.

    Raises
    ------
    MissingExtraError
        If JAX isn't there.
    InvalidInputError
        If a leaf isn't a floating-point array, or types differ.
    DivergenceError
        If one holds NaN or infinity.

    Examples
    --------
    >>> import jax
    >>> {k: tuple(v.shape) for k, v in tensors_of([(jax.numpy.ones(3),), ()]).items()}
    {'0.0': (3,)}
    """
    jax = _jax()
    return {key: _to_torch(jax, value) for key, value in _leaves(jax, parameters)[0].items()}


def _jax() -> Any:
    try:
        importlib.import_module("jax.experimental")
        return importlib.import_module("jax")
    except Exception as error:  # a jaxlib of another version fails in ways of its own
        raise MissingExtraError(
            f"JAX can't be imported ({type(error).__name__}: {error}): {install_command('jax')}"
        ) from error


def _leaves(jax: Any, parameters: Any) -> tuple[dict[str, Any], Any]:
    """Take a tree of parameters apart: arrays by their path, and the tree."""
    pairs, tree = jax.tree_util.tree_flatten_with_path(parameters)
    named: dict[str, Any] = {}
    for path, value in pairs:
        key = ".".join(_step(entry) for entry in path) or "parameters"
        kind = str(getattr(value, "dtype", type(value).__name__))
        if not isinstance(value, jax.Array) or kind not in DTYPES:
            raise InvalidInputError(
                f"parameter '{key}' is {kind}: the kernel is of a tree of JAX arrays of float32 or "
                "float64; keep what isn't trained out of it (equinox.partition, or a closure)"
            )
        if key in named:
            raise InvalidInputError(f"two parameters have the path '{key}': rename one of them")
        if not _to_torch(jax, value).isfinite().all():
            raise DivergenceError(f"parameter '{key}' holds NaN or infinity")
        named[key] = value
    kinds = sorted({str(value.dtype) for value in named.values()})
    if len(kinds) != 1:
        raise InvalidInputError(
            f"the parameters must be of one type, got {', '.join(kinds) or 'none at all'}"
        )
    return named, tree


def _step(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _image(jax: Any, out: Any, channels_last: bool) -> Any:
    """Bring what a function returns to ``(channels, *spatial)``."""
    shape = tuple(getattr(out, "shape", ()))
    if len(shape) == 4 and shape[0] == 1:
        out, shape = out[0], shape[1:]
    if len(shape) not in (2, 3) or not math.prod(shape):
        wanted = "(*spatial, channels)" if channels_last else "(channels, *spatial)"
        raise InvalidInputError(
            f"the function returned {type(out).__name__} of shape {shape}; expected one image "
            f"{wanted}, of one or two axes of pixels, or with a batch axis of 1 before it if there "
            "are two"
        )
    return jax.numpy.moveaxis(out, -1, 0) if channels_last else out


def _linearised(
    jax: Any, image_of: Callable[[list[Any]], Any], values: list[Any], compiled: Any
) -> tuple[Any, Any, Any]:
    """Linearise: the image, ``v -> [J^T v]`` and ``[u] -> [J u]``, of lists of arrays."""
    partial = jax.tree_util.Partial
    # compiled as a whole: one operation after the other, JAX compiles each
    try:
        image, back = jax.jit(lambda at: jax.vjp(image_of, at))(values)
    except (TypeError, ValueError, NotImplementedError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(
            f"the function failed on this code, or JAX can't differentiate it: {error}"
        ) from error
    try:
        linear = jax.jit(lambda at: jax.linearize(image_of, at)[1])(values)
        ahead = partial(_listed, linear)
        compiled.lower(ahead, values)  # what has no forward mode may say so only here
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise InvalidInputError(f"JAX can't differentiate this function: {error}") from error
        logger.info("the function has a custom_vjp: its derivative is transposed twice")
        shape = jax.ShapeDtypeStruct(image.shape, image.dtype)
        ahead = partial(functools.partial(_transposed, jax.linear_transpose, shape), back)
    return image, partial(_first, back), ahead


def _first(back: Any, given: list[Any]) -> Any:
    return back(given[0])[0]


def _listed(ahead: Any, given: list[Any]) -> list[Any]:
    return [ahead(given)]


def _transposed(transpose: Any, shape: Any, back: Any, given: list[Any]) -> list[Any]:
    return [transpose(lambda image: back(image)[0], shape)(given)[0]]


def _powers(count: int) -> Iterator[slice]:
    """Cut a number of columns into powers of two, largest first: few sizes are ever compiled."""
    start = 0
    while start < count:
        size = 1 << ((count - start).bit_length() - 1)
        yield slice(start, start + size)
        start += size


def _to_torch(jax: Any, value: Any) -> Tensor:
    return from_dlpack(jax.block_until_ready(value))


def _to_jax(jax: Any, tensor: Tensor) -> Any:
    tensor = tensor.detach().contiguous()
    # XLA copies what isn't aligned, and some versions complain
    return jax.dlpack.from_dlpack(tensor.clone() if tensor.data_ptr() % ALIGNED else tensor)
