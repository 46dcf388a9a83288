"""Errors of images, split by eigenvectors of a kernel and by rings of frequencies."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.spectra.bins import bin_edges, bin_masks, radial_frequency

REST = "rest"


class Parts:
    """Splits the mean square of an image in two ways, each of which sums to the whole.

    The vectors are orthonormal, the leading eigenvectors; the constant image is a ring of its own.
    """

    def __init__(
        self, vectors: Float[Tensor, "n k"], image_shape: tuple[int, ...], rings: int
    ) -> None:
        if vectors.shape[0] != np.prod(image_shape):
            raise InvalidInputError(
                f"vectors of {vectors.shape[0]} numbers don't fit images {image_shape}"
            )
        self._vectors = vectors.double()
        # "1", "2", ... and "rest"; the mean radius of each ring, in cycles per pixel
        self.modes = [*(str(i + 1) for i in range(vectors.shape[1])), REST]
        self._shape, size = image_shape, image_shape[1:]
        radius, masks = radial_frequency(size), bin_masks(size, bin_edges(size, rings))
        self._rings = torch.from_numpy(np.stack(masks)).to(vectors.device, torch.float64)
        self.frequency = np.array([radius[mask].mean() for mask in masks])

    def by_mode(self, images: Float[Tensor, "t n"]) -> Float[Tensor, "t modes"]:
        """Split by eigenvectors, and last what is left: ``(u_i^T e)^2 / n``."""
        images = images.double()
        along = images @ self._vectors
        rest = images - along @ self._vectors.T
        squares = torch.cat([along.square(), rest.square().sum(dim=1, keepdim=True)], dim=1)
        return squares / images.shape[1]

    def by_ring(self, images: Float[Tensor, "t n"]) -> Float[Tensor, "t rings"]:
        """Split by frequencies, over all channels: the energy of a ring's Fourier modes over n."""
        axes = tuple(range(2, 1 + len(self._shape)))
        spectrum = torch.fft.fftn(images.double().reshape(-1, *self._shape), dim=axes, norm="ortho")
        power = spectrum.abs().square().sum(dim=1).flatten(1)
        shares: Tensor = power @ self._rings.flatten(1).T / images.shape[1]
        return shares
