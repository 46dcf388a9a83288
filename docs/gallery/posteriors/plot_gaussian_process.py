"""
A Gaussian process fills in missing pixels
==========================================

The scales of the process are fitted by the evidence of the measurement.
"""

from dipkernels import gp, images, tasks
from dipkernels.plotting import plot_posteriors

clean = images.load("camera", size=32)
task = tasks.inpaint(clean, tasks.bernoulli_mask((32, 32)), noise_sigma=0.02)
found = gp.fit_hyperparameters(task, gp.matern(2.0))
posterior = found.process.posterior(task, noise_sigma=found.noise_sigma)
print(f"{float(task.psnr(posterior.mean.float())):.1f} dB on the hidden pixels")

# %%
# Mean and standard deviation.

plot_posteriors(task, {"Matern": posterior.dataset(draws=16)})
