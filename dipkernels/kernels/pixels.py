"""Parts of a kernel: the rows and columns of some pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.linear import LinearOperator
from dipkernels.linalg.operator import SymmetricOperator

Pixels = Tensor | np.ndarray | Sequence[int] | slice
_BLOCK = 256 * 2**20  # bytes of whole images that a product with a part may take


@checked
def pixel_indices(pixels: Pixels, image_shape: tuple[int, ...]) -> Tensor:
    """Translate a choice of pixels to indices of the flattened image.

    Parameters
    ----------
    pixels : Tensor, ndarray, sequence of int or slice
        A mask of bool, ``(*spatial)`` for these pixels in all channels or ``(channels, *spatial)``;
        or integers, indices of the flattened image, of which none may be negative; or ``:``, all.
    image_shape : tuple of int
        ``(channels, *spatial)``.

    Returns
    -------
    Tensor of int64
        On the CPU, in the order given; that of the flattened image for a mask.

    Raises
    ------
    InvalidInputError
        If the mask is of another shape, the integers are out of range, or nothing is chosen.
    """
    n = int(np.prod(image_shape))
    if isinstance(pixels, slice):
        if pixels != slice(None):
            raise InvalidInputError(f"of slices only : is understood, got {pixels}: give indices")
        return torch.arange(n)
    chosen = torch.as_tensor(pixels).cpu()
    if chosen.dtype == torch.bool:
        if tuple(chosen.shape) not in (image_shape, image_shape[1:]):
            raise InvalidInputError(
                f"a mask of pixels must have shape {image_shape} or {image_shape[1:]}, got "
                f"{tuple(chosen.shape)}"
            )
        indices = chosen.expand(image_shape).flatten().nonzero()[:, 0]
    elif chosen.is_floating_point() or chosen.is_complex() or chosen.dim() != 1:
        raise InvalidInputError(
            f"pixels must be a mask of bool or a list of integers, got {chosen.dtype} of shape "
            f"{tuple(chosen.shape)}"
        )
    else:
        indices = chosen.long()
    if not len(indices):
        raise InvalidInputError("no pixel is chosen")
    if indices.min() < 0 or indices.max() >= n:
        raise InvalidInputError(
            f"indices of pixels must be in 0 to {n - 1}, got {int(indices.min())} to "
            f"{int(indices.max())}"
        )
    return indices


@checked
class KernelBlock(LinearOperator):
    """Rows and columns of a kernel: a rectangular matrix, of which only products are formed."""

    def __init__(self, kernel: SymmetricOperator, rows: Tensor, columns: Tensor) -> None:
        self.kernel = kernel
        self.rows, self.columns = rows.to(kernel.device), columns.to(kernel.device)
        self.shape = (len(rows), len(columns))
        self.dtype, self.device = kernel.dtype, kernel.device

    def adjoint(self) -> "KernelBlock":
        """Exchange rows and columns."""
        return KernelBlock(self.kernel, self.columns, self.rows)

    def embed(self, x: Float[Tensor, "c k"]) -> Float[Tensor, "n k"]:
        """Put values at the columns' pixels into whole flattened images, 0 elsewhere."""
        whole = x.new_zeros(self.kernel.shape[0], x.shape[1])
        return whole.index_add_(0, self.columns, x)  # a pixel may have been chosen twice

    def _matmat(self, block: Tensor) -> Tensor:
        chunk = max(1, _BLOCK // (self.kernel.shape[0] * block.element_size()))
        parts = block.split(chunk, dim=1)
        return torch.cat([(self.kernel @ self.embed(part))[self.rows] for part in parts], dim=1)

    def _rmatmat(self, block: Tensor) -> Tensor:
        return self.adjoint()._matmat(block)

    def __repr__(self) -> str:
        return f"KernelBlock({self.shape[0]}x{self.shape[1]} of {self.kernel!r})"
