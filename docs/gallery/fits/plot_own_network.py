"""
Your own network
================

Any ``torch.nn.Module`` can be used as a prior. Give a function that creates it and the code that
it is applied to.
"""

import torch
from torch import nn

from dipkernels import ImagePrior, fit, images, tasks
from dipkernels.plotting import plot_images


def make():
    return nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Conv2d(32, 32, 3, padding=1, padding_mode="reflect"),
        nn.ReLU(),
        nn.Conv2d(32, 3, 1),
        nn.Sigmoid(),
    )


code = torch.rand(1, 8, 16, 16, generator=torch.Generator().manual_seed(0))
prior = ImagePrior(make, code, name="mine")
task = tasks.denoise(images.load("coffee", size=32), noise_sigma=25 / 255)
result = fit(prior, task, iterations=200, learning_rate=0.01)
print(f"{float(result.peak_psnr):.1f} dB at iteration {int(result.peak_iteration)}")

# %%
# Images of the fit.

plot_images({"mine": result})
