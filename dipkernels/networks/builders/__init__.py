"""Builders of the registered priors, by family; importing this package registers them."""

from dipkernels.networks.builders import convolutional, decoders, transformers

__all__ = ["convolutional", "decoders", "transformers"]
