"""Tachella et al.: the filter that a network's kernel is, and twicing."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import Kernel
from dipkernels.kernels.pixels import Pixels
from dipkernels.linalg import SymmetricOperator
from dipkernels.literature.non_local_means import local_window, share_outside


@checked
def induced_filter(kernel: Kernel, pixels: Pixels) -> Float[Tensor, "m n"]:
    """Read the filters of some pixels off a kernel.

    Parameters
    ----------
    kernel : Kernel
        Over n outputs, an `NTK` for instance.
    pixels : mask or indices
        m of them, as of `dipkernels.kernels.pixel_indices`.

    Returns
    -------
    Tensor, shape (m, n)
        Rows of the kernel, each divided by its sum, so that a constant passes: how much the value
        there is moved by the residual of every output. Costs m products.

    Raises
    ------
    InvalidInputError
        If a row sums to less than a millionth of its absolute values: it can't be normalised (a
        kernel behind a normalisation of the image, for instance).
    """
    rows = kernel.rows(pixels).to_dense()
    sums, sizes = rows.sum(dim=1), rows.abs().sum(dim=1)
    if (sums.abs() <= 1e-6 * sizes).any():
        raise InvalidInputError("a row of this kernel sums to 0: it makes no averaging filter")
    return rows / sums[:, None]


@checked
def twicing(
    operator: SymmetricOperator,
    target: Float[Tensor, " n"],
    *,
    iterations: int,
    step: float,
    start: Float[Tensor, " n"] | None = None,
) -> Float[Tensor, "iterates n"]:
    """Filter the residual again and again: ``z <- z + step W (y - z)``.

    Parameters
    ----------
    operator : SymmetricOperator
        The filter W, not necessarily normalised.
    target : Tensor, shape (n,)
        The y.
    iterations : int
        At least 1.
    step : float
        Positive; stable below 2 over the largest eigenvalue.
    start : Tensor, shape (n,), optional
        The first z; 0 by default, so that the first iterate is ``step W y``.

    Returns
    -------
    Tensor, shape (iterations + 1, n)
        All z, the start included: ``y - (1 - step W)^i (y - z_0)``. Costs a product each.

    Raises
    ------
    InvalidInputError
        If an option is out of range.

    Notes
    -----
    With W the NTK this is gradient descent on ``|f - y|^2 / 2`` of the linearised network, which is
    how Tachella et al. 2021 (arXiv:2006.02379) read the fit of a network as the iteration of a
    denoiser. Source of the name: Tukey; Milanfar 2013 for filters of images.
    """
    if iterations < 1 or not step > 0:
        raise InvalidInputError(f"expected iterations >= 1 and step > 0, got {iterations}, {step}")
    z = torch.zeros_like(target) if start is None else start
    iterates = [z]
    for _ in range(iterations):
        z = z + step * (operator @ (target - z))
        iterates.append(z)
    return torch.stack(iterates)


@checked
def residual_correlation(
    residual: Float[Tensor, "channels *spatial"], max_lag: int
) -> Float[Tensor, " lags"]:
    """Measure how white a residual is: its correlation along the last axis.

    Parameters
    ----------
    residual : Tensor, shape ``(channels, *spatial)``
        Not constant in any channel.
    max_lag : int
        In pixels, less than the side.

    Returns
    -------
    Tensor, shape (max_lag + 1,)
        At lags 0 (where it is 1) to max_lag, of the residual without its mean, over all pairs
        within the image. White noise of N values has ``1 / sqrt(N)`` beyond lag 0.

    Raises
    ------
    InvalidInputError
        If the lag is out of range, or the residual is constant.
    """
    side = residual.shape[-1]
    if not 0 <= max_lag < side:
        raise InvalidInputError(f"max_lag must be in 0 to {side - 1}, got {max_lag}")
    x = residual - residual.mean(dim=tuple(range(1, residual.dim())), keepdim=True)
    products = [(x[..., : side - r] * x[..., r:]).mean() for r in range(max_lag + 1)]
    if not float(products[0]) > 0:
        raise InvalidInputError("the residual is constant, or not finite: it has no correlation")
    return torch.stack(products) / products[0]


@checked
def compare_filters(
    weights: Float[Tensor, "m n"],
    reference: Float[Tensor, "m n"],
    pixels: Sequence[int],
    spatial: tuple[int, ...],
    *,
    radius: int,
) -> xr.Dataset:
    """Hold filters against others, non-local means for instance.

    Parameters
    ----------
    weights, reference : Tensor, shapes (m, n)
        One filter a row, over n pixels of one channel.
    pixels : sequence of int
        Which each is of, in the flattened grid.
    spatial : (length,) or (height, width)
        Of the grid.
    radius : int
        Of the window, of side ``2 radius + 1``, beyond which a weight is non-local.

    Returns
    -------
    xarray.Dataset
        Over ``pixel``: ``rank_correlation`` (Spearman's) over all other pixels, and
        ``rank_correlation_outside`` over those outside of the window alone (nearness makes for
        agreement), NaN where a filter is constant; ``share_outside`` and
        ``share_outside_reference``, of absolute weight; ``window_share``, the window's part of the
        pixels outside of which an even filter has the rest.

    Raises
    ------
    InvalidInputError
        If the shapes don't belong together, or the windows hold the whole grid.
    """
    count = int(np.prod(spatial))
    if weights.shape != reference.shape or weights.shape != (len(pixels), count):
        raise InvalidInputError(
            f"expected two blocks of shape ({len(pixels)}, {count}), got {tuple(weights.shape)} "
            f"and {tuple(reference.shape)}"
        )
    inside = local_window(pixels, spatial, radius)
    if inside.all(dim=1).any():
        raise InvalidInputError(f"a window of radius {radius} holds the whole grid {spatial}")
    a, b = weights.detach().cpu().numpy(), reference.detach().cpu().numpy()
    everywhere, outside = [], []
    for row, pixel in enumerate(pixels):
        others = np.arange(count) != pixel
        far = ~inside[row].numpy()
        everywhere.append(_rank_correlation(a[row][others], b[row][others]))
        outside.append(_rank_correlation(a[row][far], b[row][far]))
    return xr.Dataset(
        {
            "rank_correlation": ("pixel", everywhere),
            "rank_correlation_outside": ("pixel", outside),
            "share_outside": ("pixel", share_outside(weights, pixels, spatial, radius).cpu()),
            "share_outside_reference": (
                "pixel",
                share_outside(reference, pixels, spatial, radius).cpu(),
            ),
            "window_share": ("pixel", inside.double().mean(dim=1)),
        },
        {"pixel": list(pixels)},
        {"radius": radius},
    )


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(scipy.stats.spearmanr(a, b).statistic)
