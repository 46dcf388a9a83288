"""`fingerprint`: all parts of one prior's card, kept as they come."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Protocol, runtime_checkable

import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.origin import provenance
from dipkernels.base.seeds import as_seeds
from dipkernels.errors import InvalidInputError
from dipkernels.fingerprints import parts
from dipkernels.fingerprints.rows import neighbourhood
from dipkernels.fingerprints.settings import FingerprintEffort
from dipkernels.images import load
from dipkernels.images.metrics import decibels
from dipkernels.planning import Plan, plan
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.stages import fits
from dipkernels.stages.stage import timed
from dipkernels.stages.subject import Subject
from dipkernels.tasks import Task, denoise
from dipkernels.theory.expansion import check_shape, known_image

IMAGE = "astronaut"
LEAST_RATE = 1e-3  # of Adam, unless another is asked for
KEPT_OF_ADAM = ("measurement", "best", "clean")


@runtime_checkable
class Folder(Protocol):
    """Where parts are kept as soon as they are done: a `dipkernels.storage.RunFolder`."""

    def stage(self, name: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        """Return what is stored under a name, or compute and store it."""

    def checkpoint(self, name: str) -> Path:
        """Path of the checkpoint of a fit, which need not be there."""


@checked
def fingerprint(
    prior: ImagePrior,
    task: Task | None = None,
    *,
    seed: int = 0,
    effort: FingerprintEffort | None = None,
    folder: Folder | None = None,
    name: str | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Measure what kind of prior a network is, from its samples to its fit: one card's data.

    Parameters
    ----------
    prior : ImagePrior
        Any network of images or signals, at least 8 pixels along each axis.
    task : Task, optional
        What is fitted and predicted, with its clean image. By default the bundled image
        ``astronaut`` with noise of 25/255, for images of 1 or 3 channels.
    seed : int
        Of initialisation and probes; the kernel's parameters are those that the fits start from.
    effort : FingerprintEffort, optional
        How much is spent.
    folder : RunFolder, optional
        Keeps every part as ``NAME/PART.nc`` as soon as it is done; what it holds isn't computed
        again, and an interrupted fit goes on.
    name : str, optional
        Of the card, and below the folder; by default the prior's.
    progress : bool
        Show bars.

    Returns
    -------
    xarray.Dataset
        Fit for netCDF. Over ``frequency`` (cycles per pixel): ``sample_power`` (Hann window),
        with ``sample_power_standard_error`` over initialisations, ``natural_power`` of photographs,
        and ``response`` of the tangent kernel with ``response_standard_error``;
        ``layer_response(layer_group, frequency)``, which sum to it. ``samples``. ``filter``: the
        kernel's row at the central pixel, within the middle channel, over its own diagonal.
        ``shift_correlation(shift)``. Over ``radius``: ``ntk_profile`` with its spread over
        pixels, ``covariance_profile`` of the samples, and of the infinitely wide network
        ``limit_ntk_profile`` and ``limit_covariance_profile``, where it can be read (else
        attribute ``limit_reason``). Over ``comb_period``: ``comb`` of the kernel and
        ``sample_comb``, with standard errors. Over ``octave``: ``axes_over_diagonals``, in 2D.
        Over ``time``: ``predicted_psnr`` of gradient flow, in units of one over the largest
        eigenvalue, which are iterations of gradient descent at half of its limit of stability;
        over ``descent_iteration``: ``descent_psnr`` and ``predicted_descent_psnr``; over
        ``iteration``: ``adam_psnr``. Attributes: the numbers of `fingerprint_row`, settings,
        provenance.

    Raises
    ------
    InvalidInputError
        If the image is too small, the task doesn't fit or has no clean image, or there is none by
        default.

    Notes
    -----
    Costs ``effort.matvecs`` products with the tangent kernel, ``samples`` forward passes and
    ``iterations + descent`` training steps; `plan_fingerprint` says how long that is. Definitions
    are on the documentation's page on fingerprints.

    Examples
    --------
    >>> from dipkernels import networks
    >>> prior = networks.create("deep-decoder", image_size=(16, 20), width=8)
    >>> effort = FingerprintEffort(samples=4, iterations=5, descent=2, steps=4)
    >>> found = fingerprint(prior, effort=effort)
    >>> 0 <= found.shift_variance, found.sizes["iteration"]
    (True, 6)
    """
    effort = effort or FingerprintEffort()
    task = _task(prior, task)
    size = tuple(prior.shape[1:])
    as_seeds(seed)  # before anything is computed, as the fits come last
    place = neighbourhood(size, effort.positions, seed)
    label = name or prior.name
    subject = Subject(prior, task, seed=seed, progress=progress)

    def stage(part: str, compute: Callable[[], xr.Dataset]) -> xr.Dataset:
        if folder is None:
            return timed(compute)
        return folder.stage(f"{label}/{part}", lambda: timed(compute))

    checkpoint = None if folder is None else folder.checkpoint(f"{label}/adam")

    limit = stage("limit", lambda: parts.limit_part(prior, place))
    samples = stage("samples", lambda: parts.samples_part(subject, effort, place, limit))
    kernel = stage("kernel", lambda: parts.kernel_part(subject, effort, place))
    predicted = stage("prediction", lambda: parts.prediction_part(subject, effort))
    subject = subject.for_fit(checkpoint)
    adam = stage(
        "adam",
        lambda: fits.STAGE.run(
            subject, iterations=effort.iterations, learning_rate=_adam_rate(prior, effort)
        ),
    )
    descent = stage(
        "descent",
        lambda: fits.STAGE.run(
            subject.for_fit(),
            optimiser="gradient-descent",
            learning_rate=float(predicted.descent_learning_rate),
            iterations=effort.descent,
        ),
    )
    found = [samples, kernel, limit, predicted, parts.natural_part(size)]
    merged = xr.merge([*found, _curves(adam, descent)], combine_attrs="drop", join="outer")
    attributes = {key: value for each in found for key, value in each.attrs.items()}
    seconds = sum(float(each.attrs["seconds"]) for each in (*found[:4], adam, descent))
    return merged.assign_attrs(
        attributes
        | _fit_numbers(adam, descent)
        | {f"effort_{key}": value for key, value in asdict(effort).items() if value is not None}
        | describe_prior(prior)
        | provenance(prior.device)
        | {
            "card": label,
            "shape": list(prior.shape),
            "seed": seed,
            "task": task.name,
            "noise_sigma": task.noise_sigma,
            "matvecs": effort.matvecs,
            "seconds": seconds,
        }
    )


