"""Normalisation over the pixels of one image: in the limit of large images, and for any size."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary.blocks import at_lags
from dipkernels.kernels.stationary.branches import translated
from dipkernels.kernels.stationary.kernel import StationaryKernel, mapped

TORCH_EPSILON = 1e-5
# Nodes of the integrals over log t: their integrands are analytic in a strip of half-width pi, so
# that a step of 0.1 is exact to rounding; they decay like exp(-u/2) at least.
LOG_RANGE = (-45.0, 90.0)
LOG_STEP = 0.1
MOST_PIXELS = 8192


def mean_added(kernel: StationaryKernel, times: float = 1.0) -> StationaryKernel:
    """Add a multiple of each channel's mean over the image to it."""
    mean = kernel.mean + times * kernel.mean.mean()
    return mapped(kernel, lambda table: _projected(table, kernel, times), mean)


def centred(kernel: StationaryKernel, *, learned_bias: bool = False) -> StationaryKernel:
    """Subtract each channel's mean over the image, and perhaps train a bias that starts at 0."""
    # P K P and P Theta P, with P the projection on images of mean zero, exactly; 1 for the bias.
    tangent = _projected(kernel.ntk_table, kernel) + float(learned_bias)
    return replace(
        kernel,
        covariance_table=_projected(kernel.covariance_table, kernel),
        ntk_table=tangent,
        mean=torch.zeros_like(kernel.mean),
    )


@checked
def batch_norm(
    kernel: StationaryKernel,
    *,
    epsilon: float = TORCH_EPSILON,
    scale: float = 1.0,
    learned: bool | tuple[bool, bool] = True,
    method: str = "large-image",
) -> StationaryKernel:
    """Normalise each channel to mean 0 and variance 1 over the image, then scale.

    Parameters
    ----------
    kernel : StationaryKernel
        Of the channels.
    epsilon, scale : float
        Added to the variance; root mean square of the channels' scales.
    learned : bool or (bool, bool)
        Whether scales and biases (which start at 0) are trained.
    method : {"large-image", "integral"}
        ``"large-image"``: as if an image had many correlation lengths; error ``O(2/n)``, n the
        number of those volumes. ``"integral"``: exact second moments of Gaussian features for every
        size, by integrals in 1400 times the pixels' time; for stationary kernels. What comes out
        isn't Gaussian on small grids: an activation after it is approximate.

    Returns
    -------
    StationaryKernel
        With the derivative with respect to the scales as its ``scale_weight``.

    Raises
    ------
    InvalidInputError
        If there is no such method, the features are constant over the image, or the integrals
        don't apply.
    """
    require_choice("method", method, ("large-image", "integral"))
    g = kernel.scale_weight
    # A normalisation undoes an earlier scale of the same channel, which so has no derivative.
    tangent = kernel.ntk_table - g * kernel.covariance_table if g else kernel.ntk_table
    covariance = _projected(kernel.covariance_table, kernel)
    tangent = _projected(tangent, kernel)
    variance = float(covariance.flatten(kernel.dims)[..., 0].mean())
    if variance + epsilon <= 0:
        raise InvalidInputError("features that are constant over the image can't be normalised")
    if method == "large-image":
        covariance, tangent = covariance / (variance + epsilon), tangent / (variance + epsilon)
    else:
        if math.prod(kernel.period) > 1 or math.prod(kernel.size) > MOST_PIXELS:
            raise InvalidInputError(
                f"the integrals are for stationary kernels of at most {MOST_PIXELS} pixels, this "
                f"is {kernel}: use method='large-image', or Draws"
            )
        phases = (0,) * kernel.dims
        shape = covariance.shape
        exact, moved = normalised_moments(covariance[phases], tangent[phases], epsilon)
        covariance, tangent = exact.reshape(shape), moved.reshape(shape)
    own_scale, own_bias = (learned, learned) if isinstance(learned, bool) else learned
    return StationaryKernel(
        scale**2 * covariance,
        scale**2 * tangent + covariance * float(own_scale) + float(own_bias),
        torch.zeros_like(kernel.mean),
        scale_weight=1 / scale**2 if own_scale else 0.0,
    )


