"""How much of an image's frequency bands an output has: as published, and against the truth."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import AXES
from dipkernels.images.metrics import grey
from dipkernels.spectra.bins import corner, radial_frequency

BANDS = 5
NYQUIST = 0.5
_SLACK = 1e-9  # so that a frequency on an edge isn't moved by rounding

Images = Float[Tensor, "images channels *spatial"]


@checked(nan=True)
@dataclass(frozen=True)
class BandFit:
    """An output's bands held against those of a reference.

    Attributes
    ----------
    gain : Tensor, shape (images, bands)
        ``Re sum F conj(R) / sum |R|^2``: how much of the reference is there. 1 if all of it is,
        whatever else there is; 0 if nothing is; below 0 where it's there with the wrong sign.
    error : Tensor, shape (images, bands)
        ``sum |F - R|^2 / sum |R|^2``: 0 if the output is the reference, 1 for a constant one.
        ``error - (1 - gain)^2`` is what was added to the reference, relative to its power.
    """

    gain: Tensor
    error: Tensor


@checked
class _Bands:
    """What both kinds know of their reference."""

    _corners: bool

    def __init__(self, reference: Images) -> None:
        self._dims, self._shape = reference.dim() - 2, reference.shape
        size = tuple(reference.shape[2:])
        self._weights = _membership(size, corners=self._corners).to(reference)

    def _transform(self, images: Images) -> Tensor:
        transform: Tensor = torch.fft.fftn(images, dim=tuple(range(-self._dims, 0)))
        return transform


@checked
class AmplitudeBands(_Bands):
    """Frequency-band correspondence with a fixed reference, as published.

    Ratios of amplitudes ``|F(k)| / |R(k)|`` of grey images, clipped to [0, 1], averaged over five
    rings that are each 1/10 cycle per pixel wide. The constant belongs to the first; the corners,
    above 1/2 cycle per pixel, to none.

    Parameters
    ----------
    reference : Tensor, shape ``(1, channels, *spatial)`` or ``(images, channels, *spatial)``
        One for all images, or one for each; float32 or float64, as the images. Published: the
        measured image, noise and all. Every band must have a frequency.

    Notes
    -----
    What it can't tell: amplitudes have no phases, so that noise of the right strength counts as the
    image; the reference is noisy, so that high bands near 1 mean fitted noise; the clipping hides
    what is too strong, and gives unrelated noise of equal power ``pi / 4 = 0.79``, not 0.
    Source: Shi, Mettes, Maji & Snoek, IJCV 2022, and their code for what is grey.
    """

    _corners = False

    def __init__(self, reference: Images) -> None:
        super().__init__(reference)
        self._amplitude = self._transform(grey(reference)).abs()

    def __call__(self, images: Images) -> Float[Tensor, "images bands"]:
        """Compute the correspondence of images, in [0, 1]; NaN where one or its reference is."""
        _require_fit(images.shape, self._shape)
        amplitude = self._transform(grey(images)).abs()
        nothing = self._is_rounding(amplitude) & self._is_rounding(self._amplitude)
        # Nothing of nothing is missing.
        clipped = (amplitude / self._amplitude).masked_fill(nothing, 1).clamp(max=1)
        return clipped.flatten(1) @ self._weights.T

    # 0, or what a transform leaves of it: the ratio of two such amplitudes says nothing.
    def _is_rounding(self, amplitude: Tensor) -> Tensor:
        dims = tuple(range(1, amplitude.dim()))
        norm: Tensor = torch.linalg.vector_norm(amplitude, dim=dims, keepdim=True)
        return amplitude <= torch.finfo(amplitude.dtype).eps * norm


@checked
class ComplexBands(_Bands):
    """Frequency bands of an output against those of a clean image, phases and corners included.

    Five rings, each 1/10 cycle per pixel wide, of which the last one reaches to the corner; over
    all channels. The constant is left out: it would outweigh all else in its band.

    Parameters
    ----------
    reference : Tensor, shape ``(1, channels, *spatial)`` or ``(images, channels, *spatial)``
        One for all images, or one for each; float32 or float64, as the images.

    Notes
    -----
    What it can't tell: where in the image something is missing; and the strongest frequencies of a
    band decide, which in photographs are its lowest and those of the long edges.
    """

    _corners = True

    def __init__(self, reference: Images) -> None:
        super().__init__(reference)
        self._reference = self._transform(reference)
        self._power = self._sums(self._reference.abs().square())

    def __call__(self, images: Images) -> BandFit:
        """Compare images with the reference; NaN or infinite in a band that it doesn't have."""
        _require_fit(images.shape, self._shape)
        transform = self._transform(images)
        common = self._sums((transform * self._reference.conj()).real)
        difference = self._sums((transform - self._reference).abs().square())
        return BandFit(common / self._power, difference / self._power)

    # Over the channels and the frequencies of each band.
    def _sums(self, values: Tensor) -> Tensor:
        return values.sum(dim=1).flatten(1) @ self._weights.T


