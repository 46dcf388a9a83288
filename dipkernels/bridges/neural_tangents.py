"""A bridge to neural-tangents: the same kernels by another library, where that is installed.

`infinite_width` here builds the network in `neural_tangents.stax` and takes its analytic kernels,
with which `dipkernels.kernels.infinite_width` is compared. `dense_kernel` takes a user's own
`kernel_fn`. Needs the extra ``neural-tangents``.
"""

import importlib
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError, MissingExtraError, install_command
from dipkernels.kernels import DenseKernel
from dipkernels.kernels.infinite.weights import Initialisations, initial_variance
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.networks.layers import Sine
from dipkernels.priors import ImagePrior

__all__ = ["dense_kernel", "infinite_width", "require"]

AXES = {1: "NWC", 2: "NHWC"}


@checked
def infinite_width(prior: ImagePrior, code: StationaryKernel, *, seed: int = 0) -> StationaryKernel:
    """Let neural-tangents compute the kernels of a circular convolutional network.

    Parameters
    ----------
    prior : ImagePrior
        Whose module is an `nn.Sequential`, nested or not, of convolutions with circular padding
        (or of size 1), ReLU, LeakyReLU, GELU, Sine, average pooling over blocks, and Identity.
    code : StationaryKernel
        Covariance of the code, stationary.
    seed : int
        Of the initialisations on which the variances of the weights are measured.

    Returns
    -------
    StationaryKernel
        In the NTK parameterisation.

    Raises
    ------
    MissingExtraError
        If neural-tangents isn't there, or doesn't import.
    InvalidInputError
        If the module has a layer that isn't one of those, or the code isn't stationary.

    Notes
    -----
    Memory: 16 bytes times the square of the number of pixels, several times: for small grids.
    jax computes in float64 meanwhile; its settings are left as they were. Source: Novak et al.
    2020, "Neural Tangents".
    """
    jax, stax = require()
    if math.prod(code.period) > 1:
        raise InvalidInputError(f"the code's kernel must be stationary, this is {code}")
    draws = Initialisations(prior, seed)
    layers = [_layer(stax, part, name, draws) for name, part in _leaves(prior.structure)]
    with jax.experimental.enable_x64():
        _, _, kernel_fn = stax.serial(*layers)
        inputs = jax.numpy.asarray(_code_of(code)[None])
        found = kernel_fn(inputs, None, diagonal_spatial=False)
        found = found.reverse() if found.is_reversed else found  # stax may swap the axes inside
        nngp, ntk = (np.array(table[0, 0]) for table in (found.nngp, found.ntk))
    return StationaryKernel.from_lags(*(_lags(table, code.dims) for table in (nngp, ntk)))


@checked
def dense_kernel(kernel_fn: Callable[..., Any], code: Tensor) -> DenseKernel:
    """Evaluate a `kernel_fn` of neural-tangents between all pixels of an image.

    Parameters
    ----------
    kernel_fn : callable
        The third result of `neural_tangents.stax.serial` and the like, of a network that makes an
        image: attention, zero padding, LayerNorm and all else that stax knows.
    code : Tensor, shape ``(1, channels, *grid)``
        What the network takes, as an `ImagePrior` has it; stax gets its channels last.

    Returns
    -------
    DenseKernel
        Of each channel of the image, in float64: for Gaussian processes, spectra, and by its
        `prior` for predicted curves and scores.

    Raises
    ------
    MissingExtraError
        If neural-tangents isn't there, or doesn't import.
    InvalidInputError
        If the code has other axes, or what the network makes has no axes of pixels.

    Notes
    -----
    In the parameterisation of the layers. Memory: 16 bytes times the square of the number of
    pixels, several times. jax computes in float64 meanwhile; its settings are left as they were.
    """
    if code.dim() not in (3, 4) or len(code) != 1:
        raise InvalidInputError(
            f"expected a code (1, channels, *grid) of one or two axes of pixels, got shape "
            f"{tuple(code.shape)}"
        )
    jax, _ = require()
    with jax.experimental.enable_x64():
        inputs = jax.numpy.asarray(code.movedim(1, -1).double().cpu().numpy())
        found = kernel_fn(inputs, None, diagonal_spatial=False)
        found = found.reverse() if found.is_reversed else found  # stax may swap the axes inside
        tables = [np.array(table, dtype=np.float64) for table in (found.nngp, found.ntk)]
    sides = tables[0].shape[2::2]
    if tables[0].ndim not in (4, 6) or tables[0].shape[3::2] != sides:
        raise InvalidInputError(
            f"its kernel has shape {tables[0].shape}: the network must make an image, with axes of "
            "pixels (Flatten and global pooling leave none)"
        )
    dims = len(sides)
    order = [*range(0, 2 * dims, 2), *range(1, 2 * dims, 2)]
    n = math.prod(sides)
    matrices = [torch.from_numpy(t[0, 0].transpose(order).reshape(n, n).copy()) for t in tables]
    covariance, ntk = ((m + m.T) / 2 for m in matrices)
    return DenseKernel(covariance, ntk, sides)


