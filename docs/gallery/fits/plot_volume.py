"""
A volume
========

Images have one, two or three dimensions. Here half of the voxels of a ball are hidden.
"""

import torch

from dipkernels import fit, networks, tasks
from dipkernels.plotting import plot_images

z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, n) for n in (8, 16, 16)), indexing="ij")
volume = (0.2 + 0.6 * (z**2 + y**2 + x**2 < 0.5))[None].float()
task = tasks.inpaint(volume, tasks.bernoulli_mask((8, 16, 16)), noise_sigma=0.05)
prior = networks.create("deep-decoder", image_size=(8, 16, 16), channels=1, width=16)
result = fit(prior, task, iterations=100)

# %%
# Three slices through the middle.

plot_images({"deep-decoder": result})