@checked
def frequency_bands(
    images: Images, reference: Float[Tensor, "*reference"]
) -> Float[Tensor, "images bands"]:
    """Compute the published frequency-band correspondence of images.

    Parameters
    ----------
    images : Tensor, shape ``(images, channels, *spatial)``
        Signals or images, non-square ones too. Any real type.
    reference : Tensor, shape ``(channels, *spatial)`` or ``(images, channels, *spatial)``
        The image that is fitted.

    Returns
    -------
    Tensor, shape (images, 5)
        In [0, 1], the lowest frequencies first; see `AmplitudeBands` for what it can't tell.

    Raises
    ------
    InvalidInputError
        If the shapes don't fit, or the images are too small.
    """
    images, whole = _batched(images, reference)
    return AmplitudeBands(whole)(images)


@checked
def band_fit(images: Images, reference: Float[Tensor, "*reference"]) -> BandFit:
    """Compare frequency bands of images with those of a clean one.

    Parameters
    ----------
    images : Tensor, shape ``(images, channels, *spatial)``
        Signals or images.
    reference : Tensor, shape ``(channels, *spatial)`` or ``(images, channels, *spatial)``
        The clean image.

    Returns
    -------
    BandFit
        See there and at `ComplexBands`.

    Raises
    ------
    InvalidInputError
        If the shapes don't fit, or the images are too small.
    """
    images, whole = _batched(images, reference)
    return ComplexBands(whole)(images)


@checked
def band_edges(*, dims: int, corners: bool) -> np.ndarray:
    """Bound the bands.

    Parameters
    ----------
    dims : int
        1, 2 or 3.
    corners : bool
        Whether the last reaches to the corner.

    Returns
    -------
    ndarray, shape (6,)
        Cycles per pixel, ascending; an upper edge belongs to the band below it.

    Raises
    ------
    InvalidInputError
        If images have other dimensions.
    """
    if dims not in AXES:
        raise InvalidInputError(f"bands are of images of 1, 2 or 3 dimensions, got dims {dims}")
    edges = NYQUIST * np.arange(BANDS + 1) / BANDS
    if corners:
        edges[-1] = corner((1,) * dims)
    return edges


def _membership(size: tuple[int, ...], *, corners: bool) -> Tensor:
    # Rows are bands: 1 over their number of frequencies for means; 1 without the constant for sums.
    radius = radial_frequency(size).ravel()
    edges = band_edges(dims=len(size), corners=corners)
    which = np.digitize(radius - _SLACK, edges[1:], right=True)
    rows = np.array([which == band for band in range(BANDS)], dtype=float)
    if corners:
        rows[:, radius == 0] = 0
    if not rows.any(axis=1).all():
        raise InvalidInputError(
            f"images of size {size} have no frequency in some of the {BANDS} bands: at least about "
            "10 pixels along one axis are needed"
        )
    return torch.from_numpy(rows if corners else rows / rows.sum(axis=1, keepdims=True))


# One dtype that FFTs take, and a reference with an axis for images.
def _batched(images: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    whole = reference[None] if reference.dim() == images.dim() - 1 else reference
    _require_fit(images.shape, whole.shape)
    common = torch.promote_types(torch.promote_types(images.dtype, whole.dtype), torch.float32)
    return images.to(common), whole.to(common)


def _require_fit(images: torch.Size, reference: torch.Size) -> None:
    fits = len(images) - 2 in AXES and images[1:] == reference[1:] and len(images) == len(reference)
    if not fits or not images.numel() or reference[0] not in (1, images[0]):
        raise InvalidInputError(
            f"images {tuple(images)} and reference {tuple(reference)} don't fit: "
            "expected (images, channels, *spatial), and one image or as many"
        )
