"""Networks as image priors: the built-in ones by name, and any torch module by `ImagePrior`."""

import dipkernels.networks.builders  # noqa: F401  # registers the built-in priors
from dipkernels.networks.registry import Entry, Variant, create, entry, names
from dipkernels.priors.prior import ImagePrior, Parameters

__all__ = ["Entry", "ImagePrior", "Parameters", "Variant", "create", "entry", "names"]
