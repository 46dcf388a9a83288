"""
A fit and its best moment
=========================

A convolutional decoder is fitted to one noisy photograph. On its way to the noise it passes near
the clean image.
"""

from dipkernels import fit, images, networks, tasks
from dipkernels.plotting import plot_fits, plot_images

task = tasks.denoise(images.load("astronaut", size=32), noise_sigma=25 / 255)
prior = networks.create("conv-decoder", image_size=32, width=64)
result = fit(prior, task, iterations=600)

# %%
# PSNR to the clean image has a peak; PSNR to the measured one rises on.

plot_fits({"conv-decoder": result})

# %%
# The image at initialisation, at the peak and at the end.

plot_images({"conv-decoder": result})
