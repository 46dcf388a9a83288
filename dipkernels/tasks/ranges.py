"""Whether a network whose images lie in some range can come near what a task asks for."""

import math

from torch import Tensor

from dipkernels.tasks.downsampling import LanczosDownsampling
from dipkernels.tasks.task import Task

SHARE = 0.05  # of the variance, which a misfit that can't be undercut may be
WIDE = 8  # times white: a range that isn't meant for the image


def out_of_range(task: Task, low: float, high: float) -> str:
    """Say in a sentence why images in a range are far from a task's, or nothing."""
    target, what, noise = _target(task)
    if target is None:
        return ""
    least, most = float(target.min()), float(target.max())
    said = f"the {what} has values from {least:.4g} to {most:.4g}"
    excess = float((target - target.clamp(low, high)).double().square().mean())
    spread = float(target.double().var(correction=0))
    if excess > noise**2 + SHARE * spread + 1e-6 * task.data_range**2:
        return (
            f"{said}, the network's images from {low:g} to {high:g}: no fit comes nearer than a "
            f"mean squared error of {excess:.3g}; bring the image into that range (by white=, its "
            "white becomes 1), or take a network without one (output 'none')"
        )
    white = task.data_range
    if WIDE * white < high - low < math.inf and most - least <= 2 * white + 8 * noise:
        return (
            f"{said}, where white is {white:g}, and the network's images from {low:g} to {high:g}: "
            f"bring the task there by task.in_range({high:g}), or take a network of output "
            "'sigmoid' or 'none'"
        )
    return ""


# What the network's image is to come near, and how much noise that has.
def _target(task: Task) -> tuple[Tensor | None, str, float]:
    if task.clean is not None:
        return task.clean, "clean image", 0.0
    if task.operator.mask is not None:
        known = task.operator.mask.expand(task.shape)
        return task.measurement[known], "measurement", task.noise_sigma
    if isinstance(task.operator, LanczosDownsampling):
        return task.measurement, "measurement", task.noise_sigma
    return None, "", 0.0
