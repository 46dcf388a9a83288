"""Predictions from Krylov spaces of the kernel: what costs products, and what follows from them."""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.images.metrics import decibels
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg.golub_kahan import FactoredSpace, GolubKahan
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import Dynamics, GradientFlow
from dipkernels.theory.expansion import (
    Errors,
    Expansion,
    Noise,
    as_array,
    check_shape,
    known_image,
)

logger = logging.getLogger(__name__)

STEPS, TOLERANCE = 300, 0.3
# Band: bounds of the quadrature, widened by this many standard errors of the probes.
BAND_ERRORS = 2.0
# A probe of n signs tells a variance of n directions; this many signs in all are drawn.
SIGNS, MOST_PROBES = 2048, 16
TIMES_AT_ONCE = 16
# The peak is looked at after as many more products, which are a share of those before.
LOOK_AFTER, LOOK_SHARE = 10, 0.05
# Lower bounds of a peak rise ever more slowly: what the last quarter of at least so many products
# added, three times, is taken for all that is left (twice wasn't enough for vit-conv3).
EXTRAPOLATE_FROM, EARLIER, RISES = 100, 0.75, 3.0
# More products make bounds worse, by so many dB, where rounding has taken over.
WORSE = 0.05

_Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # lower, middle, upper, each (time, region)
_Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class KrylovExpansion(Expansion):
    """What a Krylov space of a kernel tells about a task.

    It is of the kernel on the measured outputs: from the start, and from random signs, none
    without noise, or if it is realised.
    """

    noise: Noise
    residual: Float[Tensor, " n"]  # clean - f_0: what a perfect fit has yet to learn
    measured: Bool[Tensor, " n"]  # which outputs the loss sees
    regions: dict[str, Bool[Tensor, " n"]]
    score_region: str
    noise_sigma: float
    space: FactoredSpace
    ceiling: float | None = None  # of the peak, in dB, where its bound from above is extrapolated

    @property
    def probes(self) -> int:
        """Count the random signs."""
        return int(self.space.coordinates.shape[1]) - 1

    @property
    def largest(self) -> float:  # type: ignore[override]
        """Take that of the space."""
        return self.space.largest

    @property
    def matvecs(self) -> int:  # type: ignore[override]
        """Take those of the space."""
        return self.space.matvecs

    @property
    def outputs(self) -> int:
        """Count them."""
        return len(self.residual)

    def errors(self, dynamics: Dynamics) -> Errors:
        """Take quadratures where they know the whole image, else the action on vectors."""
        return self._errors(dynamics, BAND_ERRORS)

    def peak_bounds(self) -> tuple[float, float]:
        """Bound the peak of the flow, in dB, by the products alone, which more of them narrow."""
        errors = self._errors(GradientFlow(self.times), 0.0)
        column = list(self.regions).index(self.score_region)
        low, high = errors.upper[:, column], np.maximum(errors.lower[:, column], 0)
        return float(decibels(low).max()), float(decibels(high).max())

    def _errors(self, dynamics: Dynamics, deviations: float) -> Errors:
        if self.noise == "realised":
            return Errors(*_run_errors(self, dynamics))
        plain = list(self.regions) == ["whole"] and bool(self.measured.all())
        quadrature = plain and dynamics.monotone(self.largest)
        bias = (_bias_by_quadrature if quadrature else _run_errors)(self, dynamics)
        variance = _variance(self, dynamics, deviations, quadrature=quadrature)
        if quadrature:  # which falls with time, and which rises
            bias = _ordered(bias, dynamics.times, falling=True)
            variance = _ordered(variance, dynamics.times, falling=False)
        low, middle, high = (b + v for b, v in zip(bias, variance, strict=True))
        return Errors(low, middle, high, {"bias": bias[1], "variance": variance[1]})

    def degrees_of_freedom(self, dynamics: Dynamics) -> np.ndarray:
        """Take the trace by the probes."""
        if not self.probes:
            return np.full(len(dynamics.times), np.nan)
        left = _mean([_probe_rules(self, i)[0](dynamics.decay) for i in range(self.probes)])
        return np.asarray(int(self.measured.sum()) - left)


