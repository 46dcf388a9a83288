"""Heckel & Soltanolkotabi: products with the Jacobian, and its singular vectors over a fit."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from torch.func import vjp, vmap

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import fit
from dipkernels.priors import ImagePrior, Parameters
from dipkernels.tasks import Task

VARIANTS = ("correct", "accumulated")
AT_ONCE = 32  # backward passes in one


def convolution_weights(prior: ImagePrior) -> list[str]:
    """Name the weights of convolutions, with which the literature's Jacobians are taken."""
    return [key for key, shape in prior.parameter_shapes.items() if len(shape) > 2]


def jacobian_norms(
    prior: ImagePrior,
    images: Mapping[str, Float[Tensor, "channels *spatial"]],
    seeds: Sequence[int],
    *,
    layers: Sequence[str] | None = None,
) -> xr.Dataset:
    """Measure ``|J^T y|`` of images over random networks.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    images : mapping of str to Tensor
        The y, of the prior's shape; of equal norm, to be compared.
    seeds : sequence of int
        Of the initialisations.
    layers : sequence of str, optional
        Parameters that J is taken with; by default `convolution_weights`, as published.

    Returns
    -------
    xarray.Dataset
        ``norm(image, seed)``: the root of ``y^T Theta y``, in units of y times image over
        parameter.

    Raises
    ------
    InvalidInputError
        If an image has another shape, or a layer is no parameter: without convolutions, name some.

    Notes
    -----
    Costs a forward pass a seed and a backward pass an image; `NTK.quadratic_form` is its square,
    but also traces the network, which pays only for many products.
    Source: Heckel & Soltanolkotabi 2020, figure 12.
    """
    chosen = _chosen(prior, layers)
    for name, y in images.items():
        if tuple(y.shape) != prior.shape:
            raise InvalidInputError(f"{name} has shape {tuple(y.shape)}, expected {prior.shape}")
    norms = np.empty((len(images), len(seeds)))
    for column, seed in enumerate(seeds):
        pull = _pullback(prior, prior.init(seed), chosen)
        for row, y in enumerate(images.values()):
            gradients = pull(y.to(prior.device, prior.dtype))[0].values()
            norms[row, column] = float(sum(g.double().square().sum() for g in gradients)) ** 0.5
    return xr.Dataset(
        {"norm": (("image", "seed"), norms)},
        {"image": list(images), "seed": list(seeds)},
        {"prior": prior.name},
    )


def jacobian(
    prior: ImagePrior, parameters: Parameters, *, layers: Sequence[str] | None = None
) -> Float[Tensor, "n p"]:
    """Form the Jacobian of the image with respect to some parameters.

    Parameters
    ----------
    prior : ImagePrior
        Of n outputs.
    parameters : dict of str to Tensor
        Where.
    layers : sequence of str, optional
        By default `convolution_weights`, which have p numbers in all.

    Returns
    -------
    Tensor, shape (n, p)
        ``8 n p`` bytes in float64; costs n backward passes.

    Raises
    ------
    InvalidInputError
        If a layer is no parameter, or the network has no convolutions and none are named.
    """
    chosen = _chosen(prior, layers)
    pull = vmap(_pullback(prior, parameters, chosen))
    n = math.prod(prior.shape)
    units = torch.eye(n, dtype=prior.dtype, device=prior.device).reshape(n, *prior.shape)
    rows = []
    for block in units.split(AT_ONCE):
        gradients = pull(block)[0]
        rows.append(torch.cat([gradients[key].flatten(1) for key in chosen], dim=1))
    return torch.cat(rows)


def accumulated(
    jacobian: Float[Tensor, "n p"], start: Float[Tensor, " p"] | None = None
) -> Float[Tensor, "n p"]:
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


def subspace_overlap(
    a: Float[Tensor, "n m"], b: Float[Tensor, "n k"], ranks: Sequence[int]
) -> np.ndarray:
    """Compare the spaces of leading left singular vectors."""
    if min(ranks) < 1 or max(ranks) > min(a.shape[1], b.shape[1]):
        raise InvalidInputError(
            f"ranks must be in 1 to {min(a.shape[1], b.shape[1])}, got {list(ranks)}"
        )
    squares = (a.T @ b).square()
    return np.array([float(squares[:r, :r].sum()) / r for r in ranks])


def unexplained(
    vectors: Float[Tensor, "n m"], signal: Float[Tensor, " n"], ranks: Sequence[int]
) -> np.ndarray:
    """Measure what of a signal lies outside of the leading singular vectors."""
    if min(ranks) < 1 or max(ranks) > vectors.shape[1]:
        raise InvalidInputError(f"ranks must be in 1 to {vectors.shape[1]}, got {list(ranks)}")
    within = (vectors.T @ signal).square().cumsum(dim=0)[torch.tensor(list(ranks)) - 1]
    return np.asarray((1 - within / signal.square().sum()).clamp(min=0).sqrt().cpu())


def jacobian_along_fit(
    prior: ImagePrior,
    task: Task,
    signals: Mapping[str, Float[Tensor, "channels *spatial"]],
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
    chosen = _chosen(prior, layers)
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


def _chosen(prior: ImagePrior, layers: Sequence[str] | None) -> list[str]:
    if isinstance(layers, str):
        raise InvalidInputError(f"layers must be a list of names, got {layers!r}")
    chosen = convolution_weights(prior) if layers is None else list(layers)
    wrong = [key for key in chosen if key not in prior.parameter_shapes]
    if wrong or not chosen:
        what = f"{wrong[0]} is no parameter" if wrong else "no weights of convolutions"
        raise InvalidInputError(
            f"{what} of {prior}: give layers=, some of {', '.join([*prior.parameter_shapes][:4])}, "
            "..."
        )
    return chosen


def _pullback(
    prior: ImagePrior, parameters: Parameters, chosen: Sequence[str]
) -> Callable[[Tensor], tuple[Parameters]]:
    fixed = {key: value for key, value in parameters.items() if key not in chosen}

    def image_of(variable: Parameters) -> Tensor:
        return prior.image({**fixed, **variable})

    pull: Callable[[Tensor], tuple[Parameters]]
    _, pull = vjp(image_of, {key: parameters[key] for key in chosen})  # type: ignore[misc]
    return pull


def _loss_gradient(
    prior: ImagePrior, task: Task, parameters: Parameters, chosen: Sequence[str]
) -> Tensor:
    image = prior.image(parameters).detach().requires_grad_()
    (cotangent,) = torch.autograd.grad(task.misfit(image), image)
    gradients = _pullback(prior, parameters, chosen)(cotangent)[0]
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
