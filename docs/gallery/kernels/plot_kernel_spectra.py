"""
Kernel spectra of four architectures
====================================

A network's tangent kernel determines how fast gradient descent fits each image. We compare four
architectures at initialisation: the response at each spatial frequency, and the eigenvalues against
their index. ``dipkernels spectrum skip deep-decoder vit mixer`` draws such a figure.
"""

import matplotlib.pyplot as plt

from dipkernels import NTK, networks
from dipkernels.plotting import plot_eigenvalues, plot_responses
from dipkernels.spectra import frequency_response

kernels = {}
for name in ("skip", "deep-decoder", "vit", "mixer"):
    prior = networks.create(name, image_size=32, channels=1)
    kernels[name] = NTK(prior, prior.init(seed=0))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
plot_responses({name: frequency_response(ntk) for name, ntk in kernels.items()}, ax=left)
plot_eigenvalues(
    {name: ntk.spectral_density(probes=2, steps=30) for name, ntk in kernels.items()}, ax=right
)
