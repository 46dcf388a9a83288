"""What is checked and made before a fit starts."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dipkernels.base.origin import digest
from dipkernels.errors import InvalidInputError, UnitWarning
from dipkernels.fitting.own import check_own, describe_own, mixes
from dipkernels.fitting.record import Record
from dipkernels.fitting.settings import FitSettings
from dipkernels.priors.linearised import LinearisedPrior
from dipkernels.priors.prior import ImagePrior, single_code
from dipkernels.priors.reach import output_range
from dipkernels.stopping import Monitor, Rule, make_monitor, monitor_names
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES
from dipkernels.tasks.ranges import out_of_range


def check_runs(
    prior: ImagePrior, tasks: list[Task], seeds: list[int], settings: FitSettings
) -> None:
    """Check that runs can be fitted together, and with these settings."""
    if prior.dtype not in (torch.float32, torch.float64):
        raise InvalidInputError(
            f"a fit needs a prior in float32 or float64, got {prior.dtype}: use prior.to(dtype=), "
            "and precision='bf16' for speed"
        )
    if not tasks or not seeds:
        raise InvalidInputError(f"a fit needs a task and a seed, got {len(tasks)}, {len(seeds)}")
    if isinstance(prior, LinearisedPrior) and len(seeds) > 1:
        raise InvalidInputError(
            f"{prior} starts where it was linearised, whatever the seed, got {seeds}: give one, or "
            "linearise at the parameters of each seed and fit them one by one"
        )
    if isinstance(prior, LinearisedPrior) and settings.relinearise is not None:
        raise InvalidInputError(
            f"relinearise has no effect on {prior}, which is linear everywhere: fit its network"
        )
    if len(set(seeds)) < len(seeds):
        raise InvalidInputError(f"seeds must differ, got {seeds}: equal seeds give equal fits")
    for each in tasks:
        if prior.shape != each.shape:
            raise InvalidInputError(
                f"{prior} makes images of shape {prior.shape}, the task has {each.shape}: create "
                "the prior with the task's image_size and channels"
            )
        if _kind(each) != _kind(tasks[0]):
            raise InvalidInputError(
                "tasks that are fitted together must be alike: of one kind, range, misfit and set "
                "of regions, all with or all without clean image, held-out pixels and second "
                f"measurement; got {tasks[0]!r} and {each!r}"
            )
        if each.guide is not None and not _is_code(each.guide, prior):
            raise InvalidInputError(
                f"this '{each.name}' task has a guide for the network's code, which {prior} "
                "doesn't take: create the prior with code=task.guide"
            )
    _check_settings(prior, settings, len(tasks) * len(seeds))
    check_own(settings, len(tasks) * len(seeds))


def _check_settings(prior: ImagePrior, settings: FitSettings, runs: int) -> None:
    if runs > 1 and settings.optimiser == "l-bfgs":
        raise InvalidInputError(
            f"l-bfgs fits one run at a time, got {runs}: call fit for each task and seed"
        )
    if settings.channels_last and runs > 1:
        raise InvalidInputError(
            f"channels_last is for one run, got {runs}: leave it out or fit them one by one"
        )
    if settings.input_noise:
        single_code(prior, "input_noise")
    if settings.channels_last and single_code(prior, "channels_last").dim() != 4:
        raise InvalidInputError(
            f"channels_last is for 2D convolutional networks; the code of {prior} has shape "
            f"{tuple(prior.code.shape)}: leave it out"
        )
    if settings.precision == "tf32" and prior.device.type != "cuda":
        raise InvalidInputError(
            f"precision 'tf32' has no effect on {prior.device}: use 'bf16' or 'float'"
        )


def check_twins(twins: list[Task], settings: FitSettings) -> None:
    """Check that other runs can be fitted beside."""
    if not twins:
        return
    why = "compares the fit with a twin, which is fitted beside it"
    for name, chosen in (
        ("l-bfgs", settings.optimiser == "l-bfgs"),
        ("channels_last", settings.channels_last),
        (f"'{settings.optimiser}'", mixes(settings)),
    ):
        if chosen:
            raise InvalidInputError(
                f"{name} is for one run, and a monitor or rule {why}: leave one of them out"
            )


def _is_code(guide: Tensor, prior: ImagePrior) -> bool:
    code = single_code(prior, "a task's guide").flatten(0, 1).cpu()
    return code.shape == guide.shape and torch.equal(code, guide.cpu().to(code.dtype))


# What tasks that are fitted together must share.
def _kind(task: Task) -> tuple[object, ...]:
    truth, held_out = task.clean is None, (task.has_held_out, task.second is not None)
    measured = tuple(task.measurement.shape)
    return (
        task.name,
        measured,
        list(task.regions),
        task.score_region,
        truth,
        held_out,
        task.data_range,
        task.law,
    )


def identity_of(
    prior: ImagePrior,
    tasks: list[Task],
    seeds: list[int],
    settings: FitSettings,
    record: Record,
    rule: Rule | None,
) -> dict[str, Any]:
    """Say what a checkpoint belongs to."""
    values = settings.record()
    del values["snapshots"]  # they change nothing else, and may be fewer from here on
    if settings.schedule == "constant":
        del values["iterations"]
    return {
        **values,
        **describe_own(settings),
        **describe_network(prior, seeds[0]),
        "seeds": seeds,
        "tasks": [describe_task(each, prior) for each in tasks],
        "recorded": record.columns,
        "monitors": [_options_of(monitor) for monitor in record.monitors],
        "stop": None if rule is None else [rule.name, _options_of(rule)],
    }


def describe_network(prior: ImagePrior, seed: int) -> dict[str, Any]:
    """Tell networks apart, and where they run, for the identity of a checkpoint."""
    where = {"dtype": str(prior.dtype), "device": str(prior.device)}
    return {"prior": repr(prior), **describe_start(prior, seed), **where}


def describe_start(prior: ImagePrior, seed: int) -> dict[str, Any]:
    """Tell networks apart, for the identity of what is stored."""
    with torch.no_grad():
        start = prior.image(prior.init(seed)).double()
    return {
        "network": digest(*prior.code_tensors, str(prior.parameter_shapes)),
        # Networks of the same shapes differ in what they make of a seed.
        "start of the network": [
            f"{float(x):.4g}" for x in (start.mean(), start.std(), start.norm(p=4))
        ],
    }


def describe_task(task: Task, prior: ImagePrior) -> list[Any]:
    """Tell tasks apart, for the identity of what is stored."""
    probe = torch.tensor(0.3, dtype=prior.dtype, device=prior.device).expand(prior.shape)
    return [
        task.name,
        digest(task.measurement),
        "none" if task.clean is None else digest(task.clean),
        *([] if task.second is None else [digest(task.second)]),
        task.noise_sigma,
        [task.score_region, *task.regions],
        # It tells operators and held-out pixels apart, up to the order of its sum.
        f"{float(task.misfit(probe)):.5g}",
        # a blur keeps that image as it is
        *([task.operator.identity] if task.operator.identity != task.operator.name else []),
        *([] if task.law == SQUARES else [task.law.name]),
    ]


# The options that an object was made with: its public attributes that are numbers or words.
def _options_of(item: object) -> dict[str, Any]:
    simple = (int, float, str)
    found = {k: v for k, v in vars(item).items() if isinstance(v, simple) and k[0] != "_"}
    return {"type": type(item).__name__, **found}


def make_monitors(monitors: Sequence[Monitor | str], rule: Rule | None) -> list[Monitor]:
    """Make the monitors of a fit, that of its stopping rule included."""
    if isinstance(monitors, str) or not isinstance(monitors, Iterable):
        raise InvalidInputError(
            f"monitors must be a sequence of monitors or names, got {monitors!r}: {monitor_names()}"
        )
    names = [each for each in monitors if isinstance(each, str)]
    needed = None if rule is None else rule.monitor
    made = [make_monitor(each) if isinstance(each, str) else each for each in monitors]
    for each in made:
        if not isinstance(each, Monitor):
            raise InvalidInputError(
                f"a monitor must be one of {monitor_names()} or have names, update, state and "
                f"load, got {each!r}"
            )
    if needed is not None and needed not in names:
        extra = make_monitor(needed)
        if not any(set(extra.names) <= set(each.names) for each in made):
            made.append(extra)
    for each in made:
        if int(each.state().get("count", torch.zeros(()))):
            raise InvalidInputError(
                f"a {type(each).__name__} has followed a fit already: make a new one for every "
                "fit, or give its name"
            )
    columns = [column for each in made for column in each.names]
    if len(set(columns)) < len(columns):
        raise InvalidInputError(f"monitors must differ in what they record, got {columns}")
    return made


def warn_of_ranges(prior: ImagePrior, tasks: list[Task]) -> None:
    """Warn of a task whose values the network can't come near."""
    low, high = output_range(prior)
    for said in dict.fromkeys(filter(None, (out_of_range(each, low, high) for each in tasks))):
        warnings.warn(f"{prior.name}: {said}", UnitWarning, stacklevel=3)
