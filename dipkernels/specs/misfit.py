"""What errors of a task cost, in words: squares, l1, or poisson=PEAK."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dipkernels.errors import InvalidInputError

if TYPE_CHECKING:
    from dipkernels.tasks import Task

POISSON = "poisson"


def photons(task: Mapping[str, Any], spell: Callable[[str], str] = str) -> float | None:
    """Read the photons at white off a misfit, None of another misfit than Poisson's."""
    said = task.get("misfit") or ""
    name, _, text = said.partition("=")
    if name != POISSON:
        if said not in ("", "squares", "l1"):
            raise InvalidInputError(
                f"{spell('misfit')} is squares, l1 or poisson=PEAK, such as poisson=1000, got "
                f"'{said}'"
            )
        return None
    try:
        peak = float(text)
    except ValueError:
        peak = 0.0
    if not 0 < peak < float("inf"):
        raise InvalidInputError(
            f"{spell('misfit')} poisson needs the photons at white, a positive number, such as "
            f"poisson=1000, got '{said}'"
        )
    return peak


def with_misfit(made: "Task", task: Mapping[str, Any]) -> "Task":
    """Let errors of a task cost what is said; draw photons, if it's simulated."""
    from dipkernels.base.seeds import generator
    from dipkernels.tasks.misfits import Poisson

    peak = photons(task)
    if peak is None:
        return made.with_misfit(task["misfit"]) if task.get("misfit") else made
    law = Poisson(peak)
    if task.get("measured", False) or made.clean is None:
        return made.with_misfit(law)
    counts = law.draw(made.forward(made.clean), 0.0, generator("noise", task["seed"]))
    return replace(made, measurement=counts * made.counted, law=law)
