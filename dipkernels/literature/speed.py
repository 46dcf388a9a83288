"""Heckel & Soltanolkotabi: how fast an image and noise of the same norm are fitted."""

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels import tasks
from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.fitting import fit
from dipkernels.kernels import NTK
from dipkernels.linalg import Lanczos
from dipkernels.priors import ImagePrior
from dipkernels.theory import GradientDescent


@checked
def image_and_noise(
    image: Float[Tensor, "channels *spatial"], *, seed: int = 0
) -> dict[str, Float[Tensor, "channels *spatial"]]:
    """Make the targets whose fits are compared, all of the image's norm.

    Parameters
    ----------
    image : Tensor, shape ``(channels, *spatial)``
        Not constant.
    seed : int
        Of the noise.

    Returns
    -------
    dict of str to Tensor
        ``image``; ``noise``, uniform on [0, 1] and rescaled, as published: three quarters of
        its energy is its mean, which every network learns fast; and both without their means,
        ``centred image`` and ``centred noise``, of the same norm again.

    Raises
    ------
    InvalidInputError
        If the image is constant or zero.
    """
    if not (image - image.mean()).norm() > 0:
        raise InvalidInputError("the image is constant: it has nothing to compare with noise")
    random = generator("uniform noise", seed)
    noise = torch.rand(image.shape, generator=random, dtype=torch.float64).to(image)
    found = {
        "image": image,
        "noise": noise,
        "centred image": image - image.mean(),
        "centred noise": noise - noise.mean(),
    }
    return {name: each * (image.norm() / each.norm()) for name, each in found.items()}


@checked
def predicted_speed(
    ntk: NTK,
    targets: Mapping[str, Float[Tensor, "channels *spatial"]],
    *,
    iterations: int,
    learning_rate: float | None = None,
    steps: int = 60,
) -> xr.Dataset:
    """Predict from the kernel at initialisation how fast targets are fitted by gradient descent.

    Parameters
    ----------
    ntk : NTK
        At the initialisation, whose image is where fits start.
    targets : mapping of str to Tensor
        Images of the network's shape, at least one.
    iterations : int
        Of gradient descent, at least 1.
    learning_rate : float, optional
        On the mean squared error; by default half of the limit of stability.
    steps : int
        Products spent on each target.

    Returns
    -------
    xarray.Dataset
        ``misfit(target, iteration)``, ``|f - y|^2 / |f_0 - y|^2``, the mean of its bounds
        ``misfit_lower`` and ``misfit_upper`` (Gauss and Gauss-Radau; in exact arithmetic, the upper
        one up to half of the limit of stability);
        ``rate(target)``, ``r^T Theta r / |r|^2`` over the largest eigenvalue, with ``r = y - f_0``:
        how fast the misfit falls at first, in [0, 1]. Attributes ``largest_eigenvalue``,
        ``learning_rate``, ``matvecs``.

    Raises
    ------
    InvalidInputError
        If a target has another shape or is the first image itself, there is none, or an option is
        out of range.

    Notes
    -----
    By the decomposition of Heckel & Soltanolkotabi 2020: the part of the residual along an
    eigenvector of eigenvalue x shrinks by ``1 - step x`` an iteration.
    """
    _check(ntk.image_shape, targets)
    if steps < 1 or iterations < 1:
        raise InvalidInputError(
            f"steps and iterations must be at least 1, got {steps} and {iterations}"
        )
    starts = torch.stack([y.flatten() - ntk.image.flatten() for y in targets.values()], dim=1)
    lanczos = Lanczos(ntk, starts, keep_products=False).extend(steps)
    spaces = lanczos.spaces()
    largest = max(float(space.ritz()[0].max()) for space in spaces)
    n = ntk.shape[0]
    rate = n / (2 * largest) if learning_rate is None else learning_rate
    descent = GradientDescent.of_fit(rate, iterations, n)
    norms = starts.double().square().sum(dim=0).cpu().numpy()[:, None]
    with np.errstate(over="ignore"):  # a rate beyond the limit of stability: to infinity
        lower, upper = (
            np.stack([rule(lambda x: descent.decay(x) ** 2) for rule in rules]) / norms
            for rules in ([s.gauss() for s in spaces], [s.gauss_radau() for s in spaces])
        )
    over = ("target", "iteration")
    return xr.Dataset(
        {
            "misfit": (over, (lower + upper) / 2),
            "misfit_lower": (over, lower),
            "misfit_upper": (over, upper),
            "rate": ("target", np.array([space.alpha[0] for space in spaces]) / largest),
        },
        {"target": list(targets), "iteration": descent.times},
        {
            "largest_eigenvalue": largest,
            "learning_rate": rate,
            "matvecs": lanczos.matvecs,
        },
    )


@checked
def fitting_speed(
    prior: ImagePrior,
    targets: Mapping[str, Float[Tensor, "channels *spatial"]],
    *,
    iterations: int,
    steps: int = 60,
    seed: int = 0,
    optimiser: str = "gradient-descent",
    learning_rate: float | None = None,
) -> xr.Dataset:
    """Predict how fast targets are fitted, and fit them.

    Parameters
    ----------
    prior : ImagePrior
        Made with ``output="none"``: noise without its mean is negative somewhere.
    targets : mapping of str to Tensor
        Images of its shape.
    iterations : int
        Of each fit.
    steps : int
        Products that the prediction spends on each target.
    seed : int
        Of the initialisation, the same for all targets.
    optimiser : str
        Of the fits, as of `dipkernels.fit`. The prediction is always of gradient descent.
    learning_rate : float, optional
        Of the fits. By default half of gradient descent's limit of stability where that is the
        optimiser, else `dipkernels.fit`'s own.

    Returns
    -------
    xarray.Dataset
        As of `predicted_speed`, with ``measured(target, iteration)`` beside ``misfit``.

    Raises
    ------
    InvalidInputError
        If a target has another shape, or there is none.
    DivergenceError
        If the very first loss isn't finite.

    Notes
    -----
    Costs ``steps`` products and ``iterations`` steps for each target.
    """
    ntk = NTK(prior, prior.init(seed))
    descends = optimiser == "gradient-descent"
    dataset = predicted_speed(
        ntk,
        targets,
        iterations=iterations,
        learning_rate=learning_rate if descends else None,
        steps=steps,
    )
    rate = dataset.attrs["learning_rate"] if descends else learning_rate
    measured = []
    for target in targets.values():
        task = tasks.denoise(measurement=target, noise_sigma=0.0)
        result = fit(
            prior, task, optimiser=optimiser, learning_rate=rate, iterations=iterations, seed=seed
        )
        misfit = np.full(iterations + 1, np.nan)  # a fit that diverges ends early
        misfit[: result.sizes["iteration"]] = result.loss.values / float(result.loss[0])
        measured.append(misfit)
    dataset["measured"] = (("target", "iteration"), np.stack(measured))
    return dataset.assign_attrs(optimiser=optimiser, seed=seed, prior=prior.name)


def _check(shape: tuple[int, ...], targets: Mapping[str, Tensor]) -> None:
    wrong = {name: tuple(y.shape) for name, y in targets.items() if tuple(y.shape) != shape}
    if wrong or not targets:
        raise InvalidInputError(f"targets must be images of shape {shape}, got {wrong or 'none'}")