@checked
def plan_fingerprint(
    prior: ImagePrior,
    task: Task | None = None,
    *,
    effort: FingerprintEffort | None = None,
    timed: bool = True,
) -> Plan:
    """Say what a fingerprint will take, before it begins.

    Parameters
    ----------
    prior, task, effort
        As of `fingerprint`.
    timed : bool
        Whether to time a few steps.

    Returns
    -------
    Plan
        Of both fits and all products; samples cost less than a tenth of these.
    """
    effort = effort or FingerprintEffort()
    return plan(
        prior,
        _task(prior, task),
        iterations=effort.iterations + effort.descent,
        matvecs=effort.matvecs,
        columns=2,
        checkpoint=True,
        timed=timed,
    )


def _task(prior: ImagePrior, task: Task | None) -> Task:
    if task is None:
        channels, *size = prior.shape
        if len(size) != 2 or channels not in (1, 3):
            raise InvalidInputError(
                f"there is no image by default for a prior of shape {prior.shape}: pass a task, "
                "such as tasks.denoise(clean)"
            )
        clean = load(IMAGE, size=(size[0], size[1]))
        task = denoise(clean.mean(dim=0, keepdim=True) if channels == 1 else clean)
    check_shape(task, prior.shape)
    known_image(task)
    return task.to(device=prior.device, dtype=prior.dtype)


def _adam_rate(prior: ImagePrior, effort: FingerprintEffort) -> float | None:
    if effort.learning_rate is not None or prior.learning_rate is None:
        return effort.learning_rate
    return max(prior.learning_rate, LEAST_RATE)


def _curves(adam: xr.Dataset, descent: xr.Dataset) -> xr.Dataset:
    fitted = adam.sel(region=adam.score_region)
    slow = descent.sel(region=descent.score_region).rename(iteration="descent_iteration")
    curves = xr.Dataset(
        {
            "adam_psnr": fitted.psnr_clean,
            "adam_psnr_noisy": adam.psnr_noisy,
            "descent_psnr": slow.psnr_clean,
            **{name: adam[name] for name in KEPT_OF_ADAM},
        }
    )
    return curves.drop_vars("region", errors="ignore")


def _fit_numbers(adam: xr.Dataset, descent: xr.Dataset) -> dict[str, object]:
    error = ((adam.measurement - adam.clean) ** 2).mean(skipna=True)
    return {
        "peak_psnr": float(adam.peak_psnr),
        "peak_iteration": int(adam.peak_iteration),
        "iterations": adam.sizes["iteration"] - 1,
        "measurement_psnr": float(decibels(error)),  # what doing nothing scores, where measured
        "learning_rate": float(adam.learning_rate),
        "status": str(adam.status),
        "descent_peak_psnr": float(descent.peak_psnr),
    }
