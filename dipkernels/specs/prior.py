"""Priors from words: a registered network with its variant, code, range and options."""

import ast
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dipkernels.errors import InvalidInputError
from dipkernels.specs.record import canonical

if TYPE_CHECKING:
    from dipkernels.networks import ImagePrior
    from dipkernels.tasks import Task


def make_prior(prior: Mapping[str, Any], task: "Task") -> "ImagePrior":
    """Make a prior, on the CPU, for a task, which gives its shape, and its code if it has one."""
    from dipkernels import networks

    found = networks.entry(prior["name"])
    found = found if prior["variant"] is None else found.variant(prior["variant"])
    # Only what differs is said: some options may not be given beside some codes.
    usual = {key: canonical(value) for key, value in found.options.items()}
    options = {k: v for k, v in prior["options"].items() if canonical(v) != usual[k]}
    channels, *size = task.shape
    made = networks.create(
        prior["name"],
        image_size=tuple(size),
        channels=channels,
        variant=prior["variant"],
        code=prior["code"] if task.guide is None else task.guide,
        code_seed=prior["code_seed"],
        output=prior["output"],
        initialisation=prior["initialisation"],
        **options,
    )
    require_range(made, task)
    return made


def require_range(prior: "ImagePrior", task: "Task") -> None:
    """Refuse a task whose values the network can't come near."""
    from dipkernels.priors.reach import output_range
    from dipkernels.tasks.ranges import out_of_range

    if said := out_of_range(task, *output_range(prior)):
        raise InvalidInputError(f"{prior.name}: {said}")


def require_code_effect(code: str | None, task: "Task", said: str) -> None:
    """Refuse a code where the task has its own; `said` is the option as the user wrote it."""
    if code is not None and task.guide is not None:
        raise InvalidInputError(
            f"{said} has no effect on task '{task.name}': the photograph with flash is the code; "
            "leave it out"
        )


def parse_options(prior: str, text: str) -> dict[str, object]:
    """Read ``name=value`` pairs of a network; values are Python's literals, or words."""
    from dipkernels import networks

    allowed = networks.entry(prior).options
    found: dict[str, object] = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInputError(
                f"--options must be like \"width=64 upsampling=nearest\", got '{pair}'"
            )
        if name in found:
            raise InvalidInputError(f"--options says {name} twice: keep one of them")
        if name not in allowed:
            raise InvalidInputError(f"'{prior}' has no option {name}; it has: {', '.join(allowed)}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            found[name] = value
    return found
