"""Predictions from Krylov spaces of the kernel: what costs products, and what follows from them."""

import dataclasses
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
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg.density import require_spaces
from dipkernels.linalg.eigenpairs import ritz_pairs
from dipkernels.linalg.lanczos import Deflation, KrylovSpace, Lanczos
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.expansion import (
    Errors,
    Expansion,
    Noise,
    as_array,
    check_shape,
    known_image,
)

PROBES = 3
# Band: bounds of the quadrature, widened by this many standard errors of the probes.
BAND_ERRORS = 2.0
TIMES_AT_ONCE = 16

_Bounds = tuple[np.ndarray, np.ndarray, np.ndarray]  # lower, middle, upper, each (time, region)


@dataclass(frozen=True, eq=False)
class KrylovExpansion(Expansion):
    """What Krylov spaces of a kernel tell about a task.

    The space of the bias is of the kernel on the measured outputs, from the start; the probes are
    the same from random signs, none without noise, or if it is realised.
    """

    noise: Noise
    residual: Float[Tensor, " n"]  # clean - f_0: what a perfect fit has yet to learn
    start: Float[Tensor, " n"]  # that, or measurement - f_0 if the noise is realised
    measured: Bool[Tensor, " n"]  # which outputs the loss sees
    regions: dict[str, Bool[Tensor, " n"]]
    score_region: str
    noise_sigma: float
    bias: KrylovSpace
    known: Deflation | None  # eigenvectors left out of that space, because they were known before
    probes: list[KrylovSpace]
    largest: float
    matvecs: int

    @classmethod
    def of_task(
        cls,
        task: Task,
        begun: Float[Tensor, " n"],
        noise: Noise,
        bias: KrylovSpace,
        matvecs: int,
        *,
        known: Deflation | None = None,
        probes: list[KrylovSpace] | None = None,
    ) -> "KrylovExpansion":
        """Gather what is predicted of a fit that begins at a flattened image, and the spaces."""
        residual, start = _targets(task, begun, noise)
        regions = {name: mask.to(begun.device).flatten() for name, mask in task.regions.items()}
        spaces = [bias, *(probes or [])]
        return cls(
            noise=noise,
            residual=residual,
            start=start,
            measured=task.measured.to(begun.device).flatten(),
            regions=regions,
            score_region=task.score_region,
            noise_sigma=task.noise_sigma,
            bias=bias,
            known=known,
            probes=probes or [],
            largest=max(float(space.gauss().nodes.max()) for space in spaces),
            matvecs=matvecs,
        )

    @property
    def outputs(self) -> int:
        """Count them."""
        return len(self.residual)

    def errors(self, dynamics: Dynamics) -> Errors:
        """Take quadratures where they know the whole image, else the action on vectors."""
        if self.noise == "realised":
            return Errors(*_run_errors(self, dynamics))
        plain = list(self.regions) == ["whole"] and bool(self.measured.all())
        quadrature = plain and dynamics.monotone(self.largest)
        bias = (_bias_by_quadrature if quadrature else _run_errors)(self, dynamics)
        variance = _variance(self, dynamics, quadrature=quadrature)
        low, middle, high = (b + v for b, v in zip(bias, variance, strict=True))
        return Errors(low, middle, high, {"bias": bias[1], "variance": variance[1]})

    def degrees_of_freedom(self, dynamics: Dynamics) -> np.ndarray:
        """Take the trace by the probes."""
        if not self.probes:
            return np.full(len(dynamics.times), np.nan)
        left = []
        for probe in self.probes:  # known eigenvalues count once each, the probes estimate the rest
            rule, known = probe.gauss(), len(probe.deflated.nodes)
            weights = rule.weights.copy()
            weights[len(weights) - known :] = 1.0
            left.append(dynamics.decay(rule.nodes) @ weights)
        return np.asarray(int(self.measured.sum()) - np.stack(left, axis=1).mean(axis=1))


