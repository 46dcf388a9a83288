"""What was asked for as plain data: the canonical form, and the record of a command."""

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dipkernels.networks import ImagePrior
    from dipkernels.tasks import Task


def canonical(value: Any) -> str:
    """Write plain data as JSON such that equal data give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_record(
    command: str, image: str, task: "Task", prior: "ImagePrior", settings: dict[str, Any]
) -> dict[str, Any]:
    """List all that the result of a command depends on, for `RunFolder.open`."""
    return {
        "command": command,
        **task_record(image, task),
        "prior": repr(prior),
        "network_sha256": network_hash(prior),
        **settings,
        "device": str(prior.device),
    }


def task_record(image: str, task: "Task") -> dict[str, Any]:
    """List what of a task the result of a command depends on."""
    from dipkernels.base.origin import digest, provenance

    operator = task.operator
    named = {} if operator.identity == operator.name else {"operator": operator.identity}
    return {
        **named,
        "image": image,
        "task": repr(task),
        "measurement_sha256": digest(task.measurement),
        "version": provenance("cpu")["version_dipkernels"],
    }


def network_hash(prior: "ImagePrior") -> str:
    """Hash the code and the shapes of the parameters of a network."""
    from dipkernels.base.origin import digest

    return digest(*prior.code_tensors, str(prior.parameter_shapes))
