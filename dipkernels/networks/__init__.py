"""Networks as image priors: the built-in ones by name, and any torch module by `ImagePrior`."""

import dipkernels.networks.builders  # noqa: F401  # registers the built-in priors
from dipkernels.networks.prior import ImagePrior, Parameters
from dipkernels.networks.registry import Entry, Variant, create, entry, names

__all__ = ["Entry", "ImagePrior", "Parameters", "Variant", "create", "entry", "names"]
