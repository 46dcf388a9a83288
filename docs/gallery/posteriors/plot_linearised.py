"""
The posterior of a linearised network
=====================================

A network is linearised at a fit. The posterior of the linearised network is Gaussian, so it needs
no chain and no step size.
"""

from dipkernels import fit, images, networks, sampling, tasks
from dipkernels.plotting import plot_uncertainty

task = tasks.denoise(images.load("camera", size=16), noise_sigma=25 / 255)
prior = networks.create("deep-decoder", image_size=16, channels=1, width=16)
posterior = sampling.WeightPosterior(prior, task)
parameters = {}


def keep(iteration, image, now):
    parameters.update({key: value.clone() for key, value in now.items()})


fit(prior, task, iterations=300, callback=keep)
result = sampling.linearised(posterior, parameters, draws=32)

# %%
# Its uncertainty map.

plot_uncertainty(task, sampling.uncertainty.maps(result, noise_sigma=task.noise_sigma))
