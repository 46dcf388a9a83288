"""
A blurred photograph
====================

A network is fitted to a blurred photograph. The kernel prediction uses the same blur operator.
``dipkernels.theory.unseen_error`` separates the predicted error into the part that the operator
hides and the part that is yet to be learned.
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
# Clean, blurred, and fitted.

plot_images({"deep-decoder": result})