@checked
def expand(
    ntk: NTK,
    task: Task,
    *,
    noise: Noise = "expected",
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
    probes: int | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> KrylovExpansion:
    """Build a Krylov space of the kernel from what is to be learned, and from probes for the noise.

    Parameters
    ----------
    ntk : NTK
        At initialisation, or at any parameters of a fit, from which its further course is
        predicted.
    task : Task
        Of the prior's shape, with its clean image.
    noise : {"expected", "realised"}
        What is predicted: the mean over noises of the task's variance, which must be independent
        of the parameters; or the fit of this task's own measurement. At parameters that have been
        fitted to the measurement, only the latter is right: there the residual knows the noise. It
        is exact for noise of any kind, clipped noise too, where "expected" takes white noise.
    steps : int
        At most, at least 2. About ``2 sqrt(t largest)`` give 1 % at time t. A realised measurement
        has noise in all eigenvectors, and takes about twice as many.
    tolerance : float
        In dB: no more steps are taken once the products tell the peak of gradient flow to within
        this, to either side; 0 takes all steps.
    probes : int, optional
        Random signs for the variance; by default 1, and more of images of below 2048 numbers. Of
        expected noise only; none are drawn for a task without noise.
    seed : int, optional
        Of the probes; by default 0. Of expected noise only.
    progress : bool
        Show a bar.

    Returns
    -------
    KrylovExpansion
        For `learning_curve`.

    Raises
    ------
    InvalidInputError
        If task and kernel differ in shape, the task has no clean image or measures something else
        than pixels, fewer than 2 steps or 1 probe are asked for, the tolerance is negative, or
        probes are set for realised noise.

    Notes
    -----
    A step costs a product for the residual and, with expected noise, for every probe; memory two
    images of 8-byte numbers for a product, and 4 copies of the parameters for each of the block.
    The steps are of Golub and Kahan on the Jacobian. Lanczos on the kernel, in single precision,
    loses the eigenvalues of which late times are made.

    Where the peak's bounds stay apart, one is extrapolated from what the last quarter of at least
    100 products has added to the other, three times; ``peak_extrapolated`` of the curve says so.
    """
    if noise not in ("expected", "realised"):
        raise InvalidInputError(f"noise must be 'expected' or 'realised', got {noise!r}")
    check_shape(task, ntk.image_shape)
    known_image(task)
    probes, seed = _probes(noise, steps, tolerance, probes, seed, ntk.shape[0])
    begun = ntk.image.double().flatten()
    starts = [known_image(task).to(begun.device).double().flatten() - begun]
    if noise == "realised":
        starts = [task.measurement.to(begun.device).double().flatten() - begun]
    elif task.noise_sigma > 0:
        starts += list(ntk.rademacher(probes, derive("variance", seed)).double().T)
    title = f"{ntk.prior.name}: prediction"
    return _grow(ntk, task, noise, torch.stack(starts, dim=1), steps, tolerance, title, progress)


def _grow(
    ntk: NTK,
    task: Task,
    noise: Noise,
    starts: Tensor,
    steps: int,
    tolerance: float,
    title: str,
    progress: bool,
) -> KrylovExpansion:
    """Take steps until the peak is told; twice it is never looked at for little new."""
    run = golub_kahan(ntk, task, starts)
    bounds: list[tuple[int, float]] = []  # products, lower bound of the peak
    best: tuple[float, KrylovExpansion] | None = None
    with Progress(steps, title, enabled=progress) as bar:
        done = 0
        while True:
            more = max(LOOK_AFTER, LOOK_SHARE * done * starts.shape[1]) / starts.shape[1]
            more = min(steps - done, max(1, round(more)))
            run.extend(more if tolerance else steps, progress=bar)
            done += more if tolerance else steps
            found = expansion_of(task, ntk.image, noise, run.space())
            if not tolerance:
                return found
            low, high = found.peak_bounds()
            if high - low <= 2 * tolerance:
                return found
            if best is not None and low < best[0] - WORSE:
                logger.warning(
                    "%s: rounding in %s ends the prediction after %d products; in float64, "
                    "prior.to(dtype=torch.float64), it would go on",
                    *(ntk.prior.name, ntk.dtype, found.matvecs),
                )
                return best[1]
            if best is None or low >= best[0]:
                best = low, found
            ceiling = _ceiling([*bounds, (found.matvecs, low)])
            if ceiling is not None and ceiling - low <= 2 * tolerance:
                return dataclasses.replace(found, ceiling=ceiling)
            bounds.append((found.matvecs, low))
            if done >= steps or not run.width:
                return best[1]


def _ceiling(bounds: list[tuple[int, float]]) -> float | None:
    counts, lows = np.array(bounds).T
    if counts[-1] < EXTRAPOLATE_FROM or counts[0] > EARLIER * counts[-1]:
        return None
    rise = lows[-1] - np.interp(EARLIER * counts[-1], counts, lows)
    return float(lows[-1] + RISES * rise)


def golub_kahan(ntk: NTK, task: Task, starts: Float[Tensor, "n k"]) -> GolubKahan:
    """Begin a Krylov space of the kernel on what a task measures."""
    measured = task.measured.to(ntk.device).flatten()
    return GolubKahan(ntk.factor(), starts, None if bool(measured.all()) else measured)


def expansion_of(task: Task, begun: Tensor, noise: Noise, space: FactoredSpace) -> KrylovExpansion:
    """Gather what is predicted of a fit that begins at an image."""
    begun = begun.double().flatten()
    return KrylovExpansion(
        noise=noise,
        residual=known_image(task).to(begun.device).double().flatten() - begun,
        measured=task.measured.to(begun.device).flatten(),
        regions={name: mask.to(begun.device).flatten() for name, mask in task.regions.items()},
        score_region=task.score_region,
        noise_sigma=task.noise_sigma,
        space=space,
    )


def _probes(
    noise: Noise,
    steps: int,
    tolerance: float,
    probes: int | None,
    seed: int | None,
    outputs: int,
) -> tuple[int, int]:
    """Fill in how many probes, and their seed."""
    if noise == "realised" and (probes, seed) != (None, None):
        raise InvalidInputError("realised noise needs no probes: leave out probes and seed")
    if probes is None:
        probes = min(MOST_PROBES, max(1, round(SIGNS / outputs)))
    if steps < 2:
        raise InvalidInputError(f"at least 2 steps are needed, got steps={steps}")
    if not 0 <= tolerance < np.inf:
        raise InvalidInputError(f"the tolerance is in dB and not negative, got {tolerance}")
    if probes < 1:
        raise InvalidInputError(f"at least 1 probe is needed, got {probes}")
    return probes, seed or 0


def _bias_by_quadrature(expansion: KrylovExpansion, dynamics: Dynamics) -> _Bounds:
    n, space = expansion.outputs, expansion.space
    rules = space.gauss(0), space.radau(0)
    return _columns(*(x / n for x in _falling(space, rules, lambda x: dynamics.decay(x) ** 2)))


# Bounds of tr (1 - E)^2 / n = 1 - 2 tr E / n + tr E^2 / n, termwise, of one probe.
def _probe_by_quadrature(expansion: KrylovExpansion, dynamics: Dynamics, probe: int) -> _Bounds:
    n, space = expansion.outputs, expansion.space
    rules = _probe_rules(expansion, probe)
    once = _falling(space, rules, dynamics.decay)
    twice = _falling(space, rules, lambda x: dynamics.decay(x) ** 2)
    low = np.maximum(n - 2 * once[2] + twice[0], 0) / n
    high = np.minimum(n - 2 * once[0] + twice[2], n) / n
    return _columns(low, (low + high) / 2, high)


# Of a probe, or, where the whole spectrum is known, of all eigenvalues once each.
def _probe_rules(expansion: KrylovExpansion, probe: int) -> tuple[Quadrature, Quadrature]:
    space = expansion.space
    if space.complete:
        values = space.eigenpairs()[0]
        rule = Quadrature(values, np.ones(len(values)))
        return rule, rule
    return space.gauss(1 + probe), space.radau(1 + probe)


# Bounds of a form of a falling function. Rounding moves the singular values of the Jacobian (Weyl's
# inequality): up, the function falls, and down, it rises.
def _falling(
    space: FactoredSpace, rules: tuple[Quadrature, Quadrature], function: _Function
) -> _Bounds:
    def of(rule: Quadrature, sign: int) -> np.ndarray:
        return np.asarray(function(space.moved(rule.nodes, sign)) @ rule.weights)

    gauss, radau = rules
    return of(gauss, 1), (of(gauss, 0) + of(radau, 0)) / 2, of(radau, -1)


def _columns(*arrays: np.ndarray) -> _Bounds:
    low, middle, high = (array[:, None] for array in arrays)
    return low, middle, high


# Bounds of what falls (or rises) with time hold at later (earlier) times too.
def _ordered(bounds: _Bounds, times: np.ndarray, *, falling: bool) -> _Bounds:
    order = np.argsort(times, kind="stable")
    back = np.argsort(order, kind="stable")
    low, middle, high = (each[order] if falling else each[order][::-1] for each in bounds)
    high = np.minimum.accumulate(high)
    low = np.maximum.accumulate(low[::-1])[::-1]
    middle = np.clip(middle, low, high)
    low, middle, high = (x if falling else x[::-1] for x in (low, middle, high))
    return low[back], middle[back], high[back]


# The mean over probes, widened by standard errors: of a form z^T G z of signs, the variance is at
# most 2 tr G^2 - 2 (tr G)^2 / n, which the probes estimate; over missing pixels, 2 tr G.
def _variance(
    expansion: KrylovExpansion, dynamics: Dynamics, deviations: float, *, quadrature: bool
) -> _Bounds:
    noise, n = expansion.noise_sigma**2, expansion.outputs
    if not noise:
        zero = np.zeros((len(dynamics.times), len(expansion.regions)))
        return zero, zero, zero
    if expansion.space.complete and not quadrature:
        middle = _whole_trace(expansion, dynamics)
        return noise * middle, noise * middle, noise * middle
    of_probe = _probe_by_quadrature if quadrature else _probe_errors
    samples = [of_probe(expansion, dynamics, i) for i in range(expansion.probes)]
    low, middle, high = (_mean(each) for each in zip(*samples, strict=True))
    if expansion.space.complete:
        return noise * low, noise * middle, noise * high
    sizes = np.array([int(mask.sum()) for mask in expansion.regions.values()])
    spread = middle / sizes
    if bool(expansion.measured.all()) and list(expansion.regions) == ["whole"]:
        rules = [_probe_rules(expansion, i)[0] for i in range(expansion.probes)]
        fourth = _mean([rule(lambda x: dynamics.learned(x) ** 4) for rule in rules])[:, None]
        spread = np.maximum(fourth - n * middle**2, 0) / n**2
    error = deviations * np.sqrt(2 * spread / expansion.probes)
    return noise * np.maximum(low - error, 0), noise * middle, noise * (high + error)


def _mean(samples: list[np.ndarray] | tuple[np.ndarray, ...]) -> np.ndarray:
    return np.asarray(np.mean(np.stack(samples), axis=0))


# Mean squares over regions of what all unit vectors become, from every eigenvector.
def _whole_trace(expansion: KrylovExpansion, dynamics: Dynamics) -> np.ndarray:
    values, coefficients = expansion.space.eigenpairs()
    images = torch.from_numpy(coefficients.T.copy()).to(expansion.residual.device)
    squares = (images @ expansion.space.images).square()
    masks = _masks(expansion)
    of_region = as_array(squares @ masks / masks.sum(dim=0))
    return np.asarray(np.square(dynamics.accumulated(values)) @ of_region)


# Of the fit that starts at the expansion's network, to the clean image.
def _run_errors(expansion: KrylovExpansion, dynamics: Dynamics) -> _Bounds:
    return _action_errors(expansion, dynamics, 0, expansion.residual)


# Mean square of what a fit makes of a probe; its mean over probes is that over unit noise.
def _probe_errors(expansion: KrylovExpansion, dynamics: Dynamics, probe: int) -> _Bounds:
    return _action_errors(expansion, dynamics, 1 + probe, torch.zeros_like(expansion.residual))


# Mean square over each region of `target` less what is learned of a start of the space.
def _action_errors(
    expansion: KrylovExpansion, dynamics: Dynamics, start: int, target: Tensor
) -> _Bounds:
    space, learned = expansion.space, dynamics.accumulated
    full, outside = space.action(learned, start)
    changes = [full.copy()]
    before = space.action(learned, start, space.earlier())[0]
    changes[0][:, : before.shape[1]] -= before
    changes += [full - space.action(learned, start, sign=1)[0]]
    masks = _masks(expansion)
    sizes = masks.sum(dim=0)

    # in blocks of times, so that no more than a block of images is in memory
    def roots(coefficients: np.ndarray, target: Tensor) -> np.ndarray:
        found = []
        for first in range(0, len(coefficients), TIMES_AT_ONCE):
            some = torch.from_numpy(coefficients[first : first + TIMES_AT_ONCE]).to(target.device)
            error = target - some @ space.images
            found.append(error.square() @ masks / sizes)
        return as_array(torch.cat(found).sqrt())

    root = roots(full, target)
    gap, rounded = (roots(each, torch.zeros_like(target)) for each in changes)
    # Where they bound nothing, both estimates must be small: what the last steps changed tells
    # little where they converge slowly, and the residual little of what wasn't measured.
    norm, bounded = _outside(outside, dynamics), dynamics.monotone(expansion.largest)
    for i, mask in enumerate(expansion.regions.values()):
        if bounded and not bool((mask & ~expansion.measured).any()):
            gap[:, i] = norm / np.sqrt(float(sizes[i]))
        else:
            typical = norm / np.sqrt(float(expansion.measured.sum()))
            gap[:, i] = np.maximum(gap[:, i], typical)
    gap += rounded
    return np.maximum(root - gap, 0) ** 2, root**2, (root + gap) ** 2


def _masks(expansion: KrylovExpansion) -> Tensor:
    return torch.stack([mask.double() for mask in expansion.regions.values()], dim=1)


# Norm of the residual of what the space says, by times. It bounds the error over all measured
# outputs where the dynamics are monotone. With u' = v - A u and its approximation Q^T c(t), the
# residual is a combination d(t) of the rows that come next, and the error of A u is the integral of
# A exp(-(t - s) A) d(s): of every such row, at most the largest |d(s)| until then.
def _outside(outside: np.ndarray, dynamics: Dynamics) -> np.ndarray:
    order = np.argsort(dynamics.times, kind="stable")
    largest = np.maximum.accumulate(np.abs(outside[order]))
    norms = np.empty(len(order))
    norms[order] = largest.sum(axis=1)
    return norms
