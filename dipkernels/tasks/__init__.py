"""Measurements to fit a prior to: what was measured, how, and what to score where.

A `Task` holds the measurement, the forward operator, the level of the noise and, where it is
known, the clean image. It is what `dipkernels.fit` fits and what the theory predicts.
"""

from dipkernels.tasks.denoising import NOISE_SIGMA, denoise
from dipkernels.tasks.inpainting import inpaint
from dipkernels.tasks.masks import bernoulli_mask
from dipkernels.tasks.task import Task

__all__ = ["NOISE_SIGMA", "Task", "bernoulli_mask", "denoise", "inpaint"]
