"""Radial power spectra of images, of what a prior makes, and of photographs to compare with."""

from collections.abc import Sequence

import numpy as np
import scipy.signal
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels import images as image_files
from dipkernels.base.checks import checked, require_choice
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.statistics import standard_error
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import AXES, SHAPES
from dipkernels.images.sizes import Size
from dipkernels.priors.draws import FIXED, Codes, draw_images
from dipkernels.priors.evaluation import require_finite_images
from dipkernels.priors.prior import ImagePrior, describe_prior
from dipkernels.spectra.bins import Edges, bin_masks, mean_radii, mode_counts

WINDOWS = ("none", "hann")
# Scenes among the bundled images; the others are textures, drawings, text, or mostly black.
PHOTOGRAPHS = ("astronaut", "camera", "chelsea", "coffee", "rocket")


@checked
def periodogram(
    images: Float[Tensor, "images channels *spatial"], *, window: str = "none", centre: bool = True
) -> Float[Tensor, "images channels *spatial"]:
    """Power of images at every frequency.

    ``P(k) = |sum_p w(p) (x(p) - m) exp(-2 pi i k p)|^2 / sum_p w(p)^2`` with a window w and
    ``m = sum_p w(p) x(p) / sum_p w(p)``.

    Parameters
    ----------
    images : Tensor, shape ``(images, channels, *spatial)``
        Signals or images, of any real type.
    window : {"none", "hann"}
        Hann's, periodic, along each axis: it removes the cross that the jump between opposite
        borders adds, which falls as ``f ** -2``, and blurs the spectrum over two frequencies.
    centre : bool
        Whether each channel's mean m is removed; then ``P(0) = 0``.

    Returns
    -------
    Tensor, of the shape of images, float64
        In FFT order, squared units of the image. Without a window the mean over all frequencies is
        the mean over all pixels of ``(x - m)^2``. White noise has its variance at every frequency.

    Raises
    ------
    InvalidInputError
        If the images aren't real, and of 1, 2 or 3 dimensions with an axis for images and channels,
        or there is no such window.
    """
    require_images(images)
    require_choice("window", window, WINDOWS)
    if images.is_complex():
        raise InvalidInputError(f"expected real images, got {images.dtype}")
    values, axes = images.detach().double(), tuple(range(2, images.dim()))
    weights = torch.ones(images.shape[2:], dtype=torch.float64, device=images.device)
    if window == "hann":
        for axis, n in enumerate(images.shape[2:]):
            line = torch.from_numpy(scipy.signal.windows.hann(n, sym=False)).to(images.device)
            weights = weights * line.reshape(-1, *[1] * (weights.dim() - axis - 1))
    if centre:
        mean = (weights * values).sum(dim=axes, keepdim=True) / weights.sum()
        values = values - mean
    transform = torch.fft.fftn(weights * values, dim=axes)
    power: Tensor = transform.abs().square() / weights.square().sum()
    return power


def require_images(images: Tensor) -> None:
    """Check that there are axes for images, channels and space."""
    if images.dim() - 2 not in AXES or not images.numel():
        raise InvalidInputError(
            f"expected images with one axis more in front than {SHAPES}; got shape "
            f"{tuple(images.shape)}: image[None] is one image"
        )


def is_constant(images: Tensor) -> Tensor:
    """Say which images have one value in each channel."""
    channels = images.flatten(2)
    return (channels.amax(dim=2) == channels.amin(dim=2)).all(dim=1)


@checked
def radial_power(
    images: Float[Tensor, "images channels *spatial"],
    *,
    edges: Edges | None = None,
    window: str = "none",
    centre: bool = True,
) -> xr.Dataset:
    """Average the power of images over bins of frequencies.

    Parameters
    ----------
    images : Tensor, shape ``(images, channels, *spatial)``
        Signals or images.
    edges : sequence of float, optional
        As of `frequency_response`, whose bins these are.
    window, centre
        As of `periodogram`.

    Returns
    -------
    xarray.Dataset
        Over ``frequency`` (mean radius of a bin, cycles per pixel): ``power``, the mean over the
        bin's frequencies, channels and images, in squared units of the image; its
        ``standard_error`` over images, NaN for a single one; ``modes`` of a channel. Over
        ``(image, frequency)``: ``image_power`` of each.

    Raises
    ------
    InvalidInputError
        As of `periodogram`; if the edges don't ascend.

    """
    rows = _binned_power(images, edges, window, centre)
    return _dataset(rows, tuple(images.shape[2:]), edges, window, centre)


