"""Fourier and wavelet bases: the best images of few coefficients, and where they are good."""

from collections.abc import Callable

import numpy as np
import pywt

WAVELET = "sym4"
FAMILIES = ("low-pass", "fourier", "wavelet")
SHARES = np.geomspace(0.002, 1.0, 40)  # of the coefficients that are kept
Filter = Callable[[np.ndarray], np.ndarray]


def approximations(image: np.ndarray, family: str) -> np.ndarray:
    """Approximate an image by fewer and more coefficients.

    Parameters
    ----------
    image : ndarray, shape (channels, height, width)
        Whose mean is kept always.
    family : {"low-pass", "fourier", "wavelet"}
        The lowest frequencies; the Fourier coefficients of largest modulus; those of the
        orthogonal wavelet ``sym4`` with periodic borders.

    Returns
    -------
    ndarray, shape (shares, channels, height, width)
        For `SHARES`.
    """
    means = image.mean(axis=(1, 2), keepdims=True)
    coefficients, back = _transform(image - means, family)
    order = np.abs(coefficients) if family != "low-pass" else -_radius(image.shape)
    ranked = np.sort(order.ravel())[::-1]
    found = []
    for share in SHARES:
        least = ranked[max(1, round(share * ranked.size)) - 1]
        found.append(back(np.where(order >= least, coefficients, 0)) + means)
    return np.stack(found)


def thresholded(noisy: np.ndarray, clean: np.ndarray, family: str) -> np.ndarray:
    """Denoise by keeping large coefficients, the threshold chosen by the clean image.

    Parameters
    ----------
    noisy, clean : ndarray, shape (channels, height, width)
        The clean one only chooses.
    family : {"low-pass", "fourier", "wavelet"}
        As in `approximations`.

    Returns
    -------
    ndarray, shape (channels, height, width)
        Of least squared error over the thresholds.
    """
    candidates = approximations(noisy, family)
    errors = ((candidates - clean) ** 2).mean(axis=(1, 2, 3))
    return np.asarray(candidates[errors.argmin()])


def distances(images: np.ndarray, clean: np.ndarray) -> dict[str, np.ndarray]:
    """Measure how near images are to the best approximations of a clean one.

    Parameters
    ----------
    images : ndarray, shape (n, channels, height, width)
        Outputs of a network.
    clean : ndarray, shape (channels, height, width)
        What is approximated.

    Returns
    -------
    dict of str to ndarray, shape (n,)
        For each family the least root mean square difference over the shares.
    """
    flat = images.reshape(len(images), -1)
    found = {}
    for family in FAMILIES:
        atoms = approximations(clean, family).reshape(len(SHARES), -1)
        squares = ((flat[:, None] - atoms[None]) ** 2).mean(axis=2)
        found[family] = np.sqrt(squares.min(axis=1))
    return found


def regions(clean: np.ndarray) -> dict[str, np.ndarray]:
    """Divide an image into its smooth half and its detailed quarter.

    Parameters
    ----------
    clean : ndarray, shape (channels, height, width)
        Without noise.

    Returns
    -------
    dict of str to ndarray of bool, shape (height, width)
        ``background``: half of the pixels, of the least gradients (the mean over 3x3 pixels and
        channels of their squares); ``foreground``: a quarter, of the largest.
    """
    slopes = sum(np.square(part) for part in np.gradient(clean, axis=(1, 2))).mean(axis=0)
    padded = np.pad(slopes, 1, mode="edge")
    height, width = slopes.shape
    local = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3))
    low, high = np.quantile(local, [0.5, 0.75])
    return {"whole": local >= 0, "background": local <= low, "foreground": local > high}


def _transform(centred: np.ndarray, family: str) -> tuple[np.ndarray, Filter]:
    if family != "wavelet":
        shape = centred.shape[1:]
        spectrum = np.fft.fft2(centred, axes=(1, 2))
        return spectrum, lambda kept: np.fft.ifft2(kept, s=shape, axes=(1, 2)).real
    level = max(1, pywt.dwtn_max_level(centred.shape[1:], WAVELET))
    options = {"mode": "periodization", "axes": (1, 2)}
    parts = pywt.wavedecn(centred, WAVELET, level=level, **options)
    flat, slices = pywt.coeffs_to_array(parts, axes=(1, 2))

    def back(kept: np.ndarray) -> np.ndarray:
        again = pywt.array_to_coeffs(kept, slices, output_format="wavedecn")
        height, width = centred.shape[1:]
        return np.asarray(pywt.waverecn(again, WAVELET, **options)[:, :height, :width])

    return flat, back


def _radius(shape: tuple[int, ...]) -> np.ndarray:
    axes = [np.fft.fftfreq(side) for side in shape[1:]]
    radius = np.hypot(*np.meshgrid(*axes, indexing="ij"))
    return np.broadcast_to(radius, shape)
