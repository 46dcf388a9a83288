"""The one prediction: errors against time from what a kernel knows, and their peak."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar

from dipkernels.base.checks import checked
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.images.metrics import decibels
from dipkernels.theory.dynamics import Dynamics, GradientFlow
from dipkernels.theory.expansion import Errors, Expansion

# A curve is told by the numerics where its band is at most this wide.
RESOLVED_DB = 1.0


@checked(nan=True)
@dataclass(frozen=True)
class PredictedPeak:
    """The best moment of a predicted fit.

    Attributes
    ----------
    psnr : float
        Of the expected (or, with given noise, the very) mean squared error at its least, in dB;
        where that isn't resolved, at the least of the middle between its bounds.
    lower, upper : float
        What the numerics leave open.
    time : float
        Of gradient flow on ``|f - y|^2 / 2``.
    degrees_of_freedom : float
        ``tr (I - E)``: how many of the n directions have been learned by then; NaN if unknown.
    resolved : bool
        Whether the band is at most 1 dB wide, over all times or, of a curve that gets lost, until
        it has certainly come down from its peak.
    extrapolated : bool
        Whether it would be, with a bound from above that is extrapolated and no bound.
    """

    psnr: float
    lower: float
    upper: float
    time: float
    degrees_of_freedom: float
    resolved: bool = True
    extrapolated: bool = False


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
        From `expand`, or exact, from `KernelSpectrum.expand`.
    dynamics : Dynamics, optional
        `GradientFlow` (the default, over nine decades of time and more), `GradientDescent`,
        `Momentum` or `FrozenAdam`.

    Returns
    -------
    xarray.Dataset
        Over the dynamics' time and ``region``: ``mse``, for expected noise its parts ``bias``
        and ``variance``, the band ``mse_lower`` to ``mse_upper``, and ``psnr`` with
        ``psnr_lower`` and ``psnr_upper`` (dB). Attributes: ``peak_psnr``, ``peak_psnr_lower``,
        ``peak_psnr_upper`` and ``peak_time`` in the ``score_region``; ``peak_resolved``, 1 if the
        peak's band over all times is at most 1 dB wide, or that until the curve has come down from
        its peak; ``peak_extrapolated``, 1 if it is only with an upper end that is extrapolated (of
        the flow; if both are 0, the peak is only known to be at least ``peak_psnr``, the highest
        lower bound); ``noise``, ``largest_eigenvalue``, ``matvecs`` and the number of ``outputs``,
        of the expansion.

    Raises
    ------
    InvalidInputError
        If the kernel is zero, and no dynamics say at which times to look.
    DivergenceError
        If the prediction overflows: the optimiser diverges with that step.

    Notes
    -----
    Band of expected noise, one image fully measured: Gauss and Gauss-Radau quadrature bound bias
    and variance from both sides, at eigenvalues as far off as rounding may have moved them, widened
    by two standard errors of the probes.
    Band of realised noise: a bound on how far the function's action in the Krylov space is off,
    over regions that were measured. Both need `Dynamics.monotone`. Else, and over
    missing pixels, the band is an estimate and no bound: by how much the image changes with the
    last fifth of the steps. The band covers the numerics (of an exact expansion the
    kernel's rounding), not the network's departure from its linearisation.
    Source: Golub & Meurant 2010 for the quadrature; the documentation's page on theory.
    """
    flow = dynamics is None
    if dynamics is None:
        dynamics = GradientFlow(expansion.times)
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is found below
        errors = expansion.errors(dynamics)
    if not np.isfinite(errors.lower + errors.upper).all():
        raise DivergenceError(
            f"the prediction overflows: with this step {type(dynamics).__name__} is stable up to "
            f"an eigenvalue of {dynamics.limit:.3g}, the largest is {expansion.largest:.3g}; "
            f"use a step below {dynamics.limit / expansion.largest:.3g} of this one"
        )
    over = (dynamics.dimension, "region")
    lower, middle, upper = _psnr(errors)
    psnr = {"psnr": middle, "psnr_lower": lower, "psnr_upper": upper}
    dataset = xr.Dataset(
        {
            "mse": (over, errors.middle),
            **{name: (over, part) for name, part in errors.parts.items()},
            "mse_lower": (over, errors.lower),
            "mse_upper": (over, errors.upper),
            **{name: (over, values, {"units": "dB"}) for name, values in psnr.items()},
        },
        {dynamics.dimension: dynamics.times, "region": list(expansion.regions)},
    )
    peak = _peak(expansion, dynamics.times, errors)
    peak = _of_flow(expansion, peak) if flow else peak
    told = peak.resolved or peak.extrapolated
    # of a peak that isn't told, what is certainly reached, and where
    score = dataset.sel(region=expansion.score_region).sortby(dynamics.dimension)
    certain = score[dynamics.dimension].values[np.argmax(score.psnr_lower.values)]
    return dataset.assign_attrs(
        score_region=expansion.score_region,
        peak_psnr=peak.psnr if told else peak.lower,
        peak_psnr_lower=peak.lower,
        peak_psnr_upper=peak.upper,
        peak_time=peak.time if told else float(certain),
        peak_resolved=int(peak.resolved),
        peak_extrapolated=int(peak.extrapolated),
        noise=expansion.noise,
        largest_eigenvalue=expansion.largest,
        matvecs=expansion.matvecs,
        outputs=expansion.entries,
    )


