"""Posteriors without chains, on the same footing: a deep ensemble, and the linearised network."""

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.checks import checked
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.dataset import SPATIAL_DIMS
from dipkernels.fitting.fit import fit
from dipkernels.kernels.ntk import NTK
from dipkernels.networks.prior import ImagePrior, Parameters
from dipkernels.progress import Progress
from dipkernels.provenance import describe_prior, provenance
from dipkernels.sampling.target import Posterior
from dipkernels.seeds import derive
from dipkernels.tasks import Task

PICTURES = ("final", "average", "chosen_image")


@checked
def deep_ensemble(
    prior: ImagePrior,
    task: Task,
    *,
    members: int = 5,
    seed: int = 0,
    picture: str = "final",
    **options: Any,
) -> xr.Dataset:
    """Fit from several initialisations, and take the images for draws.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    task : Task
        What was measured.
    members : int
        Fits, at least 2.
    seed : int
        Of the initialisations.
    picture : {"final", "average", "chosen_image"}
        Which image of each fit: the last, the running average at the end, or that of the stopping
        rule given as ``stop``.
    **options
        Of `dipkernels.fit`.

    Returns
    -------
    xarray.Dataset
        ``draws`` over ``(chain, draw, channel, ...)`` with one chain, as `sample` has them. No
        density stands behind it: its spread is that of what the initialisation leaves open.

    Raises
    ------
    InvalidInputError
        If there are fewer than 2 members, or the picture isn't one.
    DivergenceError
        If a member diverged.

    Notes
    -----
    Source: Lakshminarayanan et al. 2017, without adversarial training.
    """
    if members < 2:
        raise InvalidInputError(f"an ensemble needs at least 2 members, got {members}")
    if picture not in PICTURES or (picture == "chosen_image") != ("stop" in options):
        raise InvalidInputError(
            f"picture must be one of {PICTURES}, and 'chosen_image' goes with stop=, got "
            f"'{picture}'"
        )
    seeds = [derive(f"member-{i}", seed) for i in range(members)]
    result = fit(prior, task, seed=seeds, **options)
    images = result[picture].values
    if not np.isfinite(images).all():
        raise DivergenceError("a member of the ensemble diverged: choose a smaller learning rate")
    attributes = result.attrs | {"method": "deep-ensemble", "members": members, "picture": picture}
    return _of_draws(images, task, attributes)


@checked
def linearised(
    posterior: Posterior,
    parameters: Parameters,
    *,
    draws: int = 100,
    seed: int = 0,
    tolerance: float = 1e-3,
    max_iterations: int = 300,
    progress: bool = False,
) -> xr.Dataset:
    """Draw from the posterior of the network linearised at some parameters, in function space.

    The image is taken for ``f(w0) + J (w - w0)`` with the weight prior of the target: a Gaussian
    process with the kernel ``J S^2 J^T``, the NTK in the metric of the prior's variances. Its
    posterior is Gaussian and needs no chains.

    Parameters
    ----------
    posterior : Posterior
        The target. Its temperature multiplies the covariance.
    parameters : dict of str to Tensor
        ``w0``: an initialisation, or the parameters of a fit.
    draws : int
        How many, at least 2; independent.
    seed : int
        Of the draws.
    tolerance : float
        Of conjugate gradients: residual relative to the right-hand side.
    max_iterations : int
        Of conjugate gradients, at most; the result says what was reached.
    progress : bool
        Show a bar, if on a terminal.

    Returns
    -------
    xarray.Dataset
        ``draws`` as `sample` has them, with one chain; ``mean``, the exact posterior mean up to the
        tolerance, over ``(channel, ...)``. Attributes ``residual`` (the worst) and ``iterations``.

    Raises
    ------
    InvalidInputError
        If an option is out of range.

    Notes
    -----
    Draws by Matheron's rule: one of the prior is corrected by its own misfit. All right-hand sides
    go through conjugate gradients together; an iteration is a product of the NTK with ``draws + 1``
    images. The condition number is that of the kernel over noise_sigma^2: where the tolerance isn't
    reached, directions of small eigenvalue are still as in the prior.
    """
    if draws < 2 or max_iterations < 1 or not 0 < tolerance < 1:
        raise InvalidInputError(
            "linearised needs at least 2 draws, an iteration and a tolerance in (0, 1), got "
            f"{draws}, {max_iterations} and {tolerance}"
        )
    prior, task, weights = posterior.prior, posterior.task, posterior.weight_prior
    ntk = NTK(prior, parameters, metric=weights.variance(parameters))
    mean = ntk.image.flatten()
    shift = {key: (weights.mean[key] - w).expand(w.shape)[None] for key, w in parameters.items()}
    mean = mean + ntk.jvp(shift)[:, 0]
    generator = torch.Generator().manual_seed(derive("linearised", seed))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=prior.dtype).to(prior.device)

    columns = []
    for _ in range(draws):
        step = {k: weights.deviation[k] * normal(*w.shape) for k, w in parameters.items()}
        columns.append(ntk.jvp({key: value[None] for key, value in step.items()})[:, 0])
    # The last column is the mean of the prior, without noise: that of the posterior comes of it.
    priors = torch.stack([*[mean + column for column in columns], mean], dim=1)
    counted = task.counted.flatten()[:, None]
    noise = posterior.noise_sigma * normal(len(counted), draws)
    seen = _forward(task, priors)
    seen[:, :draws] += noise
    right = (task.measurement.flatten()[:, None] - seen) * counted

    def system(block: Tensor) -> Tensor:
        product = _forward(task, ntk @ _adjoint(task, block * counted)) * counted
        return product + posterior.noise_sigma**2 * block

    with Progress(max_iterations, f"{prior.name}: linearised", enabled=progress) as bar:
        solution, residual, iterations = conjugate_gradients(
            system, right, tolerance=tolerance, max_iterations=max_iterations, bar=bar
        )
    images = priors + ntk @ _adjoint(task, solution)
    centre = images[:, -1:]
    spread = posterior.temperature**0.5 * (images[:, :draws] - centre)
    shaped = (centre + spread).T.reshape(draws, *task.shape)
    attributes = {
        **describe_prior(prior),
        **posterior.record(),
        "method": "linearised",
        "seed": seed,
        "residual": residual,
        "iterations": iterations,
        **provenance(prior.device),
    }
    result = _of_draws((shaped / task.peak).cpu().numpy(), task, attributes)
    pixels = result["draws"].dims[2:]
    exact = (centre[:, 0].reshape(task.shape) / task.peak).cpu().numpy()
    return result.assign(mean=(pixels, exact))


