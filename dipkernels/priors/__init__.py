"""What a prior is: a network as a pure function of its parameters, its draws and its derivative."""

from dipkernels.priors.draws import draw_images
from dipkernels.priors.linearised import LinearisedPrior
from dipkernels.priors.prior import ImagePrior, Parameters

__all__ = ["ImagePrior", "LinearisedPrior", "Parameters", "draw_images"]
