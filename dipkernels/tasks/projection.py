"""Radon transform: what parallel beams add up of an image, at several angles."""

import copy
import math
import warnings
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count
from dipkernels.base.memory import require_free
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.operators import Shape
from dipkernels.tasks.wrapped import Wrapped

ENTRY = 200  # bytes a pixel and angle, while both matrices are made


class Radon(Wrapped):
    """Integrals of each channel over parallel strips, a pixel wide, at several angles.

    Parameters
    ----------
    image_shape : (channels, height, width)
        Of the image.
    angles : int or sequence of float
        How many, evenly spaced in [0, 180) degrees; or the angles in degrees. At 0 the columns are
        summed, at 90 the rows; the detector's coordinate is ``x cos + y sin`` from the image's
        centre, x to the right and y downwards.
    detectors : int, optional
        Bins of the detector, a pixel wide, centred; by default as many as see all of the image.

    Raises
    ------
    InvalidInputError
        If the image isn't 2D, or there is no angle.
    MemoryLimitError
        If its matrix doesn't fit into memory.

    Notes
    -----
    A measurement has shape ``(channels, angles, detectors)``. It is exact for an image that is
    constant on each pixel: an entry is the mean over its strip of the line integrals, and lengths
    are in units of the longer side, so that it is at most the diagonal times white. Held as a
    sparse matrix of about 2.3 numbers a pixel and angle, and its transpose: 220 MB at 256x256 with
    60 angles in float64. The adjoint is the transpose itself.

    Examples
    --------
    >>> operator = Radon((1, 8, 8), angles=4)
    >>> operator.measurement_shape
    (1, 4, 12)
    >>> seen = operator.forward(torch.ones(1, 8, 8))
    >>> seen.sum(dim=-1).round() / 8  # the area, whatever the angle
    tensor([[1., 1., 1., 1.]])
    """

    grid = False

    @checked
    def __init__(
        self,
        image_shape: Sequence[int],
        angles: int | Sequence[float],
        detectors: Count | None = None,
    ) -> None:
        shape = tuple(image_shape)
        if len(shape) != 3:
            raise InvalidInputError(f"a Radon transform is of images (c, h, w), got shape {shape}")
        if isinstance(angles, int):
            if angles < 1:
                raise InvalidInputError(f"a Radon transform needs at least 1 angle, got {angles}")
            _require_room(shape, angles)
            angles = [180 * i / angles for i in range(angles)]
        self.angles = np.asarray(angles, dtype=np.float64)
        if not self.angles.size or not np.isfinite(self.angles).all():
            raise InvalidInputError(
                f"angles must be a number of them, or finite numbers of degrees, got {angles!r}"
            )
        _require_room(shape, len(self.angles))
        diagonal = math.hypot(*shape[1:])
        least = math.ceil(diagonal)
        least += (least - shape[2]) % 2  # edges of bins are edges of columns
        self.detectors = least if detectors is None else detectors
        super().__init__(shape, (shape[0], len(self.angles), self.detectors))
        self.name = f"Radon transform at {len(self.angles)} angles"
        self._exact = strip_matrix(shape[1:], self.angles, self.detectors)
        self._device = torch.device("cpu")
        self._made: dict[torch.dtype, tuple[Tensor, Tensor]] = {}

    @property
    def identity(self) -> str:
        """Name it by its angles."""
        return f"{self.name} {self.detectors} {self.angles.tolist()}"

    def __deepcopy__(self, memo: object) -> "Radon":  # nothing in it is ever changed
        return copy.copy(self)

    def _project(self, images: Tensor) -> Tensor:
        """Project."""
        return self._times(0, images, self.measurement_shape)

    def _back_project(self, measured: Tensor) -> Tensor:
        """Back-project."""
        return self._times(1, measured, self.image_shape)

    def _times(self, which: int, rows: Tensor, after: Shape) -> Tensor:
        matrix = self._matrices(rows.dtype)[which]
        flat = rows.reshape(len(rows) * rows.shape[1], -1)
        return (matrix @ flat.T).T.reshape(len(rows), *after)

    def _matrices(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        if dtype not in self._made:
            both = (self._exact, self._exact.T.tocsr())
            first, second = (_sparse(m, dtype, self._device) for m in both)
            self._made = {dtype: (first, second)}
        return self._made[dtype]

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        if device is not None and torch.device(device) != self._device:
            self._device, self._made = torch.device(device), {}


def _require_room(shape: Shape, angles: int) -> None:
    require_free(
        ENTRY * math.prod(shape[1:]) * angles,
        f"the matrix of a Radon transform of {shape[1]}x{shape[2]} pixels at {angles} angles",
        "take fewer angles or a smaller image",
    )


def strip_matrix(size: Shape, angles: np.ndarray, detectors: int) -> scipy.sparse.csr_matrix:
    """Mean line integrals over strips: areas of each pixel in each strip, over their width."""
    height, width = size
    unit = 1 / max(size)  # a pixel, in units of the longer side
    y, x = np.mgrid[:height, :width].reshape(2, -1)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    rows, columns, values = [], [], []
    pixels = np.arange(height * width)
    for number, angle in enumerate(np.deg2rad(angles)):
        # exact at multiples of 90 degrees, where a sine of 1e-17 would make a footprint
        cosine, sine = (0.0 if abs(v) < 1e-15 else v for v in (np.cos(angle), np.sin(angle)))
        middle = x * cosine + y * sine + detectors / 2
        outer = (abs(cosine) + abs(sine)) / 2
        inner = abs(abs(cosine) - abs(sine)) / 2
        first = np.floor(middle - outer + 1e-12).astype(int)
        below = _shadow(first - middle, inner, outer)
        for step in range(3):  # a footprint is at most sqrt(2) wide
            above = _shadow(first + step + 1 - middle, inner, outer)
            share, bins = above - below, first + step
            seen = (share > 1e-14) & (bins >= 0) & (bins < detectors)
            rows.append(number * detectors + bins[seen])
            columns.append(pixels[seen])
            values.append(unit * share[seen])
            below = above
    where = (np.concatenate(rows), np.concatenate(columns))
    count = len(angles) * detectors
    return scipy.sparse.csr_matrix((np.concatenate(values), where), (count, height * width))


# Share of a unit pixel's shadow, a trapezoid, that lies left of a point.
def _shadow(at: np.ndarray, inner: float, outer: float) -> np.ndarray:
    at = np.clip(at, -outer, outer)
    peak = 1 / (inner + outer)
    ramp = outer - inner
    found = np.where(at > -inner, 0.5 + peak * at, 0.0)
    if ramp > 0:
        rising = peak * np.square(at + outer) / (2 * ramp)
        falling = 1 - peak * np.square(outer - at) / (2 * ramp)
        found = np.where(at <= -inner, rising, np.where(at >= inner, falling, found))
    return np.asarray(found)


def _sparse(matrix: scipy.sparse.csr_matrix, dtype: torch.dtype, device: torch.device) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its sparse rows are young
        rows, columns = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices))
        values = torch.from_numpy(matrix.data).to(dtype)
        size = [int(side) for side in matrix.shape]
        return torch.sparse_csr_tensor(rows, columns, values, size).to(device)
