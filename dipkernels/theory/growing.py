"""`expand`: products with a kernel, until they tell the peak of a fit."""

import dataclasses
import logging

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.observed import ObservedKernel, Sight
from dipkernels.linalg.golub_kahan import FactoredSpace, GolubKahan
from dipkernels.tasks import Task
from dipkernels.theory.expansion import Noise, check_shape, known_image
from dipkernels.theory.krylov import BAND_ERRORS, KrylovExpansion

logger = logging.getLogger(__name__)

STEPS, TOLERANCE = 300, 0.3
# A probe of n signs tells a variance of n directions; this many signs in all are drawn.
SIGNS, MOST_PROBES = 2048, 16
# The peak is looked at after as many more products, which are a share of those before.
LOOK_AFTER, LOOK_SHARE = 10, 0.05
# Lower bounds of a peak rise ever more slowly: what the last quarter of at least so many products
# added, three times, is taken for all that is left (twice wasn't enough for vit-conv3).
EXTRAPOLATE_FROM, EARLIER, RISES = 100, 0.75, 3.0
# More products make bounds worse, by so many dB, where rounding has taken over.
WORSE = 0.05


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
        Of the prior's shape, with its clean image; any linear measurement.
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
        If task and kernel differ in shape, the task has no clean image or isn't linear with
        Gaussian noise, fewer than 2 steps or 1 probe are asked for, the tolerance is negative, or
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
    probes, seed = check_effort(noise, steps, tolerance, probes, seed, ntk.shape[0])
    begun = ntk.image.double().flatten()
    if noise == "realised":
        starts = [yet_to_learn(task, begun)]
    else:
        starts = [seen_by(task, known_image(task).to(begun.device).double().flatten() - begun)]
    if noise == "expected" and task.noise_sigma > 0:
        signs = ObservedKernel(ntk, task).rademacher(probes, derive("variance", seed)).double()
        starts += list(signs.T * task.counted.to(begun.device).flatten())
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
                # the probe's error widens this end as it does the other
                widened = ceiling + low - found.peak_bounds(BAND_ERRORS)[0]
                return dataclasses.replace(found, ceiling=widened)
            bounds.append((found.matvecs, low))
            if done >= steps or not run.width:
                return best[1]


def _ceiling(bounds: list[tuple[int, float]]) -> float | None:
    counts, lows = np.array(bounds).T
    if counts[-1] < EXTRAPOLATE_FROM or counts[0] > EARLIER * counts[-1]:
        return None
    rise = lows[-1] - np.interp(EARLIER * counts[-1], counts, lows)
    return float(lows[-1] + RISES * rise)


def golub_kahan(ntk: NTK, task: Task, starts: Float[Tensor, "m k"]) -> GolubKahan:
    """Begin a Krylov space of the kernel of what a task measures."""
    if task.operator.mask is None:
        return GolubKahan(ntk.factor(), starts, Sight(task, ntk.device))
    measured = task.measured.to(ntk.device).flatten()
    return GolubKahan(ntk.factor(), starts, None if bool(measured.all()) else measured)


def seen_by(task: Task, image: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Measure a flattened image, 0 where nothing counts."""
    if task.operator.mask is None:
        return Sight(task, image.device).measure(image[None])[0]
    return image * task.measured.to(image.device).flatten()


def yet_to_learn(task: Task, begun: Float[Tensor, " n"]) -> Float[Tensor, " m"]:
    """Measurement less what is measured of an image, noise included."""
    counted = task.counted.to(begun.device).flatten()
    measurement = task.measurement.to(begun.device).double().flatten()
    return measurement * counted - seen_by(task, begun)


def expansion_of(task: Task, begun: Tensor, noise: Noise, space: FactoredSpace) -> KrylovExpansion:
    """Gather what is predicted of a fit that begins at an image."""
    begun = begun.double().flatten()
    gain = 1.0
    if task.operator.mask is None:
        measured, dtype = torch.zeros_like(begun, dtype=torch.bool), task.measurement.dtype
        gain = task.operator.norm(device=task.measurement.device, dtype=dtype)
    else:
        measured = task.measured.to(begun.device).flatten()
    return KrylovExpansion(
        noise=noise,
        residual=known_image(task).to(begun.device).double().flatten() - begun,
        measured=measured,
        counted=int(task.counted.sum()),
        length=task.measurement.numel(),
        gain=gain,
        regions={name: mask.to(begun.device).flatten() for name, mask in task.regions.items()},
        score_region=task.score_region,
        noise_sigma=task.noise_sigma,
        space=space,
    )


def check_effort(
    noise: Noise,
    steps: int,
    tolerance: float,
    probes: int | None,
    seed: int | None,
    outputs: int,
) -> tuple[int, int]:
    """Check what is to be spent; fill in how many probes, and their seed."""
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
