"""Compressed sensing: random combinations of all numbers of an image."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.memory import require_free
from dipkernels.base.origin import digest
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.operators import Operator

MATRICES = ("hartley", "gaussian")


class RandomSensing(Operator):
    """A number of random combinations of all numbers of an image.

    Parameters
    ----------
    image_shape : ``(channels, *spatial)``
        Of the image, n numbers.
    count : int
        Of measurements, from 1; at most n with ``"hartley"``.
    matrix : {"hartley", "gaussian"}
        ``"hartley"``: signs at random, an orthonormal Hartley transform of all n numbers in a row,
        and some of its rows at random, in O(n log n); rows are orthonormal. ``"gaussian"``:
        independent normal entries of variance 1/n, ``count * n`` numbers of memory.
    seed : int
        Of all that is random.

    Raises
    ------
    InvalidInputError
        If the count is out of range or the matrix unknown.
    MemoryLimitError
        If a matrix that is formed doesn't fit into memory.

    Notes
    -----
    Source: Candes, Romberg & Tao 2006; Do et al. 2012 for signs before a fast transform.

    Examples
    --------
    >>> RandomSensing((1, 8, 8), 16).measurement_shape
    (16,)
    """

    @checked
    def __init__(
        self, image_shape: Sequence[int], count: int, matrix: str = "hartley", seed: int = 0
    ) -> None:
        shape = tuple(image_shape)
        self.size = math.prod(shape)
        require_choice("matrix", matrix, MATRICES)
        if not count >= 1 or (matrix == "hartley" and count > self.size):
            raise InvalidInputError(
                f"of images of {self.size} numbers, from 1 to so many combinations are measured, "
                f"got {count}"
            )
        super().__init__(shape, (count,))
        self.matrix = matrix
        self.name = f"{count} random combinations ({matrix})"
        draws = generator("sensing", seed)
        if matrix == "gaussian":
            require_free(
                24 * count * self.size,
                f"a matrix of {count} by {self.size} normal numbers",
                "measure fewer, or take matrix='hartley', which isn't formed",
            )
            entries = torch.randn(count, self.size, generator=draws, dtype=torch.float64)
            self._rows = self._exact = entries / self.size**0.5
            return
        signs = torch.randint(2, (self.size,), generator=draws) * 2 - 1
        self._rows = self._exact = signs.double()
        self._index = torch.randperm(self.size, generator=draws)[:count].sort().values

    @property
    def identity(self) -> str:
        """Name it by its entries."""
        return f"{self.name} {digest(self._exact)}"

    def _forward(self, image: Tensor) -> Tensor:
        flat = image.flatten(-len(self.image_shape))
        rows = self._rows.to(flat.dtype)
        if self.matrix == "gaussian":
            found: Tensor = flat @ rows.T
            return found
        return _hartley(flat * rows).index_select(-1, self._index)

    def _adjoint(self, measurement: Tensor) -> Tensor:
        rows = self._rows.to(measurement.dtype)
        if self.matrix == "gaussian":
            found: Tensor = (measurement @ rows).unflatten(-1, self.image_shape)
            return found
        wide = measurement.new_zeros(*measurement.shape[:-1], self.size)
        wide = wide.index_copy(-1, self._index, measurement)
        image: Tensor = (_hartley(wide) * rows).unflatten(-1, self.image_shape)
        return image

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        self._exact = self._exact.to(device=device)
        self._rows = self._exact.to(dtype=self._rows.dtype if dtype is None else dtype)
        if self.matrix == "hartley":
            self._index = self._index.to(device)


# Orthonormal, symmetric, its own inverse.
def _hartley(x: Tensor) -> Tensor:
    modes: Tensor = torch.fft.fft(x, norm="ortho")
    return modes.real - modes.imag
