"""Figures of results. Every function returns a matplotlib Figure and needs no display."""

from dipkernels.plotting.audit import plot_audit
from dipkernels.plotting.curves import (
    plot_descent,
    plot_fits,
    plot_predicted_against_measured,
    plot_predictions,
)
from dipkernels.plotting.fingerprint import plot_fingerprint
from dipkernels.plotting.images import plot_eigenvectors, plot_images
from dipkernels.plotting.initialisation import plot_covariance, plot_scores
from dipkernels.plotting.posterior import (
    plot_calibration,
    plot_chains,
    plot_posteriors,
    plot_uncertainty,
)
from dipkernels.plotting.spectra import (
    plot_bands,
    plot_densities,
    plot_eigenvalues,
    plot_layers,
    plot_responses,
    plot_spectra,
)
from dipkernels.plotting.stopping import plot_stopping
from dipkernels.plotting.style import save_figure

__all__ = [
    "plot_audit",
    "plot_bands",
    "plot_calibration",
    "plot_chains",
    "plot_covariance",
    "plot_densities",
    "plot_descent",
    "plot_eigenvalues",
    "plot_eigenvectors",
    "plot_fingerprint",
    "plot_fits",
    "plot_images",
    "plot_layers",
    "plot_posteriors",
    "plot_predicted_against_measured",
    "plot_predictions",
    "plot_responses",
    "plot_scores",
    "plot_spectra",
    "plot_stopping",
    "plot_uncertainty",
    "save_figure",
]
