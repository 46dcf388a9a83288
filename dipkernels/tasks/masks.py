"""Masks for inpainting: True where a pixel is known."""

import torch
from jaxtyping import Bool
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.seeds import generator


def bernoulli_mask(
    size: tuple[int, ...], *, known: float = 0.5, seed: int = 0
) -> Bool[Tensor, "..."]:
    """Draw a mask that keeps each pixel with a given probability, independently.

    Parameters
    ----------
    size : (height, width) or (length,)
        Of the image.
    known : float
        Probability of keeping a pixel, strictly between 0 and 1.
    seed : int
        Of the draw.

    Returns
    -------
    Tensor of bool, shape ``size``
        True where the pixel is known.

    Raises
    ------
    InvalidInputError
        If ``known`` isn't strictly between 0 and 1.
    """
    if not 0 < known < 1:
        raise InvalidInputError(f"the fraction of known pixels must be in (0, 1), got {known}")
    return torch.rand(size, generator=generator("mask", seed)) < known
