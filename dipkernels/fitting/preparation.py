"""What is checked and made before a fit starts."""

from collections.abc import Sequence
from typing import Any

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.settings import FitSettings
from dipkernels.fitting.stopping import Monitor, Rule, make_monitor
from dipkernels.networks.prior import ImagePrior
from dipkernels.provenance import fingerprint
from dipkernels.tasks import Task


def check_runs(
    prior: ImagePrior, tasks: list[Task], seeds: list[int], settings: FitSettings
) -> None:
    """Check that runs can be fitted together, and with these settings.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    tasks : list of Task
        What was measured.
    seeds : list of int
        Of the initialisations.
    settings : FitSettings
        Valid by themselves.

    Raises
    ------
    InvalidInputError
        If they can't, or a setting would have no effect.
    """
    if not tasks or not seeds:
        raise InvalidInputError(f"a fit needs a task and a seed, got {len(tasks)}, {len(seeds)}")
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
                "tasks that are fitted together must be alike: with one range and set of regions, "
                "all with or all without clean image and held-out pixels; got "
                f"{tasks[0]!r} and {each!r}"
            )
    runs = len(tasks) * len(seeds)
    if runs > 1 and settings.optimiser == "l-bfgs":
        raise InvalidInputError(
            f"l-bfgs fits one run at a time, got {runs}: call fit for each task and seed"
        )
    if settings.channels_last and runs > 1:
        raise InvalidInputError(
            f"channels_last is for one run, got {runs}: leave it out or fit them one by one"
        )
    if settings.channels_last and prior.code.dim() != 4:
        raise InvalidInputError(
            f"channels_last is for 2D convolutional networks; the code of {prior} has shape "
            f"{tuple(prior.code.shape)}: leave it out"
        )
    if settings.precision == "tf32" and prior.device.type != "cuda":
        raise InvalidInputError(
            f"precision 'tf32' has no effect on {prior.device}: use 'bf16' or 'float'"
        )


# What tasks that are fitted together must share.
def _kind(task: Task) -> tuple[object, ...]:
    truth, held_out = task.clean is None, task.has_held_out
    return list(task.regions), task.score_region, truth, held_out, task.peak


def identity_of(
    prior: ImagePrior,
    tasks: list[Task],
    seeds: list[int],
    settings: FitSettings,
    columns: list[str],
) -> dict[str, Any]:
    """Say what a checkpoint belongs to.

    Parameters
    ----------
    prior : ImagePrior
        The network.
    tasks : list of Task
        What was measured.
    seeds : list of int
        Of the initialisations.
    settings : FitSettings
        All but the number of iterations count: a fit may be continued to more, unless its
        schedule depends on their number.
    columns : list of str
        What is recorded.

    Returns
    -------
    dict
        Fit for JSON.
    """
    values = settings.record()
    if settings.schedule == "constant":
        del values["iterations"]
    probe = prior.code.new_tensor([0.3]).expand(prior.shape)
    return {
        **values,
        "prior": repr(prior),
        "network": fingerprint(prior.code, str(prior.parameter_shapes)),
        "dtype": str(prior.dtype),
        "device": str(prior.device),
        "seeds": seeds,
        "tasks": [
            # The misfit tells operators and held-out pixels apart, up to the order of its sum.
            [each.name, fingerprint(each.measurement), f"{float(each.misfit(probe)):.5g}"]
            for each in tasks
        ],
        "recorded": columns,
    }


def make_monitors(monitors: Sequence[Monitor | str], rule: Rule | None) -> list[Monitor]:
    """Make the monitors of a fit, that of its stopping rule included.

    Parameters
    ----------
    monitors : sequence of Monitor or str
        Asked for.
    rule : Rule or None
        That may need one more.

    Returns
    -------
    list of Monitor
        Each recording something else.

    Raises
    ------
    InvalidInputError
        If two record the same.
    """
    names = [each for each in monitors if isinstance(each, str)]
    needed = None if rule is None else rule.monitor
    made = [make_monitor(each) if isinstance(each, str) else each for each in monitors]
    if needed is not None and needed not in names:
        extra = make_monitor(needed)
        if not any(set(extra.names) <= set(each.names) for each in made):
            made.append(extra)
    columns = [column for each in made for column in each.names]
    if len(set(columns)) < len(columns):
        raise InvalidInputError(f"monitors must differ in what they record, got {columns}")
    return made
