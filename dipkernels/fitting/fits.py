"""Fit a prior to a measurement and watch what it learns, when."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.interruption import Interrupted
from dipkernels.base.options import gather, takes
from dipkernels.base.origin import provenance
from dipkernels.base.seeds import as_seeds
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.fitting.dataset import build_dataset
from dipkernels.fitting.descent import Descent
from dipkernels.fitting.loop import Callback, FitLoop
from dipkernels.fitting.preparation import (
    check_runs,
    check_twins,
    identity_of,
    make_monitors,
    warn_of_ranges,
)
from dipkernels.fitting.record import Record
from dipkernels.fitting.settings import FitSettings
from dipkernels.fitting.stopper import Stopper
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.stopping import Monitor, Rule, make_rule
from dipkernels.storage.checkpoints import Saver
from dipkernels.tasks import Task

logger = logging.getLogger(__name__)


class FitInterrupted(Interrupted):
    """Ctrl-C during a fit; what was computed until then is kept.

    Attributes
    ----------
    result : xarray.Dataset
        As `fit` returns, up to the last whole iteration.
    """

    def __init__(self, result: xr.Dataset) -> None:
        super().__init__("fit interrupted", result)


@takes(FitSettings)
@checked
def fit(
    prior: ImagePrior,
    task: Task | Sequence[Task],
    settings: FitSettings | None = None,
    *,
    seed: int | Sequence[int] = 0,
    monitors: Sequence[Monitor | str] = (),
    stop: Rule | str | None = None,
    checkpoint: str | Path | None = None,
    progress: bool = False,
    callback: Callback | None = None,
    **options: Any,
) -> xr.Dataset:
    """Fit a network to one measurement, or to several from several initialisations at once.

    What is descended is the mean misfit of the measurement, of squares unless the task says
    otherwise, plus what regularises it.

    Parameters
    ----------
    prior : ImagePrior
        The network; its device and dtype are used, the task is moved there.
    task : Task or sequence of Task
        What was measured. Several tasks, of one shape, are fitted at once, each by weights of
        its own.
    settings : FitSettings, optional
        The options that decide the result, in one object; those that are given by name replace
        its own.
    seed : int or sequence of int
        Of the initialisation, and of the input noise. With several, each is a run of its own.
    monitors : sequence of Monitor or str
        Further scalars to record of every output, for `stopping_panel`; by name
        ("windowed-variance", "moving-variance", "blur-sharpness", "frequency-bands", "clean-bands",
        "pseudo-reference", "twin")
        or as objects, which are used up.
    stop : Rule or str, optional
        A stopping rule, or its name (see `dipkernels.stopping`), that ends the fit; its
        monitor is added. With several runs, the fit ends when the rule has stopped all.
    checkpoint : str or Path, optional
        File in which the state is kept, saved every half minute and at the end. The same call
        with the same file continues what was begun, with the bits of an uninterrupted fit (on a
        CPU with as many threads); a call with more iterations goes on from there.
    progress : bool
        Show a bar, on a terminal or in a notebook.
    callback : callable, optional
        Called at every iteration with ``(iteration, image, parameters)``, all detached; with
        several runs, these have a leading axis over runs (task by task, seed by seed in each). It
        must not change them; the parameters change under it in the next step, so clone what you
        keep.
    **options
        Fields of `FitSettings`.

    Returns
    -------
    xarray.Dataset
        In units in which white is 1, but for the loss. Over ``iteration``: ``loss``;
        ``psnr_noisy`` and ``psnr_average_noisy`` of the output and its running average to the
        measurement, on the measured entries; ``psnr_second`` of the output to the second
        measurement of a task that was measured twice; ``psnr_held_out``, where
        the task holds some out; what monitors record. Over ``(iteration, region)``, where the
        truth is known: ``psnr_clean`` and ``psnr_average_clean`` (regions: whole, and with a mask
        hole and known). Images over ``(channel, y, x)`` (``x`` alone of signals, ``z`` too of
        volumes): ``clean``, ``measurement``, ``initial``, ``final``, ``average`` and ``best`` (of
        the highest ``psnr_clean`` in the task's score region: an oracle's choice), and ``mse``,
        ``psnr`` and ``ssim`` of the last three over ``(picture, region)``. Over ``snapshot``, whose
        values are iterations: ``snapshots``, images on the way of the first seed, which
        `dipkernels.fitting.snapshot_images` reads (the last that was finite, of a run that has
        diverged). ``rollbacks``: how
        often backtracking acted. With `stop`: ``chosen`` and ``stopped``, the iteration that the
        rule chose and that at which it fired (-1 if it didn't), and the image ``chosen_image``.
        Attributes: ``peak_psnr``, ``peak_iteration``, ``status`` ("finished", "stopped",
        "interrupted", "diverged"), settings and provenance. With a sequence of
        seeds there is a dimension ``seed``, with one of tasks ``image``; peaks and status are
        then variables over them, and a run that has diverged is NaN from there on.

    Raises
    ------
    InvalidInputError
        If prior and task differ in shape, a setting is out of range, or would have no effect.
    NotApplicableError
        If the stopping rule needs what this fit doesn't record.
    FitInterrupted
        On Ctrl-C, holding the result so far.
    KeyboardInterrupt
        On Ctrl-C before the first image.
    DivergenceError
        If even the first loss of every run isn't finite.
    OutputError
        If the checkpoint can't be written, or is another fit's.

    Warns
    -----
    UnitWarning
        If the network can't come near the task's values, as a sigmoid can't those above 1.

    Notes
    -----
    A loss that stops being finite, or reaches a million times the first one, ends its run with
    status "diverged"; the result, its images included, ends before that iteration (the fit itself
    notices up to 50 iterations later). Cost per iteration: a forward and a backward pass of each
    run. Memory: five copies of the parameters and the activations of one pass, times the runs; a
    byte a snapshot, pixel and channel of each image.
    Source: Ulyanov et al. 2017.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> result = fit(prior, tasks.denoise(torch.full((3, 16, 24), 0.5)), iterations=3)
    >>> result.sizes["iteration"], result.status
    (4, 'finished')
    """
    settings = gather(FitSettings, settings, options, "fit")
    if checkpoint is not None and not isinstance(checkpoint, str | Path):
        raise InvalidInputError(f"checkpoint must be the path of a file, got {checkpoint!r}")
    if callback is not None and not callable(callback):
        raise InvalidInputError(f"callback must be a function, got {callback!r}")
    several = not isinstance(task, Task) and isinstance(task, Iterable)
    tasks: list[Any] = list(task) if several else [task]  # type: ignore[arg-type]
    seeds, several_seeds = as_seeds(seed)
    many = (several, several_seeds)
    check_runs(prior, tasks, seeds, settings)
    warn_of_ranges(prior, tasks)
    tasks = [each.to(device=prior.device, dtype=prior.dtype) for each in tasks]
    rule = None if stop is None else make_rule(stop)
    watching = make_monitors(monitors, rule)
    record = Record(tasks, len(seeds), settings.averaging, watching, settings.snapshots)
    check_twins(record.twins, settings)
    stopper = None if rule is None else Stopper(rule, record)
    saver = state = None
    if checkpoint is not None:
        identity = identity_of(prior, tasks, seeds, settings, record, rule)
        saver = Saver(Path(checkpoint), identity, kind="fit")
        state = saver.load()
    rates = state["rates"] if state else None
    descent = Descent(prior, tasks, seeds, settings, rates, record.twins)
    loop = FitLoop(descent, record, stopper, callback)
    if state is not None:
        if state["iteration"] > settings.iterations:
            raise InvalidInputError(
                f"the fit in {checkpoint} has {state['iteration']} iterations already, "
                f"{settings.iterations} were asked for: ask for more, or choose another checkpoint"
            )
        loop.load(state)
    label = f"{prior.name}: {settings.optimiser}" + f" x {descent.runs}" * (descent.runs > 1)
    status = loop.run(label, saver, progress=progress)
    _tell(loop, status)
    if not record.pictures or not (record.table()[..., 0] > 0).any():
        raise DivergenceError(
            f"{prior} can't be fitted: the loss at its initial parameters is not finite; check the "
            "network, its code and the measurement"
        )
    result = _described(loop, status, many=many)
    if status == "interrupted":
        raise FitInterrupted(result) from None
    return result


def _tell(loop: FitLoop, status: str) -> None:
    descent, record = loop.moved, loop.record
    where = f"{descent.prior.name}, {descent.settings.optimiser}"
    logger.info(
        "the fit (%s) %s after %d iterations, %.1f s",
        where,
        {"finished": "ended", "interrupted": "was interrupted"}.get(status, status),
        descent.iteration,
        loop.seconds,
    )
    rollbacks = int(descent.rollbacks[: record.runs].sum())
    if rollbacks:
        logger.info("the fit (%s) went back %d times, when it had become worse", where, rollbacks)
    diverged = int((record.table()[-1, :, 0] == 0).sum()) if record.iterations else 0
    if diverged:
        logger.warning("the fit (%s) diverged in %d of %d runs", where, diverged, record.runs)


def _described(loop: FitLoop, status: str, *, many: tuple[bool, bool]) -> xr.Dataset:
    """Make the result, with settings, status and provenance."""
    descent, stopper, record = loop.moved, loop.stopper, loop.record
    by_run: dict[str, Any] = {}
    if descent.settings.backtracking is not None:
        by_run["rollbacks"] = descent.rollbacks[: record.runs].cpu().numpy()
    if stopper is not None and stopper.images is not None:
        images = (stopper.images / record.tasks[0].data_range).cpu().numpy()
        by_run |= {"chosen": stopper.chosen, "stopped": stopper.fired, "chosen_image": images}
    if any(many):
        ended = record.table()[-1, :, 0] == 0
        by_run["status"] = np.where(ended, "diverged", status).astype(object)
    result = build_dataset(record, descent.seeds, by_run, many=many)
    settings = descent.settings.record() | {"requested_iterations": descent.settings.iterations}
    del settings["iterations"]
    first = record.tasks[0]
    sigmas = [task.noise_sigma / task.data_range for task in record.tasks]
    attributes: dict[str, Any] = {
        **describe_prior(descent.prior),
        **settings,
        "learning_rate": descent.rates if many[1] else descent.rates[0],
        "seed": descent.seeds if many[1] else descent.seeds[0],
        "task": first.name,
        "noise_sigma": sigmas if many[0] else sigmas[0],
        "score_region": first.score_region,
        "seconds": loop.seconds,
        **provenance(descent.prior.device),
    }
    if not any(many):
        attributes["status"] = status
    if stopper is not None:
        attributes["stop"] = stopper.rule.name
    return result.assign_attrs(attributes)
