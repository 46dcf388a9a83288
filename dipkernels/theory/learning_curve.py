"""Predicted learning curves: expected error against time, from the kernel alone."""

import numpy as np
import torch
import xarray as xr

from dipkernels.linalg.lanczos import KrylovSpace
from dipkernels.theory.dynamics import Dynamics, GradientFlow
from dipkernels.theory.expansion import Expansion, as_array, default_times

# Band: bounds of the quadrature, widened by this many standard errors of the probes.
BAND_ERRORS = 2.0


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
        `GradientFlow` (the default, over ten decades of time) or `GradientDescent`.

    Returns
    -------
    xarray.Dataset
        Over the dynamics' time and ``region``: ``mse``, its parts ``bias`` and ``variance``, the
        band ``mse_lower`` to ``mse_upper``, and ``psnr`` with ``psnr_lower`` and ``psnr_upper``
        (dB). Attributes: ``peak_psnr``, ``peak_psnr_lower``, ``peak_psnr_upper`` and
        ``peak_time`` in the score region; ``at_end`` if the peak is the last time; ``products``.

    Notes
    -----
    Band, image fully measured: Gauss and Gauss-Radau quadrature bound bias and variance from
    both sides in exact arithmetic (for gradient descent up to half of its limit of stability,
    ``step * largest <= 1``), widened by two standard errors of the probes. With missing pixels:
    the Krylov approximation of the filter against the one with a fifth fewer steps, likewise
    widened. The band covers the numerics, not the network's departure from its linearisation.
    Source: formulas, section 7; Golub & Meurant 2010.
    """
    dynamics = dynamics or GradientFlow(default_times(expansion))
    if bool(expansion.measured.all()):
        bias, variance = _full_bias(expansion, dynamics), _full_variance(expansion, dynamics)
    else:
        bias, variance = _masked_bias(expansion, dynamics), _masked_variance(expansion, dynamics)
    noise = expansion.noise_sigma**2
    low, middle, high = (b + noise * v for b, v in zip(bias, variance, strict=True))
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
    lower = expansion.bias.gauss()(lambda x: dynamics.decay(x) ** 2) / n
    upper = expansion.bias.gauss_radau()(lambda x: dynamics.decay(x) ** 2) / n
    return _columns(lower, (lower + upper) / 2, upper)


def _full_variance(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    """Bounds of ``tr (1 - E)^2 / n = 1 - 2 tr E / n + tr E^2 / n``, termwise."""
    zero = np.zeros((len(dynamics.times), 1))
    if not expansion.probes:
        return zero, zero, zero
    n = len(expansion.residual)
    lows, highs = [], []
    for space in expansion.probes:
        gauss, radau = space.gauss(), space.gauss_radau()
        first = [rule(dynamics.decay) / n for rule in (gauss, radau)]
        second = [rule(lambda x: dynamics.decay(x) ** 2) / n for rule in (gauss, radau)]
        lows.append(np.maximum(1 - 2 * first[1] + second[0], 0))
        highs.append(np.minimum(1 - 2 * first[0] + second[1], 1))
    low, high = np.array(lows), np.array(highs)
    middle = (low + high) / 2
    error = BAND_ERRORS * middle.std(axis=0, ddof=1) / np.sqrt(len(middle))
    return _columns(
        np.maximum(low.mean(axis=0) - error, 0), middle.mean(axis=0), high.mean(axis=0) + error
    )


def _masked_bias(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    steps = len(expansion.bias.alpha)
    full = _region_errors(expansion, dynamics, expansion.bias, steps, expansion.residual)
    fewer = max(1, steps - max(1, steps // 5))
    coarse = _region_errors(expansion, dynamics, expansion.bias, fewer, expansion.residual)
    gap = np.abs(full - coarse)
    return np.maximum(full - gap, 0), full, full + gap


def _masked_variance(expansion: Expansion, dynamics: Dynamics) -> Bounds:
    zero = np.zeros((len(dynamics.times), len(expansion.regions)))
    if not expansion.probes:
        return zero, zero, zero
    samples = np.array(
        [_region_errors(expansion, dynamics, s, len(s.alpha), None) for s in expansion.probes]
    )
    middle = samples.mean(axis=0)
    error = BAND_ERRORS * samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.maximum(middle - error, 0), middle, middle + error


def _region_errors(
    expansion: Expansion,
    dynamics: Dynamics,
    space: KrylovSpace,
    steps: int,
    target: torch.Tensor | None,
) -> np.ndarray:
    """Mean square over each region of ``target - Theta_.o phi(Theta_oo) v``, per time.

    ``v`` is the start of the space; the filter acts through its first ``steps`` vectors, whose
    images under the kernel are known. Without a target, of the filtered ``v`` itself.
    """
    tridiagonal = np.diag(space.alpha[:steps]) + np.diag(space.beta[: steps - 1], 1)
    values, vectors = np.linalg.eigh(tridiagonal, UPLO="U")
    values = np.maximum(values, 0.0)
    weights = space.norm * (dynamics.accumulated(values) * vectors[0]) @ vectors.T
    coefficients = torch.from_numpy(weights).to(space.products.device)
    masks = torch.stack([mask.double() for mask in expansion.regions.values()])
    sizes = masks.sum(dim=1)
    rows = []
    for coefficient in coefficients:  # one time after another: memory of one image
        filtered = coefficient @ space.products[:steps]
        error = filtered if target is None else target - filtered
        rows.append((masks @ error.square()) / sizes)
    return as_array(torch.stack(rows))


def _columns(*arrays: np.ndarray) -> Bounds:
    low, middle, high = (array[:, None] for array in arrays)
    return low, middle, high


def _peak(
    dataset: xr.Dataset, dynamics: Dynamics, expansion: Expansion
) -> dict[str, float | int | str]:
    score = dataset.sel(region=expansion.score_region)
    best = int(np.argmax(score.psnr.values))
    return {
        "score_region": expansion.score_region,
        "peak_psnr": float(score.psnr[best]),
        "peak_psnr_lower": float(score.psnr_lower.max()),
        "peak_psnr_upper": float(score.psnr_upper.max()),
        "peak_time": float(dynamics.times[best]),
        "at_end": int(best == len(dynamics.times) - 1),
        "largest_eigenvalue": expansion.largest,
        "products": expansion.products,
    }
