"""Networks as image priors: the built-in ones by name, and any torch module by `ImagePrior`."""

# Each family registers its priors, in this order.
from dipkernels.networks import skip, unet, resnet, generators, decoders  # isort: skip  # noqa: F401
from dipkernels.networks import vit, swin, mixer, self_attention, hybrids  # isort: skip  # noqa: F401
from dipkernels.networks import coordinates  # isort: skip  # noqa: F401
from dipkernels.networks.registry import Entry, Variant, create, entry, names
from dipkernels.priors.prior import ImagePrior, Parameters

__all__ = ["Entry", "ImagePrior", "Parameters", "Variant", "create", "entry", "names"]