# Of bounds from below, the middle, and bounds from above.
def _psnr(errors: Errors) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bounds = (errors.upper, errors.middle, np.maximum(errors.lower, 0))
    lower, middle, upper = (decibels(each) for each in bounds)
    return lower, middle, upper


@checked
def resolved_stretch(curve: xr.Dataset, score_region: str) -> int:
    """Count the leading times at which the numerics tell a region of a predicted curve."""
    if "psnr_upper" not in curve or score_region not in curve.region.values:
        raise InvalidInputError(
            f"expected a curve of learning_curve with a region {score_region!r}"
        )
    score = curve.sel(region=score_region)
    return _told(score.psnr_lower.values, score.psnr_upper.values)


def _told(lower: np.ndarray, upper: np.ndarray) -> int:
    with np.errstate(invalid="ignore"):  # infinity less infinity
        wide = np.flatnonzero(~(upper - lower <= RESOLVED_DB))
    return int(wide[0]) if len(wide) else len(lower)


# The one rule for a peak, and for whether it is resolved: its band is at most RESOLVED_DB wide.
# Where the bounds of all times leave more open, those of Krylov spaces count until the curve gets
# lost, if it has certainly come down from its peak by then.
def _peak(expansion: Expansion, times: np.ndarray, errors: Errors) -> PredictedPeak:
    order = np.argsort(times, kind="stable")
    column = list(expansion.regions).index(expansion.score_region)
    lower, middle, upper = (each[order, column] for each in _psnr(errors))
    low, high, end = float(lower.max()), float(upper.max()), len(lower)
    if not expansion.exact and not high - low <= RESOLVED_DB:
        stretch = _told(lower, upper)
        best = int(np.argmax(middle[: max(1, stretch)]))
        if stretch and lower[best] >= upper[stretch - 1]:
            end, high = stretch, float(upper[:stretch].max())
    best = int(np.argmax(middle[:end]))
    return PredictedPeak(
        psnr=float(middle[best]),
        lower=low,
        upper=high,
        time=float(times[order][best]),
        degrees_of_freedom=float("nan"),
        resolved=bool(high - low <= RESOLVED_DB),
    )


# Of gradient flow over all times, where the bound from above may be extrapolated.
def _of_flow(expansion: Expansion, peak: PredictedPeak) -> PredictedPeak:
    ceiling = expansion.ceiling
    if peak.resolved or ceiling is None or not ceiling < peak.upper:
        return peak
    ceiling = max(ceiling, peak.lower)
    return dataclasses.replace(
        peak,
        psnr=float(np.clip(peak.psnr, peak.lower, ceiling)),
        upper=ceiling,
        extrapolated=True,
    )


@checked
def predicted_peak(expansion: Expansion) -> PredictedPeak:
    """Find the peak of the curve that gradient flow follows.

    Parameters
    ----------
    expansion : Expansion
        From `expand`, or exact, from `KernelSpectrum.expand`.

    Returns
    -------
    PredictedPeak
        Over nine decades of time and more; of an exact expansion also between the points of its
        times, at the cost of 300 n operations.
    """
    times = expansion.times
    errors = expansion.errors(GradientFlow(times))
    if expansion.exact:
        times, errors = _refined(expansion, times, errors)
    peak = _of_flow(expansion, _peak(expansion, times, errors))
    at = GradientFlow(np.array([peak.time]))
    return dataclasses.replace(peak, degrees_of_freedom=float(expansion.degrees_of_freedom(at)[0]))


# With the least error between the neighbours of the best time as one more.
def _refined(expansion: Expansion, times: np.ndarray, errors: Errors) -> tuple[np.ndarray, Errors]:
    def middle(logarithm: float) -> float:
        found = expansion.errors(GradientFlow(np.exp(np.array([logarithm]))))
        return float(found.middle[0, column])

    column = list(expansion.regions).index(expansion.score_region)
    best = int(np.argmin(errors.middle[:, column]))
    around = np.log(times[[max(best - 1, 0), min(best + 1, len(times) - 1)]])
    found = minimize_scalar(middle, bounds=tuple(around), method="bounded")
    if not found.fun < errors.middle[best, column]:
        return times, errors
    time = np.exp(np.array([found.x]))
    there = expansion.errors(GradientFlow(time))
    joined = (
        np.append(getattr(errors, name), getattr(there, name), axis=0)
        for name in ("lower", "middle", "upper")
    )
    return np.append(times, time), Errors(*joined)
