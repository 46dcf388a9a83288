"""Gaussian processes and tasks of every kind, on small odd sizes, with their dense twins."""

from collections.abc import Callable

import torch
from torch import Tensor

from dipkernels import tasks
from dipkernels.base.seeds import generator
from dipkernels.gp import GaussianProcess, matern, rbf
from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    convolve,
    upsample,
)
from dipkernels.kernels.stationary.maps import filtered
from dipkernels.tasks import Task
from helpers.gaussian import Dense, dense

SIGMA = 0.2
MEAN = 0.4


def image(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator("image", sum(shape)))


def scattered(*size: int) -> Tensor:
    return torch.rand(size, generator=generator("scattered", 0)) < 0.55


def smooth(*size: int) -> StationaryKernel:
    taps = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    taps = taps[:, None] * taps if len(size) == 2 else taps
    return filtered(filtered(StationaryKernel.white(size), taps), taps)


def phased(*size: int) -> StationaryKernel:
    """Of period 2: a small decoder's."""
    coarse = StationaryKernel.white(tuple(n // 2 for n in size), variance=0.3)
    kernel = upsample(coarse, 2, "bilinear", max_period=None)
    return convolve(activate(kernel, "leaky-relu"), 1, Weights.ntk(2.0, 0.02))


def measured(operator: tasks.Operator) -> Task:
    return tasks.measure(operator, image(*operator.image_shape), noise_sigma=SIGMA, seed=1)


# name: process, task, solvers that can do it
CASES: dict[str, tuple[Callable[[], GaussianProcess], Callable[[], Task], tuple[str, ...]]] = {
    "denoise a signal": (
        lambda: GaussianProcess(matern(2.0, 0.1), MEAN),
        lambda: tasks.denoise(image(2, 13), noise_sigma=SIGMA),
        ("primal", "dual"),
    ),
    "inpaint a block": (
        lambda: GaussianProcess(rbf(1.3, 0.08), MEAN),
        lambda: tasks.inpaint(
            image(2, 7, 10), tasks.region_mask((7, 10), hole=(3, 4)), noise_sigma=SIGMA
        ).hold_out(0.1),
        ("primal", "dual"),
    ),
    "inpaint a torus": (
        lambda: GaussianProcess(smooth(9, 6), MEAN, periodic=True),
        lambda: tasks.inpaint(image(1, 9, 6), scattered(9, 6), noise_sigma=SIGMA),
        ("primal", "dual"),
    ),
    "inpaint channels apart": (
        lambda: GaussianProcess(matern(3.0, 0.1, smoothness=0.5), MEAN),
        lambda: tasks.inpaint(image(2, 5, 7), scattered(2, 5, 7), noise_sigma=SIGMA),
        ("primal", "dual"),
    ),
    "inpaint with phases": (
        lambda: GaussianProcess(phased(12, 14), MEAN),
        lambda: tasks.inpaint(image(1, 5, 7), scattered(5, 7), noise_sigma=SIGMA),
        ("primal", "dual"),
    ),
    "deblur": (
        lambda: GaussianProcess(matern(2.5, 0.1), MEAN),
        lambda: measured(tasks.Blur((2, 6, 7), tasks.gaussian_psf(0.7))),
        ("primal", "dual"),
    ),
    "deblur a torus": (
        lambda: GaussianProcess(smooth(8, 7), MEAN, periodic=True),
        lambda: measured(tasks.Blur((1, 8, 7), tasks.gaussian_psf(0.6), "periodic")).hold_out(0.2),
        ("primal", "dual"),
    ),
    "radon": (
        lambda: GaussianProcess(matern(2.5, 0.1, smoothness=0.5), MEAN),
        lambda: measured(tasks.Radon((1, 6, 7), 5)),
        ("primal", "dual"),
    ),
    "radon on a torus": (
        lambda: GaussianProcess(smooth(7, 7), MEAN, periodic=True),
        lambda: measured(tasks.Radon((2, 7, 7), 4)),
        ("primal", "dual"),
    ),
    "fourier": (
        lambda: GaussianProcess(matern(2.0, 0.1), MEAN),
        lambda: measured(tasks.Fourier((1, 7, 8), tasks.line_mask((7, 8), known=0.5))),
        ("primal", "dual"),
    ),
    "random combinations with phases": (
        lambda: GaussianProcess(phased(8, 8), MEAN, periodic=True),
        lambda: measured(tasks.RandomSensing((1, 8, 8), 30)),
        ("primal", "dual"),
    ),
    "super-resolve": (
        lambda: GaussianProcess(matern(2.5, 0.1, smoothness=2.5), MEAN),
        lambda: tasks.super_resolve(image(2, 8, 6), factor=2, noise_sigma=SIGMA),
        ("primal", "dual"),
    ),
    "super-resolve a signal": (
        lambda: GaussianProcess(phased(24), MEAN, periodic=True),
        lambda: tasks.super_resolve(image(1, 24), factor=3, noise_sigma=SIGMA),
        ("primal", "dual"),
    ),
    "denoise a torus": (
        lambda: GaussianProcess(smooth(7, 10), MEAN, periodic=True),
        lambda: tasks.denoise(image(2, 7, 10), noise_sigma=SIGMA),
        ("fourier", "primal", "dual"),
    ),
    "inpaint a volume": (
        lambda: GaussianProcess(matern(1.5, 0.1), MEAN),
        lambda: tasks.inpaint(image(2, 3, 4, 5), scattered(3, 4, 5), noise_sigma=SIGMA),
        ("dual",),
    ),
    "denoise a torus of volumes with phases": (
        lambda: GaussianProcess(phased(4, 6, 4), MEAN, periodic=True),
        lambda: tasks.denoise(image(1, 4, 6, 4), noise_sigma=SIGMA),
        ("fourier", "primal"),
    ),
    "super-resolve a volume": (
        lambda: GaussianProcess(rbf(1.5, 0.1), MEAN),
        lambda: tasks.super_resolve(image(1, 4, 6, 4), factor=2, border=1, noise_sigma=SIGMA),
        ("dual",),
    ),
    "denoise a torus with phases": (
        lambda: GaussianProcess(phased(6, 8), MEAN, periodic=True),
        lambda: tasks.denoise(image(2, 6, 8), noise_sigma=SIGMA),
        ("fourier", "primal", "dual"),
    ),
}


def reference(name: str) -> tuple[GaussianProcess, Task, Dense]:
    process, task = CASES[name][0](), CASES[name][1]()
    return process, task, dense(process.kernel, task, MEAN, SIGMA)