@checked
def expand(
    ntk: NTK,
    task: Task,
    *,
    noise: Noise = "expected",
    steps: int = 80,
    probe_steps: int | None = None,
    probes: int | None = None,
    seed: int | None = None,
    spaces: list[KrylovSpace] | None = None,
    progress: bool = False,
) -> KrylovExpansion:
    """Run Lanczos on the kernel from what is to be learned, and from probes for the noise.

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
        Lanczos steps from the residual, at least 2. About ``2 sqrt(t largest)`` give 1 % at
        time t, fewer where known eigenvectors are deflated. A realised measurement has noise in
        all eigenvectors, and takes about twice as many.
    probe_steps : int, optional
        Lanczos steps of the probes, at least 2; by default half as many. Of expected noise only.
    probes : int, optional
        Random signs for the variance, at least 2; by default 3. Of expected noise only; none are
        drawn for a task without noise.
    seed : int, optional
        Of the probes; by default 0. Of expected noise only.
    spaces : list of KrylovSpace, optional
        Krylov spaces of the whole kernel that are known already, for instance those of its
        spectral density: no step is spent again on the eigenvectors that they have found. Not for
        a task with missing pixels.
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
        than pixels, fewer than 2 steps or probes are asked for, probes are set for realised noise,
        or spaces are given for a task with missing pixels.

    Notes
    -----
    Costs ``steps`` products and, with expected noise, ``probes * probe_steps`` more. On a fully
    measured image the probes are deflated by the eigenvectors that all runs before them have found,
    whose share of the variance is then exact.
    """
    if noise not in ("expected", "realised"):
        raise InvalidInputError(f"noise must be 'expected' or 'realised', got {noise!r}")
    if spaces is not None:
        require_spaces(spaces)
    check_shape(task, ntk.image_shape)
    begun = ntk.image.double().flatten()
    _, start = _targets(task, begun, noise)
    probes, probe_steps, seed = _probes(noise, steps, probes, probe_steps, seed)
    measured = task.measured.to(ntk.device).flatten()
    partial = None if bool(measured.all()) else measured
    if partial is not None and spaces is not None:
        raise InvalidInputError("spaces of the whole kernel have no use with missing pixels")

    known, probe_spaces = list(spaces or []), []
    noisy = task.noise_sigma > 0 and noise == "expected"
    with Progress(
        steps + probe_steps * noisy, f"{ntk.prior.name}: prediction", enabled=progress
    ) as bar:
        deflation = _deflation(known, partial)
        run = Lanczos(ntk, start[:, None], mask=partial, deflation=deflation)
        (bias_space,) = run.extend(steps, progress=bar).spaces()
        matvecs = run.matvecs
        if noisy:
            known.append(bias_space)
            # of another key than any probes that the spaces may come from: independent of them
            signs = ntk.rademacher(probes, derive("variance", seed))
            run = Lanczos(ntk, signs, mask=partial, deflation=_deflation(known, partial))
            probe_spaces = run.extend(probe_steps, progress=bar).spaces()
            matvecs += run.matvecs
    return KrylovExpansion.of_task(
        task, begun, noise, bias_space, matvecs, known=deflation, probes=probe_spaces
    )


