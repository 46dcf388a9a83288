"""The stage of a Gaussian process: a network's covariance or an ordinary kernel, given a task."""

from typing import Any

import numpy as np
import torch
import xarray as xr

from dipkernels.base.options import gather, takes
from dipkernels.base.origin import provenance
from dipkernels.errors import InvalidInputError
from dipkernels.gp import GaussianProcess, fit_hyperparameters, from_covariance, matern, rbf
from dipkernels.images.axes import pixel_axes
from dipkernels.kernels import covariance, infinite_width
from dipkernels.kernels.stationary.kernel import StationaryKernel, mapped
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.stages.settings import ProcessSettings
from dipkernels.tasks import Task

_DRAWS = 32  # of a process, through an operator
_DARK = 1e-12  # square of what an operator that sees no brightness makes of white, by rounding


@takes(ProcessSettings)
def regress(
    task: Task,
    prior: ImagePrior | None = None,
    *,
    seed: int = 0,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Condition a Gaussian process on a measurement: mean, deviation, and the PSNR of the mean.

    The network's images have at least twice the sides of the task, less one: the image is a window
    of them, so that its borders aren't joined.
    """  # noqa: DOC201, DOC501
    chosen = gather(ProcessSettings, None, options, "regress")
    if chosen.needs_network != (prior is not None):
        raise InvalidInputError(
            f"the kernel '{chosen.kernel}' is that of a network, which is missing"
            if chosen.needs_network
            else f"a network has no effect on the kernel '{chosen.kernel}'"
        )
    if not task.noise_sigma > 0:
        raise InvalidInputError(
            f"a Gaussian process needs the level of the noise, and task '{task.name}' has none: "
            "state it, --noise-sigma of a command, such as 0.02 (white is 1)"
        )
    if prior is None:
        process = _ordinary(task, chosen, seed, progress)
    else:
        process = GaussianProcess(_of_network(prior, task, chosen, seed, progress))
    posterior = process.posterior(task)
    found = posterior.dataset(draws=chosen.draws, seed=seed)
    dims = pixel_axes(task.shape)
    pictures = {"clean": task.clean, "measurement": task.measurement}
    for name, picture in pictures.items():
        if picture is not None and picture.shape == task.shape:
            found[name] = (dims, picture.double().cpu().numpy())
    if task.clean is not None:
        exact = task.to(dtype=torch.float64)
        found.attrs["psnr"] = float(exact.psnr(posterior.mean))
        found.attrs["psnr_whole"] = float(exact.psnr(posterior.mean, "whole"))
        if task.measurement.shape == task.shape and bool(task.counted.all()):
            found.attrs["psnr_measured"] = float(exact.psnr(exact.measurement))
        found.attrs["score_region"] = task.score_region
    named = {} if prior is None else describe_prior(prior)
    return found.assign_attrs(
        kernel=chosen.kernel, seed=seed, **named, **provenance(task.measurement.device)
    )


def _ordinary(task: Task, chosen: ProcessSettings, seed: int, progress: bool) -> GaussianProcess:
    smooth = 1.5 if chosen.smoothness is None else chosen.smoothness
    length, scale = chosen.lengthscale, chosen.outputscale
    if length is not None and scale is not None:
        kernel = rbf(length, scale)
        if chosen.kernel == "matern":
            kernel = matern(length, scale, smoothness=smooth)
        return GaussianProcess(kernel, mean=_mean(task))
    if length is not None or scale is not None:
        raise InvalidInputError(
            "lengthscale and outputscale are fitted together: give both, or neither"
        )
    shape = rbf(1.0) if chosen.kernel == "rbf" else matern(1.0, smoothness=smooth)
    noise = float(task.noise_sigma)
    return fit_hyperparameters(task, shape, noise_sigma=noise, seed=seed, progress=progress).process


def _of_network(
    prior: ImagePrior, task: Task, chosen: ProcessSettings, seed: int, progress: bool
) -> StationaryKernel:
    if chosen.kernel == "limit":
        kernel = infinite_width(prior, seed=seed).kernel
    else:
        lag = max(task.shape[1:])
        options: dict[str, Any] = {"codes": "noise", "max_lag": lag, "tests": False}
        samples = 256 if chosen.samples is None else chosen.samples
        measured = covariance(prior, samples, seed=seed, progress=progress, **options)
        kernel = from_covariance(measured).kernel
    if chosen.outputscale is None:
        ratio = _power(task) / _power_of(kernel, task)
    else:
        ratio = chosen.outputscale / _variance_of(kernel)
    return mapped(kernel, lambda table: table * ratio, kernel.mean * np.sqrt(ratio))


# Of the image, as far as it was measured: by least squares.
def _mean(task: Task) -> float:
    flat = task.forward(torch.ones(task.shape).to(task.measurement))[task.counted].double()
    seen, size = task.measurement[task.counted].double(), float(flat.square().sum())
    return float(flat @ seen) / size if size > _DARK * len(flat) else 0.0


# Of what was measured, without the noise, per number.
def _power(task: Task) -> float:
    raw = float(task.measurement[task.counted].double().square().mean())
    return max(raw - float(task.noise_sigma) ** 2, 0.01 * raw)


# What would be measured of the process, per number.
def _power_of(kernel: StationaryKernel, task: Task) -> float:
    if task.operator.mask is not None:
        return _variance_of(kernel)
    drawn = GaussianProcess(kernel).sample(task.shape, _DRAWS).to(task.measurement)
    return float((task.forward(drawn) * task.counted).double().square().mean()) / (
        task.measured_fraction
    )


def _variance_of(kernel: StationaryKernel) -> float:
    return float(kernel.covariance_table.flatten(-len(kernel.size))[..., 0].mean())
