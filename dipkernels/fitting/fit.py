"""Fit a prior to a measurement and watch what it learns, when."""

import time
from collections.abc import Callable

import torch
import xarray as xr
from torch import Tensor

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.optimisers import OPTIMISERS, default_learning_rate, make_optimiser
from dipkernels.fitting.record import Record
from dipkernels.networks.prior import ImagePrior, Parameters
from dipkernels.progress import Progress
from dipkernels.provenance import describe_prior, provenance
from dipkernels.tasks import Task

Callback = Callable[[int, Tensor, Parameters], None]


class FitInterrupted(KeyboardInterrupt):
    """Ctrl-C during a fit; what was computed until then is kept.

    Attributes
    ----------
    result : xarray.Dataset
        As `fit` returns, up to the last whole iteration.
    """

    def __init__(self, result: xr.Dataset) -> None:
        super().__init__("fit interrupted")
        self.result = result


def fit(
    prior: ImagePrior,
    task: Task,
    *,
    optimiser: str = "adam",
    learning_rate: float | None = None,
    iterations: int = 1000,
    averaging: float = 0.99,
    seed: int = 0,
    progress: bool = False,
    callback: Callback | None = None,
) -> xr.Dataset:
    """Fit a network to one measurement by descending the mean squared error.

    Parameters
    ----------
    prior : ImagePrior
        The network; its device and dtype are used, the task is moved there.
    task : Task
        What was measured.
    optimiser : {"adam", "gradient-descent"}
        Gradient descent is plain: no momentum, a constant step.
    learning_rate : float, optional
        By default, for Adam the published one of a built-in prior (else 1e-3), for gradient
        descent `stable_learning_rate`.
    iterations : int
        Number of steps, at least 1. Iteration ``i`` of the result is the image after i steps, so
        that it has one entry more.
    averaging : float
        Decay of the running average of the outputs, in [0, 1).
    seed : int
        Of the initialisation.
    progress : bool
        Show a bar, if on a terminal.
    callback : callable, optional
        Called at every iteration with ``(iteration, image, parameters)``, all detached. It must
        not change them; the parameters change under it in the next step, so clone what you keep.

    Returns
    -------
    xarray.Dataset
        Over ``iteration``: ``loss``; ``psnr_noisy`` and ``psnr_average_noisy`` of the output and
        its running average to the measurement, on the measured pixels; over ``(iteration,
        region)``: ``psnr_clean`` and ``psnr_average_clean`` to the clean image (regions: whole,
        and with a mask hole and known). Images over ``(channel, y, x)``: ``clean``,
        ``measurement``, ``initial``, ``final``, ``average`` and ``best`` (of the highest
        ``psnr_clean`` in the task's score region: an oracle's choice). Attributes:
        ``peak_psnr``, ``peak_iteration``, ``status`` ("finished", "interrupted", "diverged"),
        settings and provenance.

    Raises
    ------
    InvalidInputError
        If prior and task differ in shape, or a setting is out of range.
    FitInterrupted
        On Ctrl-C, holding the result so far.
    KeyboardInterrupt
        On Ctrl-C before the first image.
    DivergenceError
        If even the first loss isn't finite.

    Notes
    -----
    A loss that stops being finite ends the fit with status "diverged"; the result, its images
    included, ends before that iteration (the fit itself notices up to 50 iterations later). Cost
    per iteration: a forward and a backward pass. Source: Ulyanov et al. 2017.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> result = fit(prior, tasks.denoise(torch.full((3, 16, 24), 0.5)), iterations=3)
    >>> result.sizes["iteration"], result.status
    (4, 'finished')
    """
    if prior.shape != task.shape:
        raise InvalidInputError(
            f"{prior} makes images of shape {prior.shape}, the task has {task.shape}: create the "
            "prior with the task's image_size and channels"
        )
    _check_settings(optimiser, learning_rate, iterations, averaging)
    task = task.to(device=prior.device, dtype=prior.dtype)
    parameters = prior.init(seed)
    if learning_rate is None:
        learning_rate = default_learning_rate(optimiser, prior, parameters)
    settings = {
        "optimiser": optimiser,
        "learning_rate": learning_rate,
        "requested_iterations": iterations,
        "averaging": averaging,
        "seed": seed,
        "task": task.name,
        "noise_sigma": task.noise_sigma,
        "score_region": task.score_region,
    }
    # Not cloned: they are this fit's own.
    leaves = {key: value.requires_grad_() for key, value in parameters.items()}
    stepper = make_optimiser(optimiser, leaves.values(), learning_rate)
    record = Record(task, averaging)
    start = time.perf_counter()
    with Progress(iterations, f"{prior.name}: {optimiser}", enabled=progress) as bar:
        try:
            finite = _descend(prior, task, leaves, stepper, record, bar, iterations, callback)
            status = "finished" if finite else "diverged"
        except KeyboardInterrupt:
            if not record.iterations:
                raise
            status = "interrupted"
    record.flush()
    if not record.iterations:
        raise DivergenceError(
            f"{prior} can't be fitted: the loss at its initial parameters is not finite; check the "
            "network, its code and the measurement"
        )
    attributes = {
        **describe_prior(prior),
        **settings,
        "status": status,
        "seconds": time.perf_counter() - start,
        **provenance(prior.device),
    }
    result = record.dataset().assign_attrs(attributes)
    if status == "interrupted":
        raise FitInterrupted(result) from None
    return result


# Runs the iterations; False if the loss stopped being finite.
def _descend(
    prior: ImagePrior,
    task: Task,
    leaves: Parameters,
    stepper: torch.optim.Optimizer,
    record: Record,
    bar: Progress,
    iterations: int,
    callback: Callback | None,
) -> bool:
    for iteration in range(iterations + 1):
        image = prior.image(leaves)
        loss = task.misfit(image)
        record.add(loss.detach(), image.detach())
        if callback is not None:
            callback(iteration, image.detach(), {k: v.detach() for k, v in leaves.items()})
        if iteration % Record.BLOCK == 0 or iteration == iterations:
            if not record.flush():
                return False
            bar.note(f"peak {record.peak_psnr:.2f} dB")
        if iteration < iterations:
            stepper.zero_grad()
            loss.backward()
            stepper.step()
            bar.advance()
    return True


def _check_settings(
    optimiser: str, learning_rate: float | None, iterations: int, averaging: float
) -> None:
    if optimiser not in OPTIMISERS:
        raise InvalidInputError(f"optimiser must be one of {OPTIMISERS}, got '{optimiser}'")
    if iterations < 1:
        raise InvalidInputError(f"iterations must be at least 1, got {iterations}")
    if not 0 <= averaging < 1:
        raise InvalidInputError(f"averaging must be in [0, 1), got {averaging}")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise InvalidInputError(f"learning_rate must be positive and finite, got {learning_rate}")
