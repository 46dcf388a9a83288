"""
Contributions of layers to the kernel
=====================================

A tangent kernel is a sum over layers. Each layer has its own frequency response.
"""

from dipkernels import NTK, networks
from dipkernels.plotting import plot_layers
from dipkernels.spectra import frequency_response

prior = networks.create("deep-decoder", image_size=32, channels=1, width=32)
ntk = NTK(prior, prior.init(seed=0))

plot_layers({"deep-decoder": frequency_response(ntk.by_layer())})
