"""Tachella et al.: the filter of some pixels over a fit, as it is and as Adam sees it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting import fit, load_adam_metric, load_parameters
from dipkernels.kernels import NTK
from dipkernels.literature.non_local_means import require_pixels
from dipkernels.priors import ImagePrior
from dipkernels.tasks import Task
from dipkernels.theory.expansion import as_array

KINDS = ("tangent", "preconditioned")


def filter_along_fit(
    prior: ImagePrior,
    task: Task,
    pixels: Sequence[int],
    *,
    iterations: Sequence[int],
    optimiser: str = "adam",
    learning_rate: float | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Follow the induced filter of some pixels over a fit, as it is and as Adam sees it.

    Parameters
    ----------
    prior : ImagePrior
        Any network.
    task : Task
        What is fitted.
    pixels : sequence of int
        Of the flattened image.
    iterations : sequence of int
        Where, ascending, at least 1 each. Iteration 0 is added.
    optimiser : {"adam", "gradient-descent"}
        Of the fit.
    learning_rate : float, optional
        As of `dipkernels.fit`.
    seed : int
        Of the initialisation.

    Returns
    -------
    xarray.Dataset
        Over ``kind``, ``iteration``, ``pixel``: ``filter(..., output)``, rows of the kernel
        divided by their entries at the pixel (never negative; a sum may be, or 0, behind a
        normalisation), of the kernel at these parameters ("tangent") and of the same with
        Adam's metric there ("preconditioned"; NaN before the first step and for gradient
        descent); ``cosine(...)``, of the angle between the row and that of the kernel at
        initialisation; ``diagonal(...)``, its entry at the pixel, unnormalised, over that at
        initialisation. ``image(iteration, output)`` and ``psnr(iteration)``, where the truth is
        known.

    Raises
    ------
    InvalidInputError
        If iterations aren't ascending, the optimiser is another, or a pixel is outside.
    DivergenceError
        If the fit diverges.

    Notes
    -----
    Costs the fit, and for each iteration a linearisation and as many products as pixels, at once:
    memory as many times the parameters.
    """
    iterations = list(iterations)
    if iterations != sorted(set(iterations)) or not iterations or iterations[0] < 1:
        raise InvalidInputError(f"iterations must be ascending, from 1 on, got {iterations}")
    pixels = require_pixels(pixels, int(np.prod(prior.shape)))
    if optimiser not in ("adam", "gradient-descent"):
        raise InvalidInputError(f"optimiser must be adam or gradient-descent, got {optimiser!r}")
    task = task.to(device=prior.device, dtype=prior.dtype)
    times = [0, *iterations]
    rows = np.full((len(KINDS), len(times), len(pixels), int(np.prod(prior.shape))), np.nan)
    images, scores = [], []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "fit.safetensors"
        for index, iteration in enumerate(times):
            parameters, metric = prior.init(seed), None
            if iteration:
                result = fit(
                    prior,
                    task,
                    optimiser=optimiser,
                    learning_rate=learning_rate,
                    iterations=iteration,
                    seed=seed,
                    checkpoint=file,
                )
                if result.status == "diverged":
                    raise DivergenceError(
                        f"{prior} diverged before iteration {iteration}: give a smaller "
                        "learning_rate"
                    )
                stored = load_parameters(file)
                parameters = {key: value.to(prior.device) for key, value in stored.items()}
                metric = load_adam_metric(file) if optimiser == "adam" else None
            ntk = NTK(prior, parameters)
            gradients = ntk.vjp(ntk.tangents.unit_images(torch.tensor(list(pixels))))
            rows[0, index] = as_array(ntk.jvp(gradients).T)
            if metric is not None:
                scaled = {key: g * metric[key].to(g) for key, g in gradients.items()}
                rows[1, index] = as_array(ntk.jvp(scaled).T)
            image = ntk.image
            images.append(image.flatten().cpu().numpy())
            scores.append(float(task.psnr(image)) if task.clean is not None else np.nan)
    return _along_fit(rows, times, pixels, np.stack(images), scores).assign_attrs(
        prior=prior.name, optimiser=optimiser, seed=seed
    )


def _along_fit(
    rows: np.ndarray,
    times: list[int],
    pixels: Sequence[int],
    images: np.ndarray,
    scores: list[float],
) -> xr.Dataset:
    first = rows[0, 0]
    cosine = (rows * first).sum(axis=-1) / (
        np.linalg.norm(rows, axis=-1) * np.linalg.norm(first, axis=-1)
    )
    at = np.arange(len(pixels))
    own = rows[:, :, at, list(pixels)]
    over = ("kind", "iteration", "pixel")
    return xr.Dataset(
        {
            "filter": ((*over, "output"), rows / own[..., None]),
            "cosine": (over, cosine),
            "diagonal": (over, own / own[:1, :1]),
            "image": (("iteration", "output"), images),
            "psnr": ("iteration", scores, {"units": "dB"}),
        },
        {"kind": list(KINDS), "iteration": times, "pixel": list(pixels)},
    )
