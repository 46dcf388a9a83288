"""Predicted learning curves: expected error against time, from the kernel alone."""

import dataclasses
from collections.abc import Callable

import numpy as np
import xarray as xr

from dipkernels.checks import checked
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.linalg.lanczos import KrylovSpace
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.theory.dynamics import Dynamics, GradientFlow
from dipkernels.theory.expansion import Expansion, default_times
from dipkernels.theory.krylov import Bounds, probe_errors, run_errors

# Band: bounds of the quadrature, widened by this many standard errors of the probes.
BAND_ERRORS = 2.0
# A curve is told by the numerics where its band is at most this wide.
RESOLVED_DB = 1.0


@checked
def learning_curve(expansion: Expansion, dynamics: Dynamics | None = None) -> xr.Dataset:
    """Predict the error of a fit against time.

    The network is replaced by its linearisation at the expansion's parameters. With ``E`` the
    decay of the error and ``r = clean - f_0``, the mean over noises of the squared error on a fully
    measured image is ``|E r|^2 + sigma^2 tr (1 - E)^2``: bias falls, variance grows, and their sum
    has the minimum that early stopping is after. With the noise ``e = measurement - clean`` of one
    measurement it is ``|E r - (1 - E) e|^2``.

    Parameters
    ----------
    expansion : Expansion
        From `expand`.
    dynamics : Dynamics, optional
        `GradientFlow` (the default, over nine decades of time), `GradientDescent`, `Momentum` or
        `FrozenAdam`.

    Returns
    -------
    xarray.Dataset
        Over the dynamics' time and ``region``: ``mse``, for expected noise its parts ``bias``
        and ``variance``, the band ``mse_lower`` to ``mse_upper``, and ``psnr`` with
        ``psnr_lower`` and ``psnr_upper`` (dB). Attributes: ``peak_psnr``, ``peak_psnr_lower``,
        ``peak_psnr_upper`` and ``peak_time`` in the ``score_region``; ``peak_resolved``, 1 if the
        band stays narrow until the curve has come down from its peak, or to the end (else 0, and
        the peak is only known to be at least ``peak_psnr``, the highest lower bound); ``noise``,
        ``largest_eigenvalue``, ``products`` and the number of ``outputs``, of the expansion.

    Raises
    ------
    InvalidInputError
        If the kernel is zero, and no dynamics say at which times to look.
    DivergenceError
        If the prediction overflows: the optimiser diverges with that step.

    Notes
    -----
    Band of expected noise, one image fully measured: Gauss and Gauss-Radau quadrature bound bias
    and variance from both sides in exact arithmetic, widened by two standard errors of the probes
    (by Student's t that covers 82 % with three probes, 92 % with ten).
    Band of realised noise: a bound on how far the function's action in the Krylov space is off,
    over regions that were measured. Both need `Dynamics.monotone`, and where known eigenvectors
    were deflated they hold to the error of those, about a thousandth of the MSE. Else, and over
    missing pixels, the band is an estimate and no bound: by how much the image changes with the
    last fifth of the Lanczos steps. The band covers the numerics, not the network's departure from
    its linearisation. Source: Golub & Meurant 2010 for the quadrature; the documentation's page on
    theory derives the rest.
    """
    if dynamics is None:
        dynamics = GradientFlow(default_times(expansion.largest))
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is found below
        parts, (low, middle, high) = _parts(expansion, dynamics)
    if not np.isfinite(low + high).all():
        raise DivergenceError(
            f"the prediction overflows: with this step {type(dynamics).__name__} is stable up to "
            f"an eigenvalue of {dynamics.limit:.3g}, the largest is {expansion.largest:.3g}; "
            f"use a step below {dynamics.limit / expansion.largest:.3g} of this one"
        )
    over = (dynamics.dimension, "region")
    with np.errstate(divide="ignore"):
        psnr = {
            "psnr": -10 * np.log10(middle),
            "psnr_lower": -10 * np.log10(high),
            "psnr_upper": -10 * np.log10(np.maximum(low, 0)),
        }
    dataset = xr.Dataset(
        {
            "mse": (over, middle),
            **{name: (over, part) for name, part in parts.items()},
            "mse_lower": (over, low),
            "mse_upper": (over, high),
            **{name: (over, values, {"units": "dB"}) for name, values in psnr.items()},
        },
        {dynamics.dimension: dynamics.times, "region": list(expansion.regions)},
    )
    return dataset.assign_attrs(_peak(dataset, dynamics, expansion))


# What the error is made of, where it is known, and its bounds.
def _parts(expansion: Expansion, dynamics: Dynamics) -> tuple[dict[str, np.ndarray], Bounds]:
    if expansion.noise == "realised":
        return {}, run_errors(expansion, dynamics)
    # quadrature knows the whole image only
    plain = list(expansion.regions) == ["whole"] and bool(expansion.measured.all())
    quadrature = plain and dynamics.monotone(expansion.largest)
    bias = (_bias_by_quadrature if quadrature else run_errors)(expansion, dynamics)
    variance = _variance(expansion, dynamics, quadrature=quadrature)
    low, middle, high = (b + v for b, v in zip(bias, variance, strict=True))
    return {"bias": bias[1], "variance": variance[1]}, (low, middle, high)