def conjugate_gradients(
    system: Any,
    right: Float[Tensor, "n k"],
    *,
    tolerance: float,
    max_iterations: int,
    bar: Progress | None = None,
) -> tuple[Float[Tensor, "n k"], float, int]:
    """Solve a symmetric positive definite system for several right-hand sides at once.

    Parameters
    ----------
    system : callable
        Multiplies a block ``(n, k)`` by the matrix.
    right : Tensor, shape (n, k)
        Right-hand sides; each has conjugate gradients of its own.
    tolerance : float
        Residual relative to the right-hand side at which all stop.
    max_iterations : int
        At most.
    bar : Progress, optional
        Advanced with every iteration.

    Returns
    -------
    solution : Tensor, shape (n, k)
        Columns with a right-hand side of 0 are 0.
    residual : float
        The largest relative one, as the recurrence has it.
    iterations : int
        How many were done.
    """
    x = torch.zeros_like(right)
    r = p = right
    norms = right.square().sum(dim=0)
    rho = norms
    tiny = torch.finfo(right.dtype).tiny
    for iteration in range(max_iterations):
        relative = float((rho / norms.clamp(min=tiny)).max()) ** 0.5
        if relative <= tolerance:
            return x, relative, iteration
        image = system(p)
        alpha = rho / (p * image).sum(dim=0).clamp(min=tiny)
        x = x + alpha * p
        r = r - alpha * image
        new = r.square().sum(dim=0)
        p = r + (new / rho.clamp(min=tiny)) * p
        rho = new
        if bar is not None:
            bar.advance()
    return x, float((rho / norms.clamp(min=tiny)).max()) ** 0.5, max_iterations


def _forward(task: Task, block: Tensor) -> Tensor:
    return task.forward(block.T.reshape(-1, *task.shape)).flatten(1).T.clone()


def _adjoint(task: Task, block: Tensor) -> Tensor:
    return task.adjoint(block.T.reshape(-1, *task.measurement.shape)).flatten(1).T


def _of_draws(images: np.ndarray, task: Task, attributes: dict[str, Any]) -> xr.Dataset:
    pixels = ("channel", *SPATIAL_DIMS[len(task.shape) - 1])
    variables: dict[str, Any] = {"draws": (("chain", "draw", *pixels), images[None])}
    if task.clean is not None:
        variables["clean"] = (pixels, (task.clean / task.peak).cpu().numpy())
    if task.measurement.shape == task.shape:
        variables["measurement"] = (pixels, (task.measurement / task.peak).cpu().numpy())
        variables["counted"] = (pixels, task.counted.cpu().numpy())
    kept = {"task": task.name, "noise_sigma": task.noise_sigma / task.peak} | attributes
    return xr.Dataset(variables, {"chain": [0]}, kept)
