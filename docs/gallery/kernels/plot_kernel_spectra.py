"""
Kernel spectra per architecture
===============================

A network's tangent kernel says how fast each image is learned. Here are the kernels of four
architectures at initialisation: how strongly each spatial frequency is fitted, and the
eigenvalues by their index. ``dipkernels spectrum skip deep-decoder vit mixer`` draws such a figure.
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
