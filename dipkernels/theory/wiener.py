"""The Wiener filter of a network's covariance at initialisation, as a score."""

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.metrics import decibels
from dipkernels.spectra.modes import lag_spectrum
from dipkernels.theory.curves import PredictedPeak

# The prior's variance in units of the noise's, over which the best is sought.
SCALES = np.geomspace(1e-4, 1e6, 201)


@checked
def covariance_spectrum(found: xr.Dataset) -> np.ndarray:
    """Turn a measured stationary covariance into the prior's power spectrum.

    Parameters
    ----------
    found : xarray.Dataset
        From `dipkernels.kernels.covariance` with ``boundary="circular"`` and all lags; best with
        ``centre="image"``, because the filter treats the mean of an image apart.

    Returns
    -------
    ndarray, shape (height, width) or (length,)
        In FFT order, not negative.

    Raises
    ------
    InvalidInputError
        If the boundary isn't circular, channels are kept apart, or lags are missing.
    """
    if found.attrs.get("boundary") != "circular":
        raise InvalidInputError('a spectrum needs boundary="circular" in `covariance`')
    if not all(str(name).startswith("lag_") for name in found.kernel.dims):
        raise InvalidInputError('a spectrum needs channels="average" in `covariance`')
    size = tuple(found.sizes[str(name).removeprefix("lag_")] for name in found.kernel.dims)
    if found.kernel.shape != size:
        raise InvalidInputError(
            f"a spectrum needs the covariance at all lags of {size} pixels, got "
            f"{found.kernel.shape}: leave out max_lag"
        )
    return np.asarray(np.maximum(lag_spectrum(found), 0.0))


@checked
def stationary_wiener(
    spectrum: np.ndarray, clean: Float[Tensor, "channels *spatial"], noise_sigma: float
) -> PredictedPeak:
    """Denoise an image by the Wiener filter of a stationary prior, and find its best PSNR.

    The filter is ``s C / (s C + sigma^2)`` at each frequency, and 1 at frequency 0: an image's
    mean is taken from the measurement. The scale s of the prior is the one that serves the image
    best, as the time is in a predicted curve: networks are not drawn with an image's contrast.

    Parameters
    ----------
    spectrum : ndarray, shape ``spatial``
        ``C``, not negative, in FFT order; see `covariance_spectrum`.
    clean : Tensor, shape ``(channels, *spatial)``
        The image that is sought, taken to be periodic.
    noise_sigma : float
        Positive.

    Returns
    -------
    PredictedPeak
        Its ``time`` is the best scale times the mean of the spectrum over the noise's variance,
        its ``degrees_of_freedom`` the trace of the filter; the band is empty.

    Raises
    ------
    InvalidInputError
        If shapes differ, a number is negative, or nothing but the mean has power.

    Notes
    -----
    The expected error is the sum over frequencies of ``sigma^4 P / (s C + sigma^2)^2 + sigma^2
    (s C)^2 / (s C + sigma^2)^2``, over n, with P the image's periodogram: exact for that filter.
    """
    size = tuple(clean.shape[1:])
    if spectrum.shape != size:
        raise InvalidInputError(f"the spectrum must have shape {size}, got {spectrum.shape}")
    if not (np.isfinite(spectrum).all() and (spectrum >= 0).all()):
        raise InvalidInputError("a spectrum can't be negative or NaN")
    if spectrum.size < 2 or not bool(clean.isfinite().all()):
        raise InvalidInputError("the image must be finite and have at least 2 pixels")
    if not 0 < noise_sigma < np.inf:
        raise InvalidInputError(f"the noise must have a positive level, got {noise_sigma}")
    image = clean.detach().cpu().double().numpy()
    axes = tuple(range(1, image.ndim))
    power = np.square(np.abs(np.fft.fftn(image, axes=axes, norm="ortho"))).reshape(len(image), -1)
    prior = spectrum.astype(np.float64).ravel()[1:]
    if not prior.max() > 0:
        raise InvalidInputError("the prior has no power but in the mean: it filters nothing")
    gain = SCALES[:, None] * prior / prior.mean()
    gain = gain / (gain + 1)
    noise = noise_sigma**2
    bias = np.square(1 - gain) @ power[:, 1:].sum(axis=0)
    variance = noise * len(image) * (np.square(gain).sum(axis=1) + 1)
    mse = (bias + variance) / image.size
    best = int(np.argmin(mse))
    psnr = float(decibels(mse[best]))
    degrees_of_freedom = len(image) * (float(gain[best].sum()) + 1)
    return PredictedPeak(psnr, psnr, psnr, float(SCALES[best]), degrees_of_freedom)
