"""Predicted learning curves: expected error against time, from the kernel alone."""

import dataclasses
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from dipkernels.errors import DivergenceError
from dipkernels.linalg.lanczos import KrylovSpace
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.theory.dynamics import Dynamics, GradientFlow
from dipkernels.theory.expansion import Expansion, as_array, default_times

# Band: bounds of the quadrature, widened by this many standard errors of the probes.
BAND_ERRORS = 2.0
# A curve is told by the numerics where its band is at most this wide.
RESOLVED_DB = 1.0
TIMES_AT_ONCE = 16


def learning_curve(expansion: Expansion, dynamics: Dynamics | None = None) -> xr.Dataset:
    """Predict the expected error of a fit against time.

    The network is replaced by its linearisation at initialisation; the expectation is over the
    noise. With ``E`` the decay of the error and ``r = clean - f_0``, the squared error on a fully
    measured image is ``|E r|^2 + sigma^2 tr (1 - E)^2``: bias falls, variance grows, and their
    sum has the minimum that early stopping is after.

    Parameters
    ----------
    expansion : Expansion
        From `expand`.
    dynamics : Dynamics, optional
        `GradientFlow` (the default, over nine decades of time) or `GradientDescent`.

    Returns
    -------
    xarray.Dataset
        Over the dynamics' time and ``region``: ``mse``, its parts ``bias`` and ``variance``, the
        band ``mse_lower`` to ``mse_upper``, and ``psnr`` with ``psnr_lower`` and ``psnr_upper``
        (dB). Attributes: ``peak_psnr``, ``peak_psnr_lower``, ``peak_psnr_upper`` and
        ``peak_time`` in the ``score_region``; ``peak_resolved``, 1 if the band stays narrow until
        the curve has come down from its peak, or to the end (else 0, and the peak is only known to
        be at least ``peak_psnr``, the highest lower bound); ``largest_eigenvalue`` and
        ``products``, of the expansion.

    Raises
    ------
    DivergenceError
        If the prediction overflows: gradient descent with that step diverges.

    Notes
    -----
    Band, image fully measured: Gauss and Gauss-Radau quadrature bound bias and variance from
    both sides in exact arithmetic (for gradient descent up to half of its limit of stability,
    ``step * largest <= 1``), widened by two standard errors of the probes. With missing pixels:
    an estimate and no bound, by how much the filtered image changes with the last fifth of the
    Lanczos steps, likewise widened. The band covers the numerics, not the network's departure
    from its linearisation. Source: Golub & Meurant 2010 for the bounds; the
    documentation's page on theory derives the rest.
    """
    dynamics = dynamics or GradientFlow(default_times(expansion))
    full = bool(expansion.measured.all())
    noise = expansion.noise_sigma**2
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is found below
        bias = (_full_bias if full else _masked_bias)(expansion, dynamics)
        variance = (_full_variance if full else _masked_variance)(expansion, dynamics)
        low, middle, high = (b + noise * v for b, v in zip(bias, variance, strict=True))
    if not np.isfinite(low + high).all():
        raise DivergenceError(
            "the prediction overflows: gradient descent is stable up to a step of 2 over the "
            f"largest eigenvalue, {2 / expansion.largest:.3g}; use a smaller one"
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
            "bias": (over, bias[1]),
            "variance": (over, noise * variance[1]),
            "mse_lower": (over, low),
            "mse_upper": (over, high),
            **{name: (over, values, {"units": "dB"}) for name, values in psnr.items()},
        },
        {dynamics.dimension: dynamics.times, "region": list(expansion.regions)},
    )
    return dataset.assign_attrs(_peak(dataset, dynamics, expansion))


Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # lower, middle, upper, each (time, region)


