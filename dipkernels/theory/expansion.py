"""The part of a prediction that costs products: Krylov spaces of the kernel for one task."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg.lanczos import KrylovSpace, Lanczos
from dipkernels.progress import Progress
from dipkernels.tasks import Task


@dataclass(frozen=True, eq=False)
class Expansion:
    """What a kernel knows about a task, enough to predict every linear optimiser on it.

    Attributes
    ----------
    residual : Tensor, float64, shape (n,)
        ``clean - f_0``: what a perfect fit has yet to learn.
    measured : Tensor of bool, shape (n,)
        Which outputs the loss sees.
    regions : dict of str to Tensor of bool, shape (n,)
        Where errors are averaged.
    score_region : str
        The one of them that counts.
    noise_sigma : float
        Of the measurement.
    bias : KrylovSpace
        Of the kernel on the measured outputs, from the residual.
    probes : list of KrylovSpace
        The same from random signs; empty without noise.
    largest : float
        Largest eigenvalue seen.
    products : int
        Spent on all of it.
    """

    residual: Float[Tensor, " n"]
    measured: Bool[Tensor, " n"]
    regions: dict[str, Bool[Tensor, " n"]]
    score_region: str
    noise_sigma: float
    bias: KrylovSpace
    probes: list[KrylovSpace]
    largest: float
    products: int


def expand(
    ntk: NTK,
    task: Task,
    *,
    steps: int = 80,
    probe_steps: int | None = None,
    probes: int = 3,
    seed: int = 0,
    spaces: list[KrylovSpace] | None = None,
    progress: bool = False,
) -> Expansion:
    """Run Lanczos on the kernel from the residual and, where there is noise, from probes.

    Parameters
    ----------
    ntk : NTK
        At initialisation.
    task : Task
        Of the prior's shape, with its clean image.
    steps : int
        Lanczos steps from the residual, at least 2. About ``1.7 sqrt(t largest)`` give 1 % at
        time t (formulas: section 7).
    probe_steps : int, optional
        Lanczos steps of the probes, at least 2; by default half as many.
    probes : int
        Random signs for the variance, at least 2.
    seed : int
        Of the probes.
    spaces : list of KrylovSpace, optional
        The probes' spaces, at least 2, if they were computed before: from random signs on the
        outputs that this task measures. They cost nothing then, and the three settings above
        have no use.
    progress : bool
        Show a bar.

    Returns
    -------
    Expansion
        For `learning_curve`.

    Raises
    ------
    InvalidInputError
        If task and kernel differ in shape, fewer than 2 steps or probes are asked for, or the
        spaces given are of other outputs than the task measures.
    """
    if task.shape != ntk.image_shape:
        raise InvalidInputError(
            f"the task has shape {task.shape}, the kernel is over images {ntk.image_shape}"
        )
    probe_steps = max(2, steps // 2) if probe_steps is None else probe_steps
    if min(steps, probe_steps) < 2:
        raise InvalidInputError(
            f"at least 2 Lanczos steps are needed, got steps={steps}, probe_steps={probe_steps}"
        )
    available = probes if spaces is None else len(spaces)
    if available < 2:
        raise InvalidInputError(f"at least 2 probes are needed for an error bar, got {available}")
    residual = (task.clean.to(ntk.device).double() - ntk.image.double()).flatten()
    channels = task.shape[0]

    def flat(mask: Tensor) -> Tensor:
        return mask.to(ntk.device).expand(channels, *mask.shape).flatten()

    measured = flat(task.mask)
    partial = None if bool(measured.all()) else measured
    for space in spaces or []:
        if not torch.equal(space.basis[0] != 0, measured):
            raise InvalidInputError(
                "the spaces given weren't started from random signs on the outputs that the task "
                "measures: run Lanczos with mask= for a task with missing pixels, without otherwise"
            )
    run_probes = task.noise_sigma > 0 and spaces is None
    with Progress(
        steps + probe_steps * run_probes, f"{ntk.prior.name}: prediction", enabled=progress
    ) as bar:
        bias = Lanczos(ntk, residual[:, None], mask=partial).extend(steps, progress=bar)
        if run_probes:
            signs = ntk.rademacher(probes, seed)
            spaces = Lanczos(ntk, signs, mask=partial).extend(probe_steps, progress=bar).spaces()
    used = (spaces or []) if task.noise_sigma > 0 else []
    (bias_space,) = bias.spaces()
    return Expansion(
        residual,
        measured,
        {name: flat(mask) for name, mask in task.regions.items()},
        task.score_region,
        task.noise_sigma,
        bias_space,
        used,
        max(float(space.ritz()[0][-1]) for space in [bias_space, *used]),
        bias.product_count + (sum(len(s.alpha) for s in used) if run_probes else 0),
    )


def default_times(expansion: Expansion, points: int = 161) -> np.ndarray:
    """Choose times from before anything is learned to long after, over eight decades.

    Parameters
    ----------
    expansion : Expansion
        Whose largest eigenvalue sets the unit.
    points : int
        Of the geometric grid.

    Returns
    -------
    ndarray
        From 0.1 to 10^7 over the largest eigenvalue.
    """
    return np.geomspace(0.1, 1e7, points) / expansion.largest


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
