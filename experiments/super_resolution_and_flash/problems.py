"""The tasks of the proposal, with a truth where one can be had, and what serves as a baseline."""

import dataclasses

import numpy as np
import torch
from skimage.transform import resize
from torch import Tensor

from dipkernels import images, tasks
from dipkernels.base.seeds import generator
from dipkernels.tasks import Task

WARM, COOL = (1.0, 0.75, 0.45), (0.90, 0.95, 1.0)
FLASH_SIGMA = 2 / 255


def super_resolution(image: Tensor, factor: int) -> Task:
    """Make the published task: Pillow's antialiased small image, Lanczos in the operator."""
    return tasks.super_resolve(image, factor=factor, downsampling="pillow")


def load(name: str, scaled: int, size: int) -> Tensor:
    """Load an image at ``scaled`` pixels a side and cut out its middle, ``size`` pixels a side.

    A small window of a larger image is as smooth from pixel to pixel as images are; a small image
    of all of it isn't.
    """
    return images.crop(images.load(name, size=scaled), size)


def lit_pair(scene: Tensor, noise_sigma: float) -> Task:
    """Make a pair with a truth: one image under two lights, as if it were what a scene reflects.

    Without flash the light is warm and falls off from the upper left, and there is noise. With
    flash it is cool and falls off from the middle, with hardly any noise, and there is a
    highlight that the other light doesn't make. The truth is the first without its noise.
    """
    lamp = 0.35 + 0.65 * _falloff(scene, 0.2, 0.2, 0.5)
    truth = scene * torch.tensor(WARM)[:, None, None] * lamp
    flash = scene * torch.tensor(COOL)[:, None, None] * _falloff(scene, 0.5, 0.5, 0.6)
    flash = flash + 0.5 * _falloff(scene, 0.35, 0.6, 0.05)
    flash = flash + FLASH_SIGMA * torch.randn(flash.shape, generator=generator("flash", 0))
    noise = torch.randn(truth.shape, generator=generator("noise", 0))
    task = tasks.flash_no_flash(
        flash.clamp(0, 1), truth + noise_sigma * noise, noise_sigma=noise_sigma
    )
    return dataclasses.replace(task, clean=truth)


def _falloff(like: Tensor, down: float, right: float, width: float) -> Tensor:
    height, length = like.shape[1:]
    rows = (torch.arange(height) + 0.5) / height - down
    columns = (torch.arange(length) + 0.5) / length - right
    return torch.exp(-(rows[:, None] ** 2 + columns**2) / (2 * width**2))


def baselines(task: Task) -> dict[str, Tensor]:
    """Give images that no network made: cubic interpolation, or what was measured."""
    if task.measurement.shape == task.shape:
        return {"measured": task.measurement}
    small = task.measurement.cpu().double().numpy()
    large = resize(small, task.shape, order=3, mode="edge", anti_aliasing=False)
    return {"cubic": torch.from_numpy(np.clip(large, 0, 1)).to(task.measurement)}