def _full_bias(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    n = len(expansion.residual)
    lower, upper = _bracket(expansion.bias, lambda x: dynamics.decay(x) ** 2)
    return _columns(lower / n, (lower + upper) / (2 * n), upper / n)


def _full_variance(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    # bounds of tr (1 - E)^2 / n = 1 - 2 tr E / n + tr E^2 / n, termwise. Known eigenvalues count
    # once each, exactly; the probes estimate the rest (as Hutch++ does, Meyer et al. 2021).
    zero = np.zeros((len(dynamics.times), 1))
    if not expansion.probes:
        return zero, zero, zero
    n = len(expansion.residual)
    lows, highs = [], []
    overshoots = dynamics.decay(np.array([expansion.largest]))[:, 0] < 0
    for probe in expansion.probes:
        known = probe.deflated.nodes
        space = dataclasses.replace(probe, deflated=Quadrature(known, np.ones(len(known))))
        total = len(known) + probe.norm**2  # n in the mean over probes
        once = _bracket(space, dynamics.decay)
        twice = _bracket(space, lambda x: dynamics.decay(x) ** 2)
        low, high = total - 2 * once[1] + twice[0], total - 2 * once[0] + twice[1]
        lows.append(np.maximum(low, 0) / n)
        highs.append(np.where(overshoots, high, np.minimum(high, total)) / n)
    low, high = np.array(lows), np.array(highs)
    return _columns(*_over_probes(low, (low + high) / 2, high))


def _bracket(
    space: KrylovSpace, function: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    rules = [rule(function) for rule in (space.gauss(), space.gauss_radau())]
    return np.minimum(*rules), np.maximum(*rules)


def _masked_bias(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    return _region_errors(expansion, dynamics, expansion.bias, expansion.residual)


def _masked_variance(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    zero = np.zeros((len(dynamics.times), len(expansion.regions)))
    if not expansion.probes:
        return zero, zero, zero
    nothing = torch.zeros_like(expansion.residual)
    samples = [_region_errors(expansion, dynamics, space, nothing) for space in expansion.probes]
    low, middle, high = (np.array(each) for each in zip(*samples, strict=True))
    return _over_probes(low, middle, high)


def _over_probes(low: np.ndarray, middle: np.ndarray, high: np.ndarray) -> Bounds:
    # mean over the first axis, the bounds widened by the standard error
    error = BAND_ERRORS * middle.std(axis=0, ddof=1) / np.sqrt(len(middle))
    return (
        np.maximum(low.mean(axis=0) - error, 0),
        middle.mean(axis=0),
        high.mean(axis=0) + error,
    )


def _region_errors(
    expansion: Expansion, dynamics: Dynamics, space: KrylovSpace, target: torch.Tensor
) -> Bounds:
    # Mean square over each region of target - Theta_.o phi(Theta_oo) v, v the start of the space.
    # phi acts through the space's basis, whose images under Theta are known. That converges so
    # fast where it does at all, that what the last fifth of the steps changed exceeds what is left.
    steps = len(space.alpha)
    exact = space.beta[-1] == 0
    fewer = steps if exact else max(1, steps - max(1, steps // 5))
    full = _coefficients(dynamics, space, steps)
    change = full.copy()
    change[:, :fewer] -= _coefficients(dynamics, space, fewer)
    masks = torch.stack([mask.double() for mask in expansion.regions.values()], dim=1)
    masks /= masks.sum(dim=0)
    squares, gaps = [], []
    # in blocks of times, so that no more than a block of images is in memory
    for start in range(0, len(full), TIMES_AT_ONCE):
        block = slice(start, start + TIMES_AT_ONCE)
        some, changed = (torch.from_numpy(x[block]).to(target.device) for x in (full, change))
        squares.append((target - some @ space.products).square() @ masks)
        gaps.append((changed @ space.products).square() @ masks)
    root, gap = as_array(torch.cat(squares).sqrt()), as_array(torch.cat(gaps).sqrt())
    return np.maximum(root - gap, 0) ** 2, root**2, (root + gap) ** 2


def _coefficients(dynamics: Dynamics, space: KrylovSpace, steps: int) -> np.ndarray:
    # of phi(Theta_oo) v in the first steps vectors of the basis, per time
    tridiagonal = np.diag(space.alpha[:steps]) + np.diag(space.beta[: steps - 1], 1)
    values, vectors = np.linalg.eigh(tridiagonal, UPLO="U")
    learned = dynamics.accumulated(np.maximum(values, 0.0)) * vectors[0]
    return np.asarray(space.norm * learned @ vectors.T)


def _columns(*arrays: np.ndarray) -> Bounds:
    low, middle, high = (array[:, None] for array in arrays)
    return low, middle, high


def resolved_stretch(curve: xr.Dataset, score_region: str) -> int:
    """Count the leading times at which the band is at most `RESOLVED_DB` wide.

    Parameters
    ----------
    curve : xarray.Dataset
        As `learning_curve` returns.
    score_region : str
        Whose band counts.

    Returns
    -------
    int
        After that many times the numerics no longer tell the prediction.
    """
    score = curve.sel(region=score_region)
    wide = np.flatnonzero(~(score.psnr_upper - score.psnr_lower <= RESOLVED_DB).values)
    return int(wide[0]) if len(wide) else len(score.psnr)


def _peak(
    dataset: xr.Dataset, dynamics: Dynamics, expansion: Expansion
) -> dict[str, float | int | str]:
    score = dataset.sel(region=expansion.score_region)
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
        "peak_time": float(dynamics.times[best]),
        "peak_resolved": int(resolved),
        "largest_eigenvalue": expansion.largest,
        "products": expansion.products,
    }