def _probes(
    noise: Noise, steps: int, probes: int | None, probe_steps: int | None, seed: int | None
) -> tuple[int, int, int]:
    """Fill in how many probes, their steps and their seed."""
    if noise == "realised" and (probes, probe_steps, seed) != (None, None, None):
        raise InvalidInputError(
            "realised noise needs no probes: leave out probes, probe_steps and seed"
        )
    probes = PROBES if probes is None else probes
    probe_steps = max(2, steps // 2) if probe_steps is None else probe_steps
    if min(steps, probe_steps) < 2:
        raise InvalidInputError(
            f"at least 2 Lanczos steps are needed, got steps={steps}, probe_steps={probe_steps}"
        )
    if probes < 2:
        raise InvalidInputError(f"at least 2 probes are needed for an error bar, got {probes}")
    return probes, probe_steps, seed or 0


def _deflation(spaces: list[KrylovSpace], partial: Tensor | None) -> Deflation | None:
    """Gather the eigenvectors that these spaces have found between them."""
    if partial is not None or not spaces:
        return None
    found = ritz_pairs(spaces, sum(len(space.alpha) for space in spaces)).converged()
    return found if len(found.values) else None


# What a perfect fit has yet to learn of the clean image, and what the loss asks for.
def _targets(task: Task, begun: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    residual = known_image(task).to(begun.device).double().flatten() - begun
    if noise == "expected":
        return residual, residual
    return residual, task.measurement.to(begun.device).double().flatten() - begun


def _bias_by_quadrature(expansion: KrylovExpansion, dynamics: Dynamics) -> _Bounds:
    n = len(expansion.residual)
    lower, upper = _bracket(expansion.bias, lambda x: dynamics.decay(x) ** 2)
    return _columns(lower / n, (lower + upper) / (2 * n), upper / n)


def _variance(expansion: KrylovExpansion, dynamics: Dynamics, *, quadrature: bool) -> _Bounds:
    if not expansion.probes:
        zero = np.zeros((len(dynamics.times), len(expansion.regions)))
        return zero, zero, zero
    of_probe = _probe_by_quadrature if quadrature else _probe_errors
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
def _probe_by_quadrature(
    expansion: KrylovExpansion, dynamics: Dynamics, probe: KrylovSpace
) -> _Bounds:
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


def _columns(*arrays: np.ndarray) -> _Bounds:
    low, middle, high = (array[:, None] for array in arrays)
    return low, middle, high


# Of the fit that starts at the expansion's network, to the clean image.
def _run_errors(expansion: KrylovExpansion, dynamics: Dynamics) -> _Bounds:
    shares = None
    if expansion.known is not None:
        values, vectors = expansion.known.values.cpu().numpy(), expansion.known.vectors
        learned = values * dynamics.accumulated(values)
        shares = learned * as_array(expansion.start @ vectors), vectors
    return _errors(expansion, dynamics, expansion.bias, expansion.residual, shares)


# Mean square of what a fit makes of a probe, and of known eigenvectors once each: the mean over
# probes is that over noises of variance 1.
def _probe_errors(expansion: KrylovExpansion, dynamics: Dynamics, space: KrylovSpace) -> _Bounds:
    found = _errors(expansion, dynamics, space, torch.zeros_like(expansion.residual), None)
    values = space.deflated.nodes
    once = np.square(values * dynamics.accumulated(values)).sum(axis=1) / len(expansion.residual)
    low, middle, high = (part + once[:, None] for part in found)
    return low, middle, high


# Mean square over each region of `target` less what is learned of the start of the space, and of
# known vectors, whose coefficients come by times.
def _errors(
    expansion: KrylovExpansion,
    dynamics: Dynamics,
    space: KrylovSpace,
    target: Tensor,
    known: tuple[np.ndarray, Tensor] | None,
) -> _Bounds:
    full = _coefficients(dynamics, space, len(space.alpha))
    change = full.copy()
    change[:, : earlier(space)] -= _coefficients(dynamics, space, earlier(space))
    masks = torch.stack([mask.double() for mask in expansion.regions.values()], dim=1)
    sizes = masks.sum(dim=0)
    squares, changes = [], []
    # in blocks of times, so that no more than a block of images is in memory
    for first in range(0, len(full), TIMES_AT_ONCE):
        block = slice(first, first + TIMES_AT_ONCE)
        some, changed = (torch.from_numpy(x[block]).to(target.device) for x in (full, change))
        error = target - some @ space.products
        if known is not None:
            error -= torch.from_numpy(known[0][block]).to(target.device) @ known[1].T
        squares.append(error.square() @ masks / sizes)
        changes.append((changed @ space.products).square() @ masks / sizes)
    root, gap = as_array(torch.cat(squares).sqrt()), as_array(torch.cat(changes).sqrt())
    # Where they bound nothing, both estimates must be small: what the last steps changed tells
    # little where they converge slowly, and the residual little of what wasn't measured.
    norm, bounded = _residual(space, full), dynamics.monotone(expansion.largest)
    for i, mask in enumerate(expansion.regions.values()):
        if bounded and not bool((mask & ~expansion.measured).any()):
            gap[:, i] = norm / np.sqrt(float(sizes[i]))
        else:
            typical = norm / np.sqrt(float(expansion.measured.sum()))
            gap[:, i] = np.maximum(gap[:, i], typical)
    return np.maximum(root - gap, 0) ** 2, root**2, (root + gap) ** 2


# Norm of the residual of what the space says, by times. It bounds the error over all measured
# outputs where the dynamics are monotone. With
# u' = v - A u and its approximation Q c(t), the residual is d(t) q_{m+1}, d = -beta_m c_m, and the
# error of A u is the integral of A exp(-(t - s) A) d(s) q_{m+1}. c_m is a divided difference of
# phi, whose sign doesn't change with t, so that |d| grows and the error is at most |d(t)|. So for
# descent, as long as all its factors 1 - step x are in [0, 1].
def _residual(space: KrylovSpace, coefficients: np.ndarray) -> np.ndarray:
    if not len(space.alpha):
        return np.zeros(len(coefficients))
    return np.asarray(space.beta[-1] * np.abs(coefficients[:, -1]))


def earlier(space: KrylovSpace) -> int:
    """Count the steps but for the last fifth, which tells errors; all of an invariant space."""
    steps = len(space.alpha)
    return steps if not steps or space.beta[-1] == 0 else max(1, steps - max(1, steps // 5))


# Of phi(Theta_oo) v in the first steps vectors of the basis, per time.
def _coefficients(dynamics: Dynamics, space: KrylovSpace, steps: int) -> np.ndarray:
    if not steps:
        return np.zeros((len(dynamics.times), 0))
    return space.action(dynamics.accumulated, steps)
