"""Convolutional networks in NumPy, by sliding windows and dense matrices, in any dimension.

An array is ``(channels, *spatial)``. Nothing here calls torch.
"""

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray
MODES = {"reflect": "reflect", "zero": "constant", "circular": "wrap"}


def convolve(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: int = 1,
    padding: str = "reflect",
    border: tuple[int, int] | None = None,
) -> Array:
    """Correlate with a weight (out, in, *kernel), as networks do; ``border`` before and after."""
    kernel = weight.shape[2:]
    pads = [border or (k // 2, k // 2) for k in kernel]
    padded = np.pad(x, [(0, 0), *pads], mode=MODES[padding])
    axes = tuple(range(1, x.ndim))
    windows = sliding_window_view(padded, kernel, axis=axes)
    windows = windows[(slice(None), *(slice(None, None, stride) for _ in kernel))]
    inner = list(range(1, weight.ndim))
    out = np.tensordot(weight, windows, axes=(inner, [0, *range(x.ndim, windows.ndim)]))
    return out if bias is None else out + bias.reshape(-1, *(1,) * len(kernel))


def normalise(x: Array, kind: str, scale: Array | None = None, bias: Array | None = None) -> Array:
    """Normalise with the statistics of the image."""
    if kind == "none":
        return x
    axes = tuple(range(1, x.ndim))

    def along(values: Array) -> Array:
        return values.reshape(-1, *(1,) * len(axes))

    x = x - x.mean(axis=axes, keepdims=True)
    if kind != "mean-only":
        x = x / np.sqrt((x**2).mean(axis=axes, keepdims=True) + 1e-5)
    x = x if scale is None else x * along(scale)
    return x if bias is None else x + along(bias)


def activate(x: Array, kind: str) -> Array:
    """Apply an activation by its formula."""
    erf = np.vectorize(math.erf)
    formulas = {
        "leaky-relu": lambda: np.where(x > 0, x, 0.2 * x),
        "leaky-relu-0.01": lambda: np.where(x > 0, x, 0.01 * x),
        "relu": lambda: np.maximum(x, 0),
        "gelu": lambda: x * (1 + erf(x / math.sqrt(2))) / 2,
        "swish": lambda: x / (1 + np.exp(-x)),
        "elu": lambda: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
        "tanh": lambda: np.tanh(x),
        "sin": lambda: np.sin(x),
        "none": lambda: x,
    }
    return formulas[kind]()


def gaussian_taps(sigma: float) -> Array:
    """Five values of a Gaussian that sum to 1, in the single precision that networks hold."""
    taps = np.array([math.exp(-((i / sigma) ** 2) / 2) for i in (-2, -1, 0, 1, 2)])
    return (taps / taps.sum()).astype(np.float32).astype(float)


def doubling_matrix(n: int, mode: str, sigma: float = 1.0) -> Array:
    """Make the dense matrix that doubles one axis of n pixels."""
    matrix = np.zeros((2 * n, n))
    for i in range(2 * n):
        if mode == "nearest":
            matrix[i, i // 2] = 1
        elif mode == "bilinear":
            # pixel centres: i + 1/2 on the fine grid is (i + 1/2) / 2 on the coarse one
            position = min(max((i + 0.5) / 2 - 0.5, 0.0), n - 1.0)
            low = math.floor(position)
            matrix[i, low] += 1 - (position - low)
            matrix[i, min(low + 1, n - 1)] += position - low
        else:
            for j in range(n):  # coarse pixel j lies on fine pixel 2j
                if abs(i - 2 * j) <= 2:
                    matrix[i, j] = gaussian_taps(sigma)[i - 2 * j + 2]
    return matrix


def along_axes(x: Array, matrices: list[Array]) -> Array:
    """Multiply each spatial axis by a matrix."""
    for axis, matrix in enumerate(matrices, start=1):
        x = np.moveaxis(np.tensordot(matrix, x, axes=([1], [axis])), 0, axis)
    return x


def double(x: Array, mode: str, sigma: float = 1.0) -> Array:
    """Double every side by fixed weights."""
    return along_axes(x, [doubling_matrix(n, mode, sigma) for n in x.shape[1:]])


def transposed(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """Convolve transposed with a weight (in, out, 4, ...), stride 2, padding 1: by scattering."""
    sides = [2 * n for n in x.shape[1:]]
    out = np.zeros((weight.shape[1], *(side + 2 for side in sides)))
    for index in np.ndindex(*x.shape[1:]):
        block = np.tensordot(x[(slice(None), *index)], weight, axes=(0, 0))
        out[(slice(None), *(slice(2 * i, 2 * i + 4) for i in index))] += block
    out = out[(slice(None), *(slice(1, -1) for _ in sides))]
    return out if bias is None else out + bias.reshape(-1, *(1,) * len(sides))


def pooled(x: Array, how: str) -> Array:
    """Pool over pairs along each axis; a last pixel alone where a side is odd."""
    reduce = {"average": np.mean, "max": np.max}[how]
    shape = tuple(-(-n // 2) for n in x.shape[1:])
    out = np.empty((x.shape[0], *shape))
    for index in np.ndindex(*shape):
        window = x[(slice(None), *(slice(2 * i, 2 * i + 2) for i in index))]
        out[(slice(None), *index)] = reduce(window.reshape(x.shape[0], -1), axis=1)
    return out


def crop(x: Array, size: tuple[int, ...]) -> Array:
    """Crop about the centre."""
    starts = [(n - side) // 2 for n, side in zip(x.shape[1:], size, strict=True)]
    return x[(slice(None), *(slice(a, a + n) for a, n in zip(starts, size, strict=True)))]
