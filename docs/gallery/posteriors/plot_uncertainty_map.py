"""
An SGLD uncertainty map that has converged
==========================================

Chains draw images from the posterior of a network's weights. A map of their standard deviation is
meaningful only if the chains agree, so the summary reports convergence first.
``dipkernels posterior`` does this at full size, with all diagnostics.
"""

from dipkernels import images, networks, sampling, tasks
from dipkernels.plotting import plot_uncertainty

task = tasks.denoise(images.load("camera", size=16), noise_sigma=25 / 255)
prior = networks.create("fourier-features", image_size=16, channels=1, width=16)
posterior = sampling.WeightPosterior(prior, task)
result = sampling.sample(posterior, iterations=4000, chains=2)
print(sampling.summary(result))

# %%
# Mean, standard deviation and error.

plot_uncertainty(task, sampling.uncertainty.maps(result, noise_sigma=result.noise_sigma))
