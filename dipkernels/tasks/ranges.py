"""Whether a network whose images lie in some range can come near what a task asks for."""

import math

import torch
from torch import Tensor

from dipkernels.tasks.downsampling import LanczosDownsampling
from dipkernels.tasks.task import Task

SHARE = 0.05  # of the variance, which a misfit that can't be undercut may be
WIDE = 8  # times white: a range that isn't meant for the image
STEPS = 10  # of the descent that looks for an image in the range
FLAT = 1e-6  # of what an operator sees of any image: what it must see of a constant one


def out_of_range(task: Task, low: float, high: float) -> str:
    """Say in a sentence why images in a range are far from a task's, or nothing."""
    if task.clean is not None:
        return _out_of_reach(task.clean, "clean image", 0.0, task, low, high)
    if not task.law.by_entry:  # of one's own, whose noise nobody knows
        return ""
    noise = _noise(task)
    if task.operator.mask is not None:
        known = task.measurement[task.operator.mask.expand(task.shape)]
        return _out_of_reach(known, "measurement", noise, task, low, high)
    if isinstance(task.operator, LanczosDownsampling):
        return _out_of_reach(task.measurement, "measurement", noise, task, low, high)
    return _out_of_sight(task, noise, low, high)


def _out_of_reach(
    target: Tensor, what: str, noise: float, task: Task, low: float, high: float
) -> str:
    """Judge values that the network's image is to come near."""
    least, most = float(target.min()), float(target.max())
    said = f"the {what} has values from {least:.4g} to {most:.4g}"
    excess = float((target - target.clamp(low, high)).double().square().mean())
    spread = float(target.double().var(correction=0))
    if excess > noise + SHARE * spread + 1e-6 * task.data_range**2:
        return _too_far(said, low, high, excess)
    return _too_wide(task, said, low, high, most - least - 8 * math.sqrt(noise))


def _out_of_sight(task: Task, noise: float, low: float, high: float) -> str:
    """Judge what an operator measured of an image that nobody knows."""
    if not math.isfinite(high - low):
        return ""
    counted, seen = task.counted, task.measurement * task.counted
    ones = torch.ones(task.shape).to(seen)
    flat = task.forward(ones) * counted
    norm = task.operator.norm(iterations=5, device=seen.device, dtype=seen.dtype)
    if not float(flat.norm()) > FLAT * norm * math.sqrt(ones.numel()):
        return ""  # nothing is seen of brightness, of which all units are
    brightness = float((flat * seen).sum()) / float(flat.square().sum())
    said = f"the measurement is as of an image of mean brightness {brightness:.4g}"
    spread = float(seen[counted].double().var(correction=0))
    enough = (noise + SHARE * spread) * int(counted.sum())
    image = torch.full_like(ones, min(max(brightness, low), high))
    # Descend in the range, until an image is found that comes near enough, or none can.
    for _ in range(STEPS):
        left = seen - task.forward(image) * counted
        if float(left.square().sum()) <= enough:
            break
        slope = task.adjoint(left)
        # |y - A f| >= <u, y - A f> / |u| for any u and f. Noise that no image has isn't in this u.
        u = task.forward(slope) * counted
        back = task.adjoint(u)
        length = float(u.norm())
        if not length > 0:
            break
        most = float(torch.where(back > 0, high * back, low * back).sum())
        gap = (float((u * seen).sum()) - most) / length
        if gap > 0 and gap**2 > enough:
            return _too_far(said, low, high, gap**2 / int(counted.sum()))
        image = (image + float(slope.square().sum()) / length**2 * slope).clamp(low, high)
    return _too_wide(task, said, low, high, abs(brightness))


# Variance of a number of the measurement.
def _noise(task: Task) -> float:
    deviation = task.law.deviation(task.measurement, task.noise_sigma)
    return float(deviation[task.counted].double().square().mean())


def _too_far(said: str, low: float, high: float, excess: float) -> str:
    return (
        f"{said}, the network's images from {low:g} to {high:g}: no fit comes nearer than a "
        f"mean squared error of {excess:.3g}; bring the image into that range (by white=, its "
        "white becomes 1), or take a network without one (output 'none')"
    )


def _too_wide(task: Task, said: str, low: float, high: float, size: float) -> str:
    white = task.data_range
    if not (WIDE * white < high - low < math.inf and size <= 2 * white):
        return ""
    return (
        f"{said}, where white is {white:g}, and the network's images from {low:g} to {high:g}: "
        f"bring the task there by task.in_range({high:g}), or take a network of output 'sigmoid' "
        "or 'none'"
    )
