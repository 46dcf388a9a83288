"""
Low frequencies are fitted first
================================

The fraction of each frequency band that a fit has learned, at every iteration.
"""

from dipkernels import fit, images, networks, tasks
from dipkernels.plotting import plot_bands

task = tasks.denoise(images.load("camera", size=32), noise_sigma=25 / 255)
prior = networks.create("conv-decoder", image_size=32, channels=1, width=32)
result = fit(prior, task, iterations=150, monitors=["frequency-bands", "clean-bands"])

# %%
# Frequency bands from low to high.

plot_bands(result)