@checked
def require() -> tuple[Any, Any]:
    """Import jax and `neural_tangents.stax`.

    Returns
    -------
    jax, stax : modules
        Both.

    Raises
    ------
    MissingExtraError
        If they aren't there, with the command that installs versions that work together.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # these packages warn of each other
            jax = importlib.import_module("jax")
            importlib.import_module("jax.experimental")
            return jax, importlib.import_module("neural_tangents.stax")
    except Exception as error:  # an old one among these packages fails in ways of its own
        raise MissingExtraError(
            f"neural-tangents can't be imported ({type(error).__name__}: {error}); it needs jax "
            "below 0.6, so a virtual environment of its own: " + install_command("neural-tangents")
        ) from error


def _leaves(module: nn.Module, path: str = "") -> list[tuple[str, nn.Module]]:
    if not isinstance(module, nn.Sequential):
        return [(path, module)]
    found = []
    for name, part in module.named_children():
        found += _leaves(part, f"{path}.{name}" if path else name)
    return found


def _layer(stax: Any, part: nn.Module, path: str, draws: Initialisations) -> Any:
    if isinstance(part, nn.Conv1d | nn.Conv2d):
        return _convolution(stax, part, path, draws)
    if isinstance(part, nn.ReLU):
        return stax.Relu()
    if isinstance(part, nn.LeakyReLU):
        return stax.LeakyRelu(part.negative_slope)
    if isinstance(part, nn.GELU) and part.approximate == "none":
        return stax.Gelu(approximate=False)
    if isinstance(part, Sine):
        return stax.Sin()
    if isinstance(part, nn.Identity):
        return stax.Identity()
    if isinstance(part, nn.AvgPool1d | nn.AvgPool2d):
        dims = 1 if isinstance(part, nn.AvgPool1d) else 2
        size, step = _shape(part.kernel_size, dims), _shape(part.stride, dims)
        if size == step and not any(_shape(part.padding, dims)):
            return stax.AvgPool(size, strides=step, padding="VALID")
    raise InvalidInputError(
        f"'{path}' is {part}, for which there is no stax layer here: the bridge takes Sequentials "
        "of circular convolutions, ReLU, LeakyReLU, GELU, Sine, average pooling and Identity"
    )


def _convolution(stax: Any, part: nn.Conv1d | nn.Conv2d, path: str, draws: Initialisations) -> Any:
    size = tuple(int(k) for k in part.kernel_size)
    circular = part.padding_mode == "circular" or math.prod(size) == 1
    same = all(
        isinstance(p, int) and 2 * p == k - 1 for p, k in zip(part.padding, size, strict=True)
    )
    if not (circular and same) or part.groups != 1 or any(d != 1 for d in part.dilation):
        raise InvalidInputError(
            f"'{path}' is {part}: the bridge takes convolutions with circular padding that keep "
            "the size, without groups and dilation"
        )
    prefix = f"{path}." if path else ""
    taps = math.prod(size)
    fans = part.in_channels * taps, part.out_channels * taps
    name = f"{prefix}weight"
    variance = fans[0] * initial_variance(name, draws, *fans, default_fan=fans[0]).value
    bias = None
    if part.bias is not None:
        name = f"{prefix}bias"
        found = initial_variance(name, draws, *fans, default_fan=fans[0], bias=True)
        bias = math.sqrt(found.value)
    axes = AXES[len(size)]
    return stax.Conv(
        part.out_channels,
        size,
        strides=tuple(int(s) for s in part.stride),
        padding="CIRCULAR",
        W_std=math.sqrt(variance),
        b_std=bias,
        dimension_numbers=(axes, axes.replace("N", "").replace("C", "") + "IO", axes),
        parameterization="ntk",
    )


def _shape(value: Any, dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(int(v) for v in value)


# Channels whose mean product is exactly the kernel: all shifts of its symmetric square root.
def _code_of(kernel: StationaryKernel) -> np.ndarray:
    spectrum = kernel.spectrum().cpu().numpy()
    root = np.fft.ifftn(np.sqrt(spectrum.clip(min=0))).real
    axes = tuple(range(root.ndim))
    shifts = [np.roll(root, index, axes) for index in np.ndindex(*root.shape)]
    return np.stack(shifts, axis=-1) * math.sqrt(root.size)


# From (H, H', W, W') to lags; all rows of a stationary matrix are the same.
def _lags(table: np.ndarray, dims: int) -> Tensor:
    first = table[0] if dims == 1 else table[0, :, 0, :]
    return torch.from_numpy(np.array(first, dtype=np.float64))
