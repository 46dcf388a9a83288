"""
Missing pixels
==============

Half of the pixels are hidden. They are not used in the fit, and the score is
computed on them alone.
"""

from dipkernels import fit, images, networks, tasks
from dipkernels.plotting import plot_images

clean = images.load("coffee", size=32)
task = tasks.inpaint(clean, tasks.bernoulli_mask((32, 32), known=0.5), noise_sigma=0.0)
prior = networks.create("skip", image_size=32, width=16, scales=3)
result = fit(prior, task, iterations=200)
print(f"{float(result.peak_psnr):.1f} dB on the hidden pixels")

# %%
# The measured image, and the image filled in.

plot_images({"skip": result})
