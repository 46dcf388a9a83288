"""Measurements to fit a prior to: what was measured, how, and what to score where.

A `Task` holds the measurement, the forward operator, the level of the noise and, where it is
known, the clean image. It is what `dipkernels.fit` fits and what the theory predicts.
"""

from dipkernels.tasks.adapting import as_operator
from dipkernels.tasks.combined import several
from dipkernels.tasks.convolution import Blur, gaussian_psf
from dipkernels.tasks.denoising import NOISE_SIGMA, denoise, flash_no_flash
from dipkernels.tasks.fourier import Fourier, line_mask
from dipkernels.tasks.inpainting import inpaint
from dipkernels.tasks.jpeg import dejpeg
from dipkernels.tasks.masks import bayer_mask, bernoulli_mask, region_mask, text_mask
from dipkernels.tasks.measuring import measure
from dipkernels.tasks.operators import Operator
from dipkernels.tasks.physics import from_physics
from dipkernels.tasks.projection import Radon
from dipkernels.tasks.sensing import RandomSensing
from dipkernels.tasks.super_resolution import super_resolve
from dipkernels.tasks.task import Task

__all__ = [
    "NOISE_SIGMA",
    "Blur",
    "Fourier",
    "Operator",
    "Radon",
    "RandomSensing",
    "Task",
    "as_operator",
    "bayer_mask",
    "bernoulli_mask",
    "dejpeg",
    "denoise",
    "flash_no_flash",
    "from_physics",
    "gaussian_psf",
    "inpaint",
    "line_mask",
    "measure",
    "region_mask",
    "several",
    "super_resolve",
    "text_mask",
]
