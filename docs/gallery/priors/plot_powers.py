"""
Power spectra of untrained networks and of photographs
======================================================

The power of samples by spatial frequency, compared with that of natural images, which falls
approximately as one over the frequency squared.
"""

from dipkernels import networks
from dipkernels.plotting import plot_spectra
from dipkernels.spectra import natural_spectrum, prior_spectrum

found = {}
for name in ("skip", "deep-decoder", "vit"):
    prior = networks.create(name, image_size=32, channels=1, output="none")
    found[name] = prior_spectrum(prior, 16, centre=False)

plot_spectra(found, reference=natural_spectrum(32))
