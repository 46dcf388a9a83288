"""Optimisers of a fit, and the step that gradient descent can take."""

import dataclasses

import torch

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.settings import OPTIMISERS, FitSettings
from dipkernels.kernels.ntk import NTK
from dipkernels.kernels.observed import ObservedKernel
from dipkernels.linalg.eigenpairs import top_eigenpairs
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.priors.prior import ImagePrior, Parameters
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES
from dipkernels.tasks.operators import Scaled

ADAM_LEARNING_RATE = 1e-3
LBFGS_HISTORY = 10
LBFGS_EVALUATIONS = 25  # at most, in one line search


def make_optimiser(
    settings: FitSettings, leaves: Parameters, learning_rate: float
) -> torch.optim.Optimizer:
    """Make the optimiser of a fit."""
    own, parameters = OPTIMISERS[settings.optimiser], list(leaves.values())
    if own is not None:
        made: torch.optim.Optimizer = own.make(leaves, learning_rate)
        return made
    if settings.optimiser == "l-bfgs":
        return torch.optim.LBFGS(
            parameters,
            lr=learning_rate,
            max_iter=1,
            max_eval=LBFGS_EVALUATIONS,  # torch would allow one, and then stand still
            history_size=LBFGS_HISTORY,
            line_search_fn="strong_wolfe",
        )
    # Fused: the step of a network of 60 M parameters took 0.05 s on two cores, against 0.22 s.
    if settings.optimiser == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    momentum = settings.momentum or 0.0
    return torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, fused=True)


def default_learning_rate(
    optimiser: str, prior: ImagePrior, parameters: Parameters, task: Task | None = None
) -> float:
    """Choose a step where the caller gave none."""
    if optimiser == "adam":
        return ADAM_LEARNING_RATE if prior.learning_rate is None else prior.learning_rate
    if optimiser == "l-bfgs":
        return 1.0
    if (own := OPTIMISERS[optimiser]) is not None:
        return float(own.learning_rate)
    ntk = NTK(prior, parameters)
    if task is None or (task.operator.mask is not None and task.law == SQUARES):
        return stable_learning_rate(ntk)
    return stable_learning_rate(curved(ntk, task))


def curved(ntk: NTK, task: Task, sigma: float | None = None) -> ObservedKernel:
    """Half of the curvature of the loss: what is measured of the kernel, and what errors cost."""
    # D A K A^T D, with D^2 half of the second derivative of the cost, which is 1 of squares
    if task.law == SQUARES:
        return ObservedKernel(ntk, task)
    task = task.to(device=ntk.device, dtype=ntk.dtype)
    seen = task.forward(ntk.image.reshape(task.shape).to(ntk.dtype))
    sigma = task.noise_sigma if sigma is None else sigma
    half = task.law.curvature(seen, task.measurement, sigma) / 2
    roots = half.sqrt().expand(task.measurement.shape)
    plain = dataclasses.replace(task, law=SQUARES, operator=Scaled(task.operator, roots))
    return ObservedKernel(ntk, plain)


@checked
def stable_learning_rate(
    ntk: SymmetricOperator, *, largest_eigenvalue: float | None = None
) -> float:
    """Step of gradient descent at half of its limit of stability, from the NTK.

    On the loss ``mean((f - y)^2)`` over n outputs, an error along an eigenvector of the NTK
    shrinks by ``1 - (2 / n) learning_rate eigenvalue`` a step: stable if that is above -1 for
    the largest. The step that makes it 0 for the largest is returned. Where pixels are missing,
    the eigenvalues that count are smaller, and the step is stable all the more.

    Parameters
    ----------
    ntk : SymmetricOperator
        Of size n; of a measurement by another operator than a mask,
        `dipkernels.kernels.ObservedKernel`.
    largest_eigenvalue : float, optional
        If known; else computed to 1 %, from some tens of products.

    Returns
    -------
    float
        ``n / (2 * largest_eigenvalue)``.

    Raises
    ------
    InvalidInputError
        If the kernel is zero.
    """
    if largest_eigenvalue is None:
        pairs = top_eigenpairs(ntk, 1, tolerance=0.01, max_matvecs=40, starts=1)
        largest_eigenvalue = float(pairs.values[0])
    if not largest_eigenvalue > 0:
        raise InvalidInputError(
            f"the largest eigenvalue of the kernel is {largest_eigenvalue:g}: the network's image "
            "doesn't depend on its parameters here, gradient descent can't move it"
        )
    return ntk.shape[0] / (2 * largest_eigenvalue)
