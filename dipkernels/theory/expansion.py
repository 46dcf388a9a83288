"""The part of a prediction that costs products: Krylov spaces of the kernel for one task."""

from dataclasses import dataclass
from typing import Literal

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
from dipkernels.tasks import Task

Noise = Literal["expected", "realised"]
PROBES = 3


@dataclass(frozen=True, eq=False)
class Expansion:
    """What a kernel knows about a task, enough to predict every linear optimiser on it.

    Attributes
    ----------
    noise : {"expected", "realised"}
        Whether predictions are of the mean over noises, or of this measurement.
    residual : Tensor, float64, shape (n,)
        ``clean - f_0``: what a perfect fit has yet to learn.
    start : Tensor, float64, shape (n,)
        What the loss asks for: the residual, or ``measurement - f_0`` if the noise is realised;
        only its measured entries count.
    measured : Tensor of bool, shape (n,)
        Which outputs the loss sees.
    regions : dict of str to Tensor of bool, shape (n,)
        Where errors are averaged.
    score_region : str
        The one of them that counts.
    noise_sigma : float
        Of the measurement.
    bias : KrylovSpace
        Of the kernel on the measured outputs, from ``start``.
    known : Deflation, optional
        Eigenvectors left out of that space, because they were known before.
    probes : list of KrylovSpace
        The same from random signs; empty without noise, or if it is realised.
    largest : float
        Largest eigenvalue seen.
    products : int
        Spent on all of it.
    """

    noise: Noise
    residual: Float[Tensor, " n"]
    start: Float[Tensor, " n"]
    measured: Bool[Tensor, " n"]
    regions: dict[str, Bool[Tensor, " n"]]
    score_region: str
    noise_sigma: float
    bias: KrylovSpace
    known: Deflation | None
    probes: list[KrylovSpace]
    largest: float
    products: int


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
) -> Expansion:
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
    Expansion
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
    if task.shape != ntk.image_shape:
        raise InvalidInputError(
            f"the task has shape {task.shape}, the kernel is over images {ntk.image_shape}"
        )
    if task.clean is None:
        raise InvalidInputError("a prediction is of the error to a clean image; this task has none")
    if task.peak != 1.0:
        raise InvalidInputError(
            f"predictions are for images in [0, 1]; this white is {task.peak:g} here: use the task "
            "as it was before in_range, and a network without that output range"
        )
    probes, probe_steps, seed = _probes(noise, steps, probes, probe_steps, seed)
    measured = task.measured.to(ntk.device).flatten()
    begun = ntk.image.double().flatten()
    residual = task.clean.to(ntk.device).double().flatten() - begun
    start = residual
    if noise == "realised":
        start = task.measurement.to(ntk.device).double().flatten() - begun
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
        products = run.product_count
        if noisy:
            known.append(bias_space)
            # of another key than any probes that the spaces may come from: independent of them
            signs = ntk.rademacher(probes, derive("variance", seed))
            run = Lanczos(ntk, signs, mask=partial, deflation=_deflation(known, partial))
            probe_spaces = run.extend(probe_steps, progress=bar).spaces()
            products += run.product_count
    return Expansion(
        noise,
        residual,
        start,
        measured,
        {name: mask.to(ntk.device).flatten() for name, mask in task.regions.items()},
        task.score_region,
        task.noise_sigma,
        bias_space,
        deflation,
        probe_spaces,
        max(float(s.gauss().nodes.max()) for s in [bias_space, *probe_spaces]),
        products,
    )


def _probes(
    noise: Noise, steps: int, probes: int | None, probe_steps: int | None, seed: int | None
) -> tuple[int, int, int]:
    """Fill in and check how many probes, their steps and their seed."""
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


def default_times(largest: float, points: int = 181) -> np.ndarray:
    """Choose times from before anything is learned to long after, over nine decades.

    Parameters
    ----------
    largest : float
        Eigenvalue of the kernel, which sets the unit.
    points : int
        Of the geometric grid.

    Returns
    -------
    ndarray
        From 0.1 to 10^8 over the largest eigenvalue.

    Raises
    ------
    InvalidInputError
        If the kernel is zero.
    """
    if not largest > 0:
        raise InvalidInputError(
            "the kernel is zero: nothing is ever learned, and there is no time to measure it by"
        )
    return np.geomspace(0.1, 1e8, points) / largest


def as_array(x: torch.Tensor) -> np.ndarray:
    """Fetch a tensor as float64.

    Parameters
    ----------
    x : Tensor
        Anywhere.

    Returns
    -------
    ndarray
        On the host.
    """
    return np.asarray(x.detach().cpu().double().numpy())
