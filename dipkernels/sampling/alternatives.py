"""Posteriors without chains, on the same footing: a deep ensemble, and the linearised network."""

from typing import Annotated, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count, Share, at_least
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import derive
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.fits import fit
from dipkernels.images.axes import pixel_axes
from dipkernels.kernels.ntk import NTK, require_parameters
from dipkernels.kernels.observed import ObservedKernel
from dipkernels.linalg import conjugate_gradients
from dipkernels.priors.prior import ImagePrior, Parameters, describe_prior
from dipkernels.sampling.posterior import WeightPosterior
from dipkernels.sampling.summaries import describe_measurement, known_of
from dipkernels.tasks import Task
from dipkernels.tasks.laws import require_squares

PICTURES = ("final", "average", "chosen_image")


@checked
def deep_ensemble(
    prior: ImagePrior,
    task: Task,
    *,
    members: Annotated[int, at_least(2)] = 5,
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
        If the picture isn't one.
    DivergenceError
        If a member diverged.

    Notes
    -----
    Source: Lakshminarayanan et al. 2017, without adversarial training.
    """
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
    posterior: WeightPosterior,
    parameters: Parameters,
    *,
    draws: Annotated[int, at_least(2)] = 100,
    seed: int = 0,
    tolerance: Share = 1e-3,
    max_iterations: Count = 300,
    progress: bool = False,
) -> xr.Dataset:
    """Draw from the posterior of the network linearised at some parameters, in function space.

    The image is taken for ``f(w0) + J (w - w0)`` with the weight prior of the target: a Gaussian
    process with the kernel ``J S^2 J^T``, the NTK in the metric of the prior's variances. Its
    posterior is Gaussian and needs no chains.

    Parameters
    ----------
    posterior : WeightPosterior
        The target. Its temperature multiplies the covariance.
    parameters : dict of str to Tensor
        ``w0``: an initialisation, or the parameters of a fit.
    draws : int
        How many, at least 2; independent.
    seed : int
        Of the draws.
    tolerance : float
        Of conjugate gradients: relative error of every solution, in the norm of the system.
    max_iterations : int
        Of conjugate gradients, at most; the result says what was reached, and `AccuracyWarning`
        is given where that isn't the tolerance.
    progress : bool
        Show a bar, on a terminal or in a notebook.

    Returns
    -------
    xarray.Dataset
        ``draws`` as `sample` has them, with one chain; ``mean``, the exact posterior mean up to the
        tolerance, over ``(channel, ...)``. Attributes ``error`` and ``residual`` (the worst), and
        ``iterations``; see `dipkernels.linalg.Solution`.

    Raises
    ------
    InvalidInputError
        If the misfit isn't that of squares, or these aren't the prior's parameters.
    DivergenceError
        If draws aren't finite, as the network's derivatives at these parameters.
    NotSymmetricError
        If the noise is so small that the system is singular to the rounding of the products.

    Notes
    -----
    Draws by Matheron's rule: one of the prior is corrected by its own misfit. An iteration is a
    product of the NTK with ``draws + 1`` images. The condition number is that of the kernel over
    noise_sigma^2: where the tolerance isn't reached, directions of small eigenvalue are still as in
    the prior.
    """
    prior, task, weights = posterior.prior, posterior.task, posterior.weight_prior
    require_squares(task.law, "the posterior of a linearised network")
    require_parameters(prior, parameters)
    variances = {k: weights.deviation[k].square().expand(w.shape) for k, w in parameters.items()}
    ntk = NTK(prior, parameters, metric=variances)
    mean = ntk.image.flatten()
    shift = {key: (weights.mean[key] - w).expand(w.shape)[None] for key, w in parameters.items()}
    mean = mean + ntk.jvp(shift)[:, 0]
    generator = torch.Generator().manual_seed(derive("linearised", seed))

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=prior.dtype).to(prior.device)

    columns = []
    for _ in range(draws):
        step = {k: weights.deviation[k] * normal(*w.shape)[None] for k, w in parameters.items()}
        columns.append(ntk.jvp(step)[:, 0])
    # The last column is the mean of the prior, without noise: that of the posterior comes of it.
    priors = torch.stack([*[mean + column for column in columns], mean], dim=1)
    kernel = ObservedKernel(ntk, task)
    counted = task.counted.flatten()[:, None]
    seen = kernel.seen(priors)
    seen[:, :draws] += posterior.noise_sigma * normal(len(counted), draws) * counted
    right = task.measurement.flatten()[:, None] * counted - seen
    with Progress(max_iterations, f"{prior.name}: linearised", enabled=progress) as bar:

        def system(rows: Tensor) -> Tensor:
            bar.advance()
            product = (kernel @ rows.T.to(prior.dtype)).T.double()
            return product + posterior.noise_sigma**2 * rows

        solution = conjugate_gradients(
            system, right.T.double(), tolerance=tolerance, max_iterations=max_iterations
        )
    images = priors + kernel.spread(solution.x.T.to(prior.dtype))
    centre = images[:, -1:]
    spread = posterior.temperature**0.5 * (images[:, :draws] - centre)
    shaped = (centre + spread).T.reshape(draws, *task.shape)
    if not bool(shaped.isfinite().all()):
        raise DivergenceError(
            "the network's derivatives at these parameters are not finite, nor are the draws: "
            "linearise at others, such as those of a fit with a smaller learning rate"
        )
    attributes = {
        **describe_prior(prior),
        **posterior.record(),
        "method": "linearised",
        "seed": seed,
        "error": float(solution.error.max()),
        "residual": float(solution.residual.max()),
        "iterations": solution.iterations,
        **provenance(prior.device),
    }
    result = _of_draws((shaped / task.data_range).cpu().numpy(), task, attributes)
    pixels = result["draws"].dims[2:]
    exact = (centre[:, 0].reshape(task.shape) / task.data_range).cpu().numpy()
    return result.assign(mean=(pixels, exact))


def _of_draws(images: np.ndarray, task: Task, attributes: dict[str, Any]) -> xr.Dataset:
    draws = (("chain", "draw", *pixel_axes(task.shape)), images[None])
    own = {"task": task.name, "noise_sigma": task.noise_sigma / task.data_range}
    kept = own | describe_measurement(task) | attributes
    return xr.Dataset({"draws": draws} | known_of(task), {"chain": [0]}, kept)
