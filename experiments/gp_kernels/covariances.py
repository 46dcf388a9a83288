"""Cheng et al.: covariance of a network's output against depth and input scale, three ways."""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr
from torch import Tensor

from dipkernels.base.statistics import jackknife
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import covariance, infinite_width
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.priors import ImagePrior

METHODS = ("measured", "infinite width", "poster")
GROUPS = 8  # of networks, for standard errors


def covariance_three_ways(
    prior: ImagePrior,
    code: StationaryKernel,
    poster: StationaryKernel,
    *,
    samples: int,
    codes: Callable[[int], Tensor],
    max_lag: int,
    seed: int = 0,
) -> xr.Dataset:
    """Measure a network's covariance beside its limit of infinite width and the poster's formula.

    Parameters
    ----------
    prior : ImagePrior
        In 1D.
    code : StationaryKernel
        Of the code's channels.
    poster : StationaryKernel
        What the formula says, of `poster_convolutional` or `poster_autoencoder`.
    samples : int
        Networks that are drawn, a multiple of 8, at least 16.
    codes : callable
        From a seed to a code: a new one for each network.
    max_lag : int
        In pixels.
    seed : int
        Of the networks.

    Returns
    -------
    xarray.Dataset
        ``correlation(method, lag)``, the second moment over that at lag 0, and
        ``standard_error(lag)`` of the measured one: the jackknife's, over 8 groups of networks
        (the two moments depend on each other), itself good to a quarter.

    Raises
    ------
    InvalidInputError
        If the image isn't 1D, or the samples aren't such a multiple.
    """
    if len(prior.shape) != 2:
        raise InvalidInputError(f"expected a 1D prior, got one of shape {prior.shape}")
    if samples < 2 * GROUPS or samples % GROUPS:
        raise InvalidInputError(
            f"samples must be a multiple of {GROUPS}, at least {2 * GROUPS}, got {samples}"
        )
    each = samples // GROUPS
    moments = np.stack(
        [
            covariance(
                prior,
                each,
                seed=seed,
                first=group * each,
                codes=codes,
                boundary="circular",
                max_lag=max_lag,
                tests=False,
            ).kernel.sel(lag_x=slice(0, max_lag))
            for group in range(GROUPS)
        ]
    )
    measured = moments.mean(axis=0)
    _, error = jackknife(moments, lambda mean: mean / mean[0])
    limit = infinite_width(prior, code=code).kernel.covariance
    curves = [measured, *(k[: max_lag + 1].cpu().numpy() for k in (limit, poster.covariance))]
    return xr.Dataset(
        {
            "correlation": (("method", "lag"), np.stack([c / c[0] for c in curves])),
            "standard_error": ("lag", error),
        },
        {"method": list(METHODS), "lag": np.arange(max_lag + 1)},
        {"samples": samples, "prior": prior.name},
    )


def width_convergence(
    make: Callable[[int], ImagePrior],
    widths: Sequence[int],
    reference: Tensor,
    *,
    samples: int,
    codes: Callable[[int], Callable[[int], Tensor]],
    repetitions: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how the covariance over a few networks approaches its limit as they get wider.

    Parameters
    ----------
    make : callable
        From a width to a prior in 1D.
    widths : sequence of int
        Ascending.
    reference : Tensor, shape (lags,)
        The limit at lags from 0 on; correlations are compared.
    samples : int
        Networks of each estimate.
    codes : callable
        From a width to a source of codes.
    repetitions : int
        Independent estimates, at least 2.
    seed : int
        Of the first.

    Returns
    -------
    xarray.Dataset
        ``error(width, repetition)``: root mean square over lags of the difference of correlations.
        Attribute ``slope`` of its logarithm, averaged over repetitions, against the width's:
        -1/2 is expected where the chance of the weights dominates.

    Raises
    ------
    InvalidInputError
        If there are fewer than two widths, or repetitions.
    """
    if len({*widths}) < 2 or repetitions < 2:
        raise InvalidInputError(
            "a slope and its scatter need at least 2 widths and 2 repetitions, got "
            f"{list(widths)} and {repetitions}"
        )
    lags = len(reference)
    limit = reference.cpu().numpy() / float(reference[0])
    errors = np.empty((len(widths), repetitions))
    for row, width in enumerate(widths):
        for column in range(repetitions):
            found = covariance(
                make(width),
                samples,
                seed=seed + column,
                codes=codes(width),
                boundary="circular",
                max_lag=lags - 1,
                tests=False,
            ).kernel.sel(lag_x=slice(0, lags - 1))
            curve = found.values / float(found[0])
            errors[row, column] = float(np.sqrt(np.mean((curve - limit) ** 2)))
    slope = np.polyfit(np.log(widths), np.log(errors).mean(axis=1), 1)[0]
    return xr.Dataset(
        {"error": (("width", "repetition"), errors)},
        {"width": list(widths)},
        {"slope": float(slope), "samples": samples},
    )
