"""How few coefficients carry an image: Fourier and wavelet sparsity."""

import math

import numpy as np
import pywt
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.errors import InvalidInputError
from dipkernels.spectra.power import is_constant, periodogram, require_images

BASES = ("fourier", "wavelet")
MODE = "periodization"


@checked
def sparsity(
    images: Float[Tensor, "images channels *spatial"],
    basis: str = "wavelet",
    *,
    energy: float = 0.99,
    wavelet: str | None = None,
    levels: int | None = None,
) -> xr.Dataset:
    """Measure how few coefficients of a basis carry images.

    Each channel's mean is removed first: one coefficient would carry most of the energy.

    Parameters
    ----------
    images : Tensor, shape ``(images, channels, *spatial)``
        Signals or images.
    basis : {"wavelet", "fourier"}
        An orthogonal wavelet transform, or the moduli of the Fourier transform over all
        frequencies, of which all but a few come in equal pairs.
    energy : float
        In (0, 1): the share of the energy that is to be carried.
    wavelet : str, optional
        An orthogonal wavelet of PyWavelets; by default ``"sym4"``. Borders are periodic, in its
        mode ``"periodization"``.
    levels : int, optional
        Of the wavelet transform; by default as many as leave no side shorter than the wavelet.

    Returns
    -------
    xarray.Dataset
        Over ``image``, for all channels together: ``fraction``, the smallest share of coefficients
        that carries `energy` of the energy; ``hoyer = (sqrt(n) - l1 / l2) / (sqrt(n) - 1)``; and
        ``gini``, Gini's index of their moduli. All in [0, 1]; the last two are 1 if one of the n
        coefficients carries all, and 0 if all are equal. Attributes: ``basis``, ``energy``,
        ``coefficients`` (n), and of wavelets ``wavelet``, ``levels``.

    Raises
    ------
    InvalidInputError
        If a name is unknown, a number out of range, an option without effect, or an image
        constant or not finite.

    Notes
    -----
    On the CPU, by sorting. Where a side isn't a multiple of ``2 ** levels``, the transform has
    somewhat more coefficients than pixels, and isn't exactly orthogonal. Sources: Hurley & Rickard
    2009 (IEEE Trans. Information Theory); Hoyer 2004 (JMLR).

    Examples
    --------
    >>> import torch
    >>> wave = torch.cos(2 * torch.pi * torch.arange(64) / 8).reshape(1, 1, 64)
    >>> 64 * sparsity(wave, "fourier").fraction.item()
    2.0
    """
    require_choice("basis", basis, BASES)
    if not 0 < energy < 1:
        raise InvalidInputError(f"energy must be in (0, 1), got {energy}")
    require_images(images)
    if not bool(images.isfinite().all()):
        raise InvalidInputError("an image is NaN or infinite somewhere: it has no sparsity")
    if bool(is_constant(images).any()):
        raise InvalidInputError("a constant image has no coefficients besides its mean")
    if basis == "fourier":
        if wavelet is not None or levels is not None:
            raise InvalidInputError("wavelet and levels have no effect on the Fourier basis")
        moduli = periodogram(images).sqrt().flatten(1).cpu().numpy()
        described: dict[str, str | int] = {}
    else:
        name = "sym4" if wavelet is None else wavelet
        chosen, depth = _wavelet(name, levels, tuple(images.shape[2:]))
        moduli = np.abs(_wavelet_coefficients(images, chosen, depth))
        described = {"wavelet": chosen.name, "levels": depth, "mode": MODE}
    ascending = np.sort(moduli, axis=1)
    return xr.Dataset(
        {
            "fraction": ("image", _fraction(ascending, energy)),
            "hoyer": ("image", _hoyer(ascending)),
            "gini": ("image", _gini(ascending)),
        },
        attrs={"basis": basis, "energy": energy, "coefficients": moduli.shape[1], **described},
    )


def _wavelet(name: str, levels: int | None, size: tuple[int, ...]) -> tuple[pywt.Wavelet, int]:
    if name not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(name).orthogonal:
        raise InvalidInputError(
            f"wavelet must be one of PyWavelets' orthogonal ones, haar, db2, sym4 ..., got {name!r}"
        )
    wavelet = pywt.Wavelet(name)
    most = int(math.log2(min(size)))
    depth = pywt.dwtn_max_level(size, wavelet) if levels is None else levels
    if not 1 <= depth <= most:
        raise InvalidInputError(
            f"levels must be 1 to {most} for images of size {size}, got {depth}; a shorter wavelet "
            "such as 'haar' fits small images"
        )
    return wavelet, depth


def _wavelet_coefficients(images: Tensor, wavelet: pywt.Wavelet, levels: int) -> np.ndarray:
    values = images.detach().double().cpu().numpy()
    axes = tuple(range(2, values.ndim))
    centred = values - values.mean(axis=axes, keepdims=True)
    parts = pywt.wavedecn(centred, wavelet, mode=MODE, level=levels, axes=axes)
    flat = [parts[0], *(detail for level in parts[1:] for detail in level.values())]
    return np.concatenate([part.reshape(len(values), -1) for part in flat], axis=1)


def _fraction(ascending: np.ndarray, energy: float) -> np.ndarray:
    carried = np.cumsum(ascending[:, ::-1] ** 2, axis=1)
    # rounding of the sum must not ask for one coefficient more
    needed = (carried < energy * (1 - 1e-12) * carried[:, -1:]).sum(axis=1) + 1
    return np.asarray(needed / ascending.shape[1])


def _hoyer(moduli: np.ndarray) -> np.ndarray:
    root = math.sqrt(moduli.shape[1])
    ratio = moduli.sum(axis=1) / np.linalg.norm(moduli, axis=1)
    return np.asarray((root - ratio) / (root - 1))


# Scaled so that one coefficient of n gives 1, not 1 - 1/n.
def _gini(ascending: np.ndarray) -> np.ndarray:
    n = ascending.shape[1]
    ranks = np.arange(1, n + 1)
    lorenz = (ascending * (2 * ranks - n - 1)).sum(axis=1) / ascending.sum(axis=1)
    return np.asarray(lorenz / (n - 1))
