"""
A fit and its best iteration
============================

A convolutional decoder is fitted to a noisy photograph. It comes close to the clean image before
it reproduces the noise.
"""

from dipkernels import fit, images, networks, tasks
from dipkernels.plotting import plot_fits, plot_images

task = tasks.denoise(images.load("astronaut", size=32), noise_sigma=25 / 255)
prior = networks.create("conv-decoder", image_size=32, width=64)
result = fit(prior, task, iterations=600)

# %%
# PSNR to the clean image has a peak; PSNR to the measured image keeps rising.

plot_fits({"conv-decoder": result})

# %%
# The image at initialisation, at the peak and at the end.

plot_images({"conv-decoder": result})
