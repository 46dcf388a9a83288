"""Spectra: what a kernel does to each spatial frequency, and how its eigenvalues are spread."""

from dipkernels.spectra.density import spectral_density
from dipkernels.spectra.rank import effective_rank
from dipkernels.spectra.response import frequency_response, half_power_frequency, ring_edges

__all__ = [
    "effective_rank",
    "frequency_response",
    "half_power_frequency",
    "ring_edges",
    "spectral_density",
]
