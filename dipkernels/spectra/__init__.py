"""Spectra: what kernels, priors and images have at each spatial frequency."""

from dipkernels.spectra.bands import (
    AmplitudeBands,
    BandFit,
    ComplexBands,
    band_edges,
    band_fit,
    frequency_bands,
)
from dipkernels.spectra.bins import bin_edges, radial_frequency
from dipkernels.spectra.comb import comb_response, comb_strength
from dipkernels.spectra.fall import RollOff, half_power_frequency, roll_off
from dipkernels.spectra.power import natural_spectrum, periodogram, prior_spectrum, radial_power
from dipkernels.spectra.response import anisotropy, frequency_response
from dipkernels.spectra.sparsities import sparsity

__all__ = [
    "AmplitudeBands",
    "BandFit",
    "ComplexBands",
    "RollOff",
    "anisotropy",
    "band_edges",
    "band_fit",
    "bin_edges",
    "comb_response",
    "comb_strength",
    "frequency_bands",
    "frequency_response",
    "half_power_frequency",
    "natural_spectrum",
    "periodogram",
    "prior_spectrum",
    "radial_frequency",
    "radial_power",
    "roll_off",
    "sparsity",
]
