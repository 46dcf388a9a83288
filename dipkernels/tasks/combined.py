"""Several images fitted by one network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.operators import BlockDiagonal
from dipkernels.tasks.task import Task


@checked
def several(tasks: Sequence[Task]) -> Task:
    """Put tasks together: their images lie one after the other along the channels.

    A prior for them is made by ``networks.create(..., images=task.images)``.

    Parameters
    ----------
    tasks : sequence of Task
        At least two, of one name, image shape, measurement shape and noise level; all or none with
        a clean image, all or none with a guide. Pixels are to be held out afterwards.

    Returns
    -------
    Task
        Of the same name. Its regions are those of the tasks, over all images together, then
        ``"image 1"``, ``"image 2"``, ... and, where a task has more regions than the whole,
        ``"image 1 hole"`` and so on. `Task.images` is their number.

    Raises
    ------
    InvalidInputError
        If there are fewer than two, or they differ in what they must share.
    """
    tasks = list(tasks)
    if len(tasks) < 2:
        raise InvalidInputError(f"several tasks are at least 2, got {len(tasks)}")
    _require_alike(tasks)
    if any(task.has_held_out or task.second is not None or task.images > 1 for task in tasks):
        raise InvalidInputError(
            "tasks that hold out pixels or were measured twice, or several of several, can't be "
            "put together: hold out of the result, and give all single tasks at once"
        )
    if not tasks[0].law.by_entry:
        raise InvalidInputError(
            f"the misfit is {tasks[0].law.name}, which is of one measurement: fit the tasks apart"
        )
    operator = BlockDiagonal([task.operator for task in tasks])
    measurement = torch.cat([task.measurement for task in tasks])
    regions = {name: torch.cat([task.regions[name] for task in tasks]) for name in tasks[0].regions}
    for number, task in enumerate(tasks):
        for region, mask in task.regions.items():
            name = f"image {number + 1}" + ("" if region == "whole" else f" {region}")
            elsewhere = torch.zeros_like(mask)
            blocks = [mask if other == number else elsewhere for other in range(len(tasks))]
            regions[name] = torch.cat(blocks)
    return Task(
        tasks[0].name,
        measurement,
        operator,
        tasks[0].noise_sigma,
        clean=_together([task.clean for task in tasks]),
        guide=_together([task.guide for task in tasks]),
        regions=regions,
        score_region=tasks[0].score_region,
        images=len(tasks),
        data_range=tasks[0].data_range,
        law=tasks[0].law,
    )


def _require_alike(tasks: list[Task]) -> None:
    first = _shared(tasks[0])
    for number, task in enumerate(tasks[1:], start=2):
        for what, value in _shared(task).items():
            if value != first[what]:
                raise InvalidInputError(
                    f"tasks that are fitted by one network must share their {what}: task 1 has "
                    f"{first[what]}, task {number} has {value}"
                )


def _shared(task: Task) -> dict[str, object]:
    return {
        "name": task.name,
        "shape": task.shape,
        "measurement's shape": tuple(task.measurement.shape),
        "noise_sigma": task.noise_sigma,
        "misfit": task.law,
        "range": task.data_range,
        "clean image or the lack of one": "none" if task.clean is None else "one",
        "regions": ", ".join(task.regions),
        "guide's shape": "none" if task.guide is None else tuple(task.guide.shape),
        "device": str(task.measurement.device),
        "dtype": str(task.measurement.dtype),
    }


def _together(images: list[Tensor | None]) -> Tensor | None:
    present = [image for image in images if image is not None]
    return torch.cat(present) if present else None
