"""Blur: convolution with a point-spread function, at a stated boundary."""

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
from jaxtyping import Float
from scipy.fft import next_fast_len
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.memory import require_free
from dipkernels.base.origin import digest
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.operators import Operator

BOUNDARIES = ("reflect", "replicate", "periodic", "zero", "valid")
TAIL = 4.0  # deviations, at which a Gaussian is cut


@checked
def gaussian_psf(sigma: Any, *, axes: int = 2) -> Float[Tensor, "*size"]:
    """Sample a Gaussian point-spread function at the centres of pixels.

    Parameters
    ----------
    sigma : float or sequence of float
        Standard deviation in pixels, positive, of all axes or of each.
    axes : int
        How many, where one sigma is given: 2 of an image, 1 of a signal.

    Returns
    -------
    Tensor of float64
        Sides are odd, up to 4 deviations to each side; the sum is 1.

    Raises
    ------
    InvalidInputError
        If a deviation isn't positive and finite.
    MemoryLimitError
        If it is so large that its table doesn't fit into memory.

    Examples
    --------
    >>> gaussian_psf(1.0).shape
    torch.Size([9, 9])
    """
    sigmas: list[float] = [sigma] * axes if isinstance(sigma, Real) else list(sigma)  # type: ignore[list-item]
    if not sigmas or not all(0 < s < math.inf for s in sigmas):
        raise InvalidInputError(
            f"the deviation of a blur must be positive and finite, in pixels, got {sigma}"
        )
    reaches = [max(1, math.ceil(TAIL * s)) for s in sigmas]
    require_free(
        24 * math.prod(2 * reach + 1 for reach in reaches),
        f"a Gaussian blur of deviation {sigma} pixels",
        "take a smaller one",
    )
    found = torch.ones((), dtype=torch.float64)
    for s, reach in zip(sigmas, reaches, strict=True):
        distance = torch.arange(-reach, reach + 1, dtype=torch.float64) / s
        found = found[..., None] * torch.exp(-distance.square() / 2)
    return found / found.sum()