def group_norm(
    kernel: StationaryKernel,
    *,
    mean: float | None = None,
    square: float | None = None,
    epsilon: float = TORCH_EPSILON,
    scale: float = 1.0,
    own_scale: bool = True,
    own_bias: bool = True,
) -> StationaryKernel:
    """Normalise groups of many channels by their moments, by default the channels' own; scale."""
    # (x - mean) / s: statistics of infinitely many channels are numbers, so that this is exact for
    # every size of image, and what is Gaussian stays so. With C channels a group its relative error
    # is of order 2 / (C n), n the image's number of correlation volumes.
    mean = float(kernel.mean.mean()) if mean is None else mean
    square = float(kernel.variances.mean()) if square is None else square
    variance = square - mean**2 + epsilon
    if not variance > 0:
        raise InvalidInputError("features that are constant over a group can't be normalised")
    moved = translated(kernel, -mean)
    covariance = moved.covariance_table / variance
    own = covariance * float(own_scale) + float(own_bias)
    factor = scale**2
    return StationaryKernel(
        factor * covariance,
        factor * moved.ntk_table / variance + own,
        scale * moved.mean / math.sqrt(variance),
        scale_weight=kernel.scale_weight + own_scale / factor,
    )


def normalised_moments(
    covariance: Float[Tensor, "*size"], tangent: Float[Tensor, "*size"], epsilon: float = 0.0
) -> tuple[Float[Tensor, "*size"], Float[Tensor, "*size"]]:
    """Covariance and tangent kernel of ``(x - m)/s``, from those of a stationary Gaussian image."""
    # Both at each lag and of sum zero; epsilon is added to the variance s^2 over the image, and its
    # part of the derivative in the direction of x is left out.
    # With S the sum over all modes a_k of squares, E X / S^m is the integral over t of
    # t^(m-1)/(m-1)! E X exp(-t S), which factorises over the modes.
    lam = torch.fft.fftn(covariance).real.flatten().clamp(min=0)
    theta = torch.fft.fftn(tangent).real.flatten()
    n = lam.numel()
    u = torch.arange(*LOG_RANGE, LOG_STEP, dtype=torch.float64, device=lam.device)
    t = (torch.exp(u) / lam.sum())[:, None]
    ratio = lam / (1 + 2 * t * lam)  # E a_k exp(-t S) over E exp(-t S)
    log = -0.5 * torch.log1p(2 * t * lam).sum(dim=1) - t[:, 0] * n * epsilon
    weight = LOG_STEP * t * torch.exp(log)[:, None]
    first = (weight * ratio).sum(dim=0)
    inverse = weight.sum()
    second = (weight * t * ratio).sum(dim=0)
    # E a_k sum_j theta_j a_j, in which a square of a mode counts three times.
    pairs = ratio * (ratio @ theta)[:, None] + 2 * ratio.square() * theta
    third = (weight * t.square() / 2 * pairs).sum(dim=0)
    moved = theta * inverse - 2 * theta * second + third

    def lags(spectrum: Tensor) -> Tensor:
        values: Tensor = torch.fft.ifftn(n * spectrum.reshape(covariance.shape)).real
        return values

    return lags(first), lags(moved)


# P K P, with rows and columns of different phases having different means. P is 1 + t M, M the mean
# over the image: by default the projection on images of mean zero.
def _projected(table: Tensor, kernel: StationaryKernel, t: float = -1.0) -> Tensor:
    rows = table.mean(dim=tuple(range(kernel.dims, 2 * kernel.dims)))
    there = at_lags(rows, kernel.size)
    here = rows.reshape(*rows.shape, *(1,) * kernel.dims)
    return table + t * here + t * there + t**2 * rows.mean()