@checked
def prior_spectrum(
    prior: ImagePrior,
    samples: int = 32,
    *,
    seed: int = 0,
    first: int = 0,
    codes: Codes = FIXED,
    edges: Edges | None = None,
    window: str = "none",
    centre: bool = True,
    progress: bool = False,
) -> xr.Dataset:
    """Measure the power spectrum of what a prior makes before it learns.

    Parameters
    ----------
    prior : ImagePrior
        Any network. With an output non-linearity the images are what it makes of them.
    samples : int
        Initialisations.
    seed, first, codes
        As of `dipkernels.priors.draw_images`.
    edges, window, centre
        As of `radial_power`.
    progress : bool
        Show a bar.

    Returns
    -------
    xarray.Dataset
        As of `radial_power`; the standard error is over initialisations.

    Raises
    ------
    InvalidInputError
        As of `draw_images` and `radial_power`.
    DivergenceError
        If an image isn't finite.

    Notes
    -----
    Costs a draw and a forward pass a sample. With ``centre=False`` its expectation is the frequency
    response of the prior's second moment.

    Examples
    --------
    >>> from dipkernels import networks
    >>> prior = networks.create("conv", image_size=16, width=6, output="none")
    >>> prior_spectrum(prior, 4).power.dims
    ('frequency',)
    """
    rows = []
    with Progress(samples, f"spectrum of {prior.name}", enabled=progress) as bar:
        for images in draw_images(prior, samples, seed=seed, first=first, codes=codes):
            require_finite_images(images, prior)
            rows.append(_binned_power(images, edges, window, centre))
            bar.advance(len(images))
    dataset = _dataset(np.concatenate(rows), prior.shape[1:], edges, window, centre)
    return dataset.assign_attrs(
        **describe_prior(prior), **provenance(prior.device), samples=samples, seed=seed
    )


@checked
def natural_spectrum(
    size: int | Size,
    *,
    names: Sequence[str] = PHOTOGRAPHS,
    edges: Edges | None = None,
    window: str = "hann",
) -> xr.Dataset:
    """Measure photographs in the same way, for comparison.

    Parameters
    ----------
    size : int or (height, width)
        That the images are brought to; see `dipkernels.images.load`.
    names : sequence of str
        Of images; by default five photographs that scikit-image brings.
    edges, window
        As of `radial_power`.

    Returns
    -------
    xarray.Dataset
        As of `radial_power`, over ``image`` by name, each image divided by its own standard
        deviation, so that all count alike.

    Raises
    ------
    InvalidInputError
        If no name is given, or an image is constant.

    Notes
    -----
    Published exponents of power: near 2 (Field 1987); 2.4 on average, 1.6 to 3.0 over 135
    photographs (Tolhurst, Tadmor & Chao 1992). Images that were made smaller fall faster.
    """
    if not names:
        raise InvalidInputError("no image is named")
    rows: list[np.ndarray] = []
    spatial: tuple[int, ...] = ()
    for name in names:
        image = image_files.load(name, size=size).double()
        deviation = float(image.std(dim=tuple(range(1, image.dim())), correction=0).mean())
        if not deviation > 0:
            raise InvalidInputError(f"image {name} is constant: it has no spectrum")
        spatial = tuple(image.shape[1:])
        rows.append(_binned_power(image[None] / deviation, edges, window, True))
    dataset = _dataset(np.concatenate(rows), spatial, edges, window, True)
    return dataset.assign_coords(image=list(names))


def _binned_power(images: Tensor, edges: Edges | None, window: str, centre: bool) -> np.ndarray:
    power = periodogram(images, window=window, centre=centre).mean(dim=1).cpu().numpy()
    masks = bin_masks(power.shape[1:], edges)
    return np.stack([power[:, mask].mean(axis=1) for mask in masks], axis=1)


def _dataset(
    rows: np.ndarray,
    size: tuple[int, ...],
    edges: Edges | None,
    window: str,
    centre: bool,
) -> xr.Dataset:
    masks = bin_masks(size, edges)
    units = {"units": "squared units of the image"}
    return xr.Dataset(
        {
            "power": ("frequency", rows.mean(axis=0), units),
            "standard_error": ("frequency", standard_error(rows)),
            "modes": mode_counts(masks),
            "image_power": (("image", "frequency"), rows, units),
        },
        {"frequency": mean_radii(size, masks)},
        {"window": window, "centre": "image" if centre else "none"},
    )
