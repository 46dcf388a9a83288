"""How much of an error lies where a measurement sees nothing: in the null space of its operator."""

import warnings

import numpy as np
import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import AccuracyWarning, InvalidInputError
from dipkernels.kernels.observed import Sight
from dipkernels.linalg import conjugate_gradients
from dipkernels.tasks import Task
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.expansion import as_array, check_shape
from dipkernels.theory.krylov import KrylovExpansion

TOLERANCE, ITERATIONS = 1e-8, 2000
UNRESOLVED = 0.01  # of the error, both as mean squares


@checked
def unseen_error(
    expansion: KrylovExpansion, task: Task, dynamics: Dynamics, *, threshold: float = 0.01
) -> xr.Dataset:
    """Split a predicted error by what the task's operator sees of it.

    Of expected noise it is the bias that is split, ``b``: the fit of a measurement without noise
    less the clean image. With P the projection on the range of ``A^T``, that of what is seen is
    ``|P b|^2``, and of what isn't, in the null space of A, ``|b - P b|^2``: a network fills it by
    its prior alone.

    Parameters
    ----------
    expansion : Expansion
        From `expand`, or that of a `linear_fit`.
    task : Task
        Of which it is.
    dynamics : Dynamics
        At its times; each costs a system of linear equations, if the operator is no mask.
    threshold : float
        In (0, 1), of the operator's norm: a direction counts as seen by the share ``s^2 / (s^2 +
        threshold^2)``, s being its singular value over the norm. Of a blur, which has no sharp
        null space, it says which details are lost.

    Returns
    -------
    xarray.Dataset
        Over the dynamics' time: ``seen`` and ``unseen``, mean squares over the whole image that sum
        to the bias, or, of realised noise, to the error; ``unresolved``, the mean square by which
        the products may be off: what the last fifth of them changed, and what rounding does.

    Raises
    ------
    InvalidInputError
        If the threshold is out of range, or the task isn't the expansion's.

    Notes
    -----
    By conjugate gradients, with the operator and its adjoint alone. `AccuracyWarning` is given
    where they, or the products of the expansion, weren't enough.

    Examples
    --------
    >>> from dipkernels import NTK, images, networks
    >>> from dipkernels.tasks import bernoulli_mask, inpaint
    >>> from dipkernels.theory import GradientFlow, expand
    >>> prior = networks.create("deep-decoder", image_size=8, channels=1, width=8)
    >>> task = inpaint(images.load("camera", size=8), bernoulli_mask((8, 8)))
    >>> expansion = expand(NTK(prior, prior.init(0)), task)
    >>> late = unseen_error(expansion, task, GradientFlow(np.array([1e3])))
    >>> bool(late.unseen > 100 * late.seen)  # the hole
    True
    """
    check_shape(task, task.shape)
    if not 0 < threshold < 1:
        raise InvalidInputError(f"threshold must be in (0, 1), got {threshold}")
    if int(np.prod(task.shape)) != expansion.outputs or expansion.entries != (
        task.measurement.numel()
    ):
        raise InvalidInputError("the expansion is of another task: make it of this one")
    space = expansion.space
    learned = space.images_of(dynamics.accumulated)
    errors, device = expansion.residual - learned, learned.device
    others = [space.images_of(dynamics.accumulated, space.earlier())]
    others += [space.images_of(dynamics.accumulated, sign=sign) for sign in (-1, 1)]
    unresolved = torch.stack([(learned - x).square().mean(dim=1) for x in others]).amax(dim=0)
    if bool((unresolved > UNRESOLVED * errors.square().mean(dim=1)).any()):
        warnings.warn(
            "at some times the expansion's products don't resolve the error (see 'unresolved'): "
            "take earlier times, more steps, or a network in float64",
            AccuracyWarning,
            stacklevel=3,
        )
    if task.operator.mask is not None:
        seen = errors * task.measured.to(device).flatten()
    else:
        sight, floor = Sight(task, device), (threshold * expansion.gain) ** 2
        solution = conjugate_gradients(
            lambda rows: sight.measure(sight.spread(rows)) + floor * rows,
            sight.measure(errors),
            tolerance=TOLERANCE,
            max_iterations=ITERATIONS,
        )
        seen = sight.spread(solution.x)
    parts = {
        "seen": (errors * seen).mean(dim=1),
        "unseen": (errors * (errors - seen)).mean(dim=1),
        "unresolved": unresolved,
    }
    values = {name: (dynamics.dimension, as_array(part)) for name, part in parts.items()}
    return xr.Dataset(values, {dynamics.dimension: dynamics.times}, {"threshold": threshold})