def _bias_by_quadrature(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    n = len(expansion.residual)
    lower, upper = _bracket(expansion.bias, lambda x: dynamics.decay(x) ** 2)
    return _columns(lower / n, (lower + upper) / (2 * n), upper / n)


def _variance(expansion: Expansion, dynamics: Dynamics, *, quadrature: bool) -> Bounds:
    if not expansion.probes:
        zero = np.zeros((len(dynamics.times), len(expansion.regions)))
        return zero, zero, zero
    of_probe = _probe_by_quadrature if quadrature else probe_errors
    samples = [of_probe(expansion, dynamics, space) for space in expansion.probes]
    low, middle, high = (np.array(each) for each in zip(*samples, strict=True))
    error = BAND_ERRORS * middle.std(axis=0, ddof=1) / np.sqrt(len(middle))
    noise = expansion.noise_sigma**2
    return (
        noise * np.maximum(low.mean(axis=0) - error, 0),
        noise * middle.mean(axis=0),
        noise * (high.mean(axis=0) + error),
    )


# Bounds of tr (1 - E)^2 / n = 1 - 2 tr E / n + tr E^2 / n, termwise. Known eigenvalues count once
# each, exactly; the probes estimate the rest (as Hutch++ does, Meyer et al. 2021).
def _probe_by_quadrature(expansion: Expansion, dynamics: Dynamics, probe: KrylovSpace) -> Bounds:
    n, known = len(expansion.residual), probe.deflated.nodes
    space = dataclasses.replace(probe, deflated=Quadrature(known, np.ones(len(known))))
    total = len(known) + probe.norm**2  # n in the mean over probes
    once = _bracket(space, dynamics.decay)
    twice = _bracket(space, lambda x: dynamics.decay(x) ** 2)
    low = np.maximum(total - 2 * once[1] + twice[0], 0) / n
    high = np.minimum(total - 2 * once[0] + twice[1], total) / n
    return _columns(low, (low + high) / 2, high)


def _bracket(
    space: KrylovSpace, function: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    rules = [rule(function) for rule in (space.gauss(), space.gauss_radau())]
    return np.minimum(*rules), np.maximum(*rules)


def _columns(*arrays: np.ndarray) -> Bounds:
    low, middle, high = (array[:, None] for array in arrays)
    return low, middle, high


@checked
def resolved_stretch(curve: xr.Dataset, score_region: str) -> int:
    """Count the leading times at which the band is at most `RESOLVED_DB` wide.

    Parameters
    ----------
    curve : xarray.Dataset
        As `learning_curve` returns, its times in ascending order.
    score_region : str
        Whose band counts.

    Returns
    -------
    int
        After that many times the numerics no longer tell the prediction.

    Raises
    ------
    InvalidInputError
        If it is no predicted curve, or has no such region.
    """
    if "psnr_upper" not in curve or score_region not in curve.region.values:
        raise InvalidInputError(
            f"expected a curve of learning_curve with a region {score_region!r}"
        )
    score = curve.sel(region=score_region)
    wide = np.flatnonzero(~(score.psnr_upper - score.psnr_lower <= RESOLVED_DB).values)
    return int(wide[0]) if len(wide) else len(score.psnr)


def _peak(
    dataset: xr.Dataset, dynamics: Dynamics, expansion: Expansion
) -> dict[str, float | int | str]:
    dataset = dataset.sortby(dynamics.dimension)
    score, times = dataset.sel(region=expansion.score_region), dataset[dynamics.dimension].values
    lower, upper = score.psnr_lower.values, score.psnr_upper.values
    stretch = resolved_stretch(dataset, expansion.score_region)
    best = int(np.argmax(score.psnr.values[: max(1, stretch)]))
    # a true peak: the curve has certainly come down again before it gets lost, or never gets lost
    resolved = stretch == len(lower) or (stretch > 0 and lower[best] >= upper[stretch - 1])
    if resolved:
        band = lower[:stretch].max(), upper[:stretch].max()
    else:
        best = int(np.argmax(lower))
        band = lower.max(), upper.max()
    return {
        "score_region": expansion.score_region,
        "peak_psnr": float(score.psnr[best] if resolved else lower[best]),
        "peak_psnr_lower": float(band[0]),
        "peak_psnr_upper": float(band[1]),
        "peak_time": float(times[best]),
        "peak_resolved": int(resolved),
        "noise": expansion.noise,
        "largest_eigenvalue": expansion.largest,
        "products": expansion.products,
        "outputs": len(expansion.residual),
    }
