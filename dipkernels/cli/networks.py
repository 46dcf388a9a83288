"""Makes a network from what was typed."""

import ast
from typing import TYPE_CHECKING, Any

from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    from dipkernels.networks import ImagePrior
    from dipkernels.tasks import Task


def parse_options(prior: str, text: str) -> dict[str, object]:
    """Read ``name=value`` pairs; values are Python's literals, or words.

    Parameters
    ----------
    prior : str
        Name of the network.
    text : str
        Pairs, separated by spaces.

    Returns
    -------
    dict
        For `make_prior`.

    Raises
    ------
    InvalidInputError
        If a pair can't be read, or the network has no such option.
    """
    from dipkernels import networks

    allowed = networks.entry(prior).options
    found: dict[str, object] = {}
    for pair in text.split():
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInputError(
                f"--options must be like \"width=64 upsampling=nearest\", got '{pair}'"
            )
        if name not in allowed:
            raise InvalidInputError(f"'{prior}' has no option {name}; it has: {', '.join(allowed)}")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def make_prior(name: str, task: "Task", *, code: str | None, **options: Any) -> "ImagePrior":
    """Create a network for a task.

    Parameters
    ----------
    name : str
        Of the network.
    task : Task
        For the size, the channels and perhaps the code.
    code : str or None
        What the network is called with, by name; None for its own.
    **options
        Others of `dipkernels.networks.create`.

    Returns
    -------
    ImagePrior
        On the CPU.

    Raises
    ------
    InvalidInputError
        If a code is given and the task has its own, or an option doesn't fit.
    """
    from dipkernels import networks

    if task.guide is not None and code is not None:
        raise InvalidInputError(f"--code {code} has no effect: the photograph with flash is it")
    chosen = code if task.guide is None else task.guide
    channels, *spatial = task.shape
    return networks.create(
        name, image_size=tuple(spatial), channels=channels, code=chosen, **options
    )


def run_record(
    command: str, image: str, task: "Task", prior: "ImagePrior", settings: dict[str, Any]
) -> dict[str, Any]:
    """List all that the result of a command depends on.

    Parameters
    ----------
    command : str
        Its name.
    image : str
        As it was typed.
    task : Task
        Made of it.
    prior : ImagePrior
        On its device.
    settings : dict
        All others.

    Returns
    -------
    dict
        For `dipkernels.storage.RunFolder.open`.
    """
    from dipkernels.base.origin import digest, provenance

    return {
        "command": command,
        "image": image,
        "task": repr(task),
        "measurement_sha256": digest(task.measurement),
        "prior": repr(prior),
        "network_sha256": digest(prior.code, str(prior.parameter_shapes)),
        **settings,
        "device": str(prior.device),
        "version": provenance("cpu")["version_dipkernels"],
    }
