"""Heckel & Soltanolkotabi, figure 7: the singular vectors of the Jacobian over a fit."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import fit
from dipkernels.literature.jacobians import chosen_layers, jacobian, pullback
from dipkernels.priors import ImagePrior, Parameters
from dipkernels.tasks import Task

VARIANTS = ("correct", "accumulated")


def jacobian_along_fit(
    prior: ImagePrior,
    task: Task,
    signals: Mapping[str, Tensor],
    *,
    iterations: Sequence[int],
    ranks: Sequence[int],
    learning_rate: float,
    seed: int = 0,
    layers: Sequence[str] | None = None,
) -> xr.Dataset:
    """Follow the singular vectors of the Jacobian over a fit by Adam, rightly and as published.

    Parameters
    ----------
    prior : ImagePrior
        Small: its Jacobian is formed.
    task : Task
        What is fitted.
    signals : mapping of str to Tensor
        Whose part outside of the leading singular vectors is measured.
    iterations : sequence of int
        Ascending, at least 1 each; the first is what the others are compared with.
    ranks : sequence of int
        Numbers of leading vectors.
    learning_rate : float
        Of Adam.
    seed : int
        Of the initialisation.
    layers : sequence of str, optional
        As of `jacobian`.

    Returns
    -------
    xarray.Dataset
        Over ``variant`` ("correct"; "accumulated", see `accumulated`) and ``iteration``:
        ``singular_value(..., index)``; ``overlap(..., rank)`` with the leading vectors at the
        first iteration; ``with_sums(..., rank)``, the overlap with those of the sum of all pixels
        up to one, which knows no network; ``unexplained(..., signal, rank)``;
        ``vector(..., rank, output)``, the left singular vectors of number rank - 1.
        ``relative_error(iteration)`` of the fit to the measurement.

    Raises
    ------
    InvalidInputError
        If iterations or ranks are out of range, a signal has another shape or there is none, or a
        layer is no parameter.
    DivergenceError
        If the fit diverges before the last iteration.
    """
    iterations, ranks = list(iterations), list(ranks)
    if iterations != sorted(set(iterations)) or not iterations or iterations[0] < 1:
        raise InvalidInputError(f"iterations must be ascending, from 1 on, got {iterations}")
    if not ranks or min(ranks) < 1 or max(ranks) > math.prod(prior.shape):
        raise InvalidInputError(f"ranks must be in 1 to {math.prod(prior.shape)}, got {ranks}")
    wrong = [name for name, signal in signals.items() if tuple(signal.shape) != prior.shape]
    if wrong or not signals:
        raise InvalidInputError(f"signals must be images of shape {prior.shape}: {wrong or 'none'}")
    chosen = chosen_layers(prior, layers)
    kept = _iterates(prior, task, iterations, learning_rate, seed)
    y = task.measurement.flatten().to(prior.device, prior.dtype)
    fields: dict[str, list[list[np.ndarray]]] = {
        key: [[], []] for key in ("singular_value", "overlap", "with_sums", "unexplained", "vector")
    }
    sums = torch.linalg.svd(torch.ones(len(y), len(y), dtype=torch.float64).tril()).U.to(y.device)
    firsts: list[Tensor] = []
    errors = []
    for iteration in iterations:
        image = prior.image(kept[iteration]).detach().flatten()
        errors.append(float((image - y).norm() / y.norm()))
        right = jacobian(prior, kept[iteration], layers=chosen)
        last = _loss_gradient(prior, task, kept[iteration - 1], chosen)
        for variant, matrix in enumerate((right, accumulated(right, last))):
            left, values, _ = torch.linalg.svd(matrix.double(), full_matrices=False)
            if len(firsts) <= variant:
                firsts.append(left)
            rows = [unexplained(left, s.flatten().to(left), ranks) for s in signals.values()]
            fields["singular_value"][variant].append(values.cpu().numpy())
            fields["overlap"][variant].append(subspace_overlap(firsts[variant], left, ranks))
            fields["with_sums"][variant].append(subspace_overlap(sums, left, ranks))
            fields["unexplained"][variant].append(np.stack(rows))
            fields["vector"][variant].append(left[:, [r - 1 for r in ranks]].T.cpu().numpy())
    over = ("variant", "iteration")
    axes = {
        "singular_value": (*over, "index"),
        "overlap": (*over, "rank"),
        "with_sums": (*over, "rank"),
        "unexplained": (*over, "signal", "rank"),
        "vector": (*over, "rank", "output"),
    }
    data = {key: (axes[key], np.array(values)) for key, values in fields.items()}
    return xr.Dataset(
        {**data, "relative_error": ("iteration", errors)},
        {
            "variant": list(VARIANTS),
            "iteration": list(iterations),
            "rank": list(ranks),
            "signal": list(signals),
        },
        {"prior": prior.name, "seed": seed},
    )


def accumulated(jacobian: Tensor, start: Tensor | None = None) -> Tensor:
    """Make of a Jacobian what code gets that doesn't set gradients to zero between the outputs.

    Parameters
    ----------
    jacobian : Tensor, shape (n, p)
        The right one.
    start : Tensor, shape (p,), optional
        The gradient that was there before, of the last step of a fit; by default none.

    Returns
    -------
    Tensor, shape (n, p)
        Row i is the sum of all rows up to i, plus the start: ``L J + 1 start^T`` with L
        lower triangular. Summing over pixels favours smooth left singular vectors whatever the
        network is: L's own are sines of half-integer frequency. Source: the code behind
        figure 7 of Heckel & Soltanolkotabi 2020.
    """
    total = jacobian.cumsum(dim=0)
    return total if start is None else total + start


def subspace_overlap(a: Tensor, b: Tensor, ranks: Sequence[int]) -> np.ndarray:
    """Compare the spaces of leading left singular vectors."""
    if min(ranks) < 1 or max(ranks) > min(a.shape[1], b.shape[1]):
        raise InvalidInputError(
            f"ranks must be in 1 to {min(a.shape[1], b.shape[1])}, got {list(ranks)}"
        )
    squares = (a.T @ b).square()
    return np.array([float(squares[:r, :r].sum()) / r for r in ranks])


def unexplained(vectors: Tensor, signal: Tensor, ranks: Sequence[int]) -> np.ndarray:
    """Measure what of a signal lies outside of the leading singular vectors."""
    if min(ranks) < 1 or max(ranks) > vectors.shape[1]:
        raise InvalidInputError(f"ranks must be in 1 to {vectors.shape[1]}, got {list(ranks)}")
    within = (vectors.T @ signal).square().cumsum(dim=0)[torch.tensor(list(ranks)) - 1]
    return np.asarray((1 - within / signal.square().sum()).clamp(min=0).sqrt().cpu())


def _loss_gradient(
    prior: ImagePrior, task: Task, parameters: Parameters, chosen: Sequence[str]
) -> Tensor:
    image = prior.image(parameters).detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(task.misfit(image), image)
    gradients = pullback(prior, parameters, chosen)(cotangent)[0]
    return torch.cat([gradients[key].flatten() for key in chosen])


def _iterates(
    prior: ImagePrior, task: Task, iterations: Sequence[int], learning_rate: float, seed: int
) -> dict[int, Parameters]:
    wanted = {i for each in iterations for i in (each - 1, each)}
    kept: dict[int, Parameters] = {}

    def keep(iteration: int, image: Tensor, parameters: Parameters) -> None:
        if iteration in wanted:
            kept[iteration] = {key: value.clone() for key, value in parameters.items()}

    result = fit(
        prior,
        task,
        learning_rate=learning_rate,
        iterations=max(iterations),
        seed=seed,
        callback=keep,
    )
    if result.status == "diverged":
        raise DivergenceError(
            f"the fit of {prior} diverged before iteration {max(iterations)}: use a smaller "
            f"learning rate than {learning_rate:g}"
        )
    return kept