class Blur(Operator):
    """Convolution with a point-spread function, in each channel.

    Parameters
    ----------
    image_shape : ``(channels, *spatial)``
        Of the sharp image.
    psf : Tensor, shape ``spatial'`` or ``(channels, *spatial')``
        The image of a point, as it is: its sum is what the brightness is multiplied by. Its middle
        is at index ``side // 2`` of each axis. See `gaussian_psf`.
    boundary : {"reflect", "replicate", "periodic", "zero", "valid"}
        What lies beyond the image: its mirror image about the outermost pixels, which aren't
        repeated; the outermost pixel; the image again; nothing; or, with ``"valid"``, nobody knows:
        measured is only what needs no pixel beyond, ``side - side' + 1`` of each axis.

    Raises
    ------
    InvalidInputError
        If shapes don't fit, the boundary is unknown, or a number isn't finite.

    Notes
    -----
    By FFTs, in O(n log n) whatever the size of the point-spread function; the adjoint is exact.

    Examples
    --------
    >>> operator = Blur((1, 4, 6), torch.full((1, 3), 1 / 3), boundary="zero")
    >>> operator.forward(torch.ones(1, 4, 6))[0, 0]
    tensor([0.6667, 1.0000, 1.0000, 1.0000, 1.0000, 0.6667])
    """

    @checked
    def __init__(self, image_shape: Sequence[int], psf: Tensor, boundary: str = "reflect") -> None:
        shape, dims = tuple(image_shape), len(image_shape) - 1
        require_choice("boundary", boundary, BOUNDARIES)
        if psf.dim() not in (dims, dims + 1) or (psf.dim() > dims and len(psf) != shape[0]):
            raise InvalidInputError(
                f"a point-spread function of shape {tuple(psf.shape)} doesn't fit images of shape "
                f"{shape}: it has an image's axes, and perhaps its channels"
            )
        if not psf.is_floating_point() or not psf.numel() or not bool(psf.isfinite().all()):
            raise InvalidInputError("a point-spread function must be finite and floating point")
        self.sides = tuple(psf.shape[-dims:])
        for n, k in zip(shape[1:], self.sides, strict=True):
            needed = {"reflect": k // 2 + 1, "valid": k}.get(boundary, 0)
            if needed > n:
                raise InvalidInputError(
                    f"a point-spread function of {k} pixels is too large for a side of {n} with "
                    f"boundary '{boundary}': crop it, or take 'replicate', 'periodic' or 'zero'"
                )
        margin = [k - 1 if boundary == "valid" else 0 for k in self.sides]
        measured = (shape[0], *(n - m for n, m in zip(shape[1:], margin, strict=True)))
        super().__init__(shape, measured)
        self.boundary, self.psf = boundary, psf.detach().double()
        self.name = f"blur ({'x'.join(map(str, self.sides))}, boundary {boundary})"
        self._axes = tuple(range(-dims, 0))
        self._before, self._after = [], []  # pixels beyond the image that a convolution needs
        for k in self.sides:
            inside = boundary in ("periodic", "valid")
            self._before.append(0 if inside else k - 1 - k // 2)
            self._after.append(0 if inside else k // 2)
        padded = [n + a + b for n, a, b in zip(shape[1:], self._before, self._after, strict=True)]
        periodic = boundary == "periodic"
        self._torus = [n if periodic else next_fast_len(n, real=True) for n in padded]
        self._padded = padded
        self._transfer = self._exact = torch.fft.rfftn(self._on_torus(), dim=self._axes)

    @property
    def identity(self) -> str:
        """Name it by its point-spread function."""
        return f"{self.name} {digest(self.psf)}"

    # The point-spread function on the torus; a periodic one is centred, and wraps around.
    def _on_torus(self) -> Tensor:
        table = self.psf
        for axis, (k, n) in enumerate(zip(self.sides, self._torus, strict=True)):
            dim = axis - len(self.sides)
            shift = k // 2 if self.boundary == "periodic" else 0
            index = (torch.arange(k, device=table.device) - shift) % n
            size = [*table.shape]
            size[dim] = n
            table = table.new_zeros(size).index_add(dim, index, table)
        return table

    def _forward(self, image: Tensor) -> Tensor:
        wide = self._convolved(self._extended(image), self._transfer)
        inside: Any = (..., *(slice(s, s + n) for s, n in self._kept()))
        return wide[inside]

    def _adjoint(self, measurement: Tensor) -> Tensor:
        around = [
            (start, size - start - n)
            for (start, n), size in zip(self._kept(), self._padded, strict=True)
        ]
        pads = [pad for pair in reversed(around) for pad in pair]
        wide = torch.nn.functional.pad(measurement, pads)
        return self._folded(self._convolved(wide, self._transfer.conj()))

    # Which of the padded image's numbers are the measurement: those that nothing wrapped into.
    def _kept(self) -> list[tuple[int, int]]:
        starts = [0 if self.boundary == "periodic" else k - 1 for k in self.sides]
        return list(zip(starts, self.measurement_shape[1:], strict=True))

    def _convolved(self, wide: Tensor, transfer: Tensor) -> Tensor:
        modes = torch.fft.rfftn(wide, s=self._torus, dim=self._axes)
        modes = modes * transfer.to(modes.dtype)
        found = torch.fft.irfftn(modes, s=self._torus, dim=self._axes)
        inside: Any = (..., *(slice(n) for n in self._padded))
        kept: Tensor = found[inside]
        return kept

    def _extended(self, image: Tensor) -> Tensor:
        for axis, (dim, n) in enumerate(zip(self._axes, self.image_shape[1:], strict=True)):
            before, after = self._before[axis], self._after[axis]
            if self.boundary == "zero":
                dims = [0, 0] * (-dim - 1)
                image = torch.nn.functional.pad(image, [*dims, before, after])
            elif before or after:
                index = self._source(n, before, after).to(image.device)
                image = image.index_select(dim, index)
        return image

    # The transpose of `_extended`.
    def _folded(self, wide: Tensor) -> Tensor:
        for axis, (dim, n) in enumerate(zip(self._axes, self.image_shape[1:], strict=True)):
            before, after = self._before[axis], self._after[axis]
            middle = wide.narrow(dim, before, n)
            if self.boundary != "zero" and (before or after):
                index = self._source(n, before, after).to(wide.device)
                ends = torch.cat(
                    [wide.narrow(dim, 0, before), wide.narrow(dim, before + n, after)], dim=dim
                )
                where = torch.cat([index[:before], index[before + n :]])
                middle = middle.index_add(dim, where, ends)
            wide = middle
        return wide

    # Which pixel of a side each of its extension is.
    def _source(self, n: int, before: int, after: int) -> Tensor:
        index = torch.arange(-before, n + after)
        if self.boundary == "replicate":
            return index.clamp(0, n - 1)
        index = index.abs()
        return torch.where(index < n, index, 2 * (n - 1) - index)

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        self._exact = self._exact.to(device=device)
        wanted = self._transfer.dtype if dtype is None else dtype.to_complex()
        self._transfer = self._exact.to(dtype=wanted)


def as_psf(image: Tensor) -> Float[Tensor, "*size"]:
    """Take an image of a point, of any brightness, for a point-spread function of sum 1."""
    psf = image.double().mean(dim=0) if image.dim() > 2 else image.double()
    if not bool((psf >= 0).all()) or not float(psf.sum()) > 0:
        raise InvalidInputError(
            "the image of a point can't be negative, NaN, nor all black: it's what a point looks "
            "like"
        )
    return psf / psf.sum()
