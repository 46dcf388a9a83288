"""
A blurred photograph
====================

A measurement through a blur. The prediction from the kernel sees it through the same operator;
how much of the error the operator hides, and how much is yet to be learned, is told apart.
"""

from dipkernels import NTK, fit, images, networks, tasks
from dipkernels.plotting import plot_images
from dipkernels.theory import expand, learning_curve

clean = images.load("camera", size=32)
blur = tasks.Blur(clean.shape, tasks.gaussian_psf(1.0))
task = tasks.measure(blur, clean, noise_sigma=0.02)
prior = networks.create("deep-decoder", image_size=32, channels=1, width=32)
result = fit(prior, task, iterations=300)
curve = learning_curve(expand(NTK(prior, prior.init(seed=0)), task, steps=60))
print(f"blurred {float(task.psnr(task.measurement)):.1f} dB, fit {float(result.peak_psnr):.1f} dB")
print(f"the kernel at initialisation predicts {curve.peak_psnr:.1f} dB")

# %%
# Sharp, blurred, and fitted.

plot_images({"deep-decoder": result})
