"""How a spectrum falls: half-power frequency, and roll-off exponent."""

import math
from dataclasses import dataclass

import numpy as np
import scipy.stats
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.statistics import standard_error
from dipkernels.errors import InvalidInputError

NYQUIST = 0.5
FEWEST = 3  # bins that tell a line from a curve


@checked(nan=True)
@dataclass(frozen=True)
class RollOff:
    """A power law ``f ** -exponent``, fitted to a spectrum.

    Attributes
    ----------
    exponent : float
        Positive where the spectrum falls; 2 is an amplitude of ``1 / f``.
    standard_error : float
        Of sampling alone: over images where the spectrum has some, else from the bins' errors;
        NaN where neither is known.
    line_error, misfit : float
        The regression's: from the scatter of the bins about the line, be it noise or curvature; and
        its root mean square, in decades of power. Large: no power law.
    low, high : float
        Cycles per pixel, the lowest and the highest bin used.
    """

    exponent: float
    standard_error: float
    line_error: float
    misfit: float
    low: float
    high: float


@checked
def half_power_frequency(response: xr.Dataset) -> float:
    """Frequency at which a spectrum has fallen to half of its lowest bin's.

    Parameters
    ----------
    response : xarray.Dataset
        As `frequency_response` or `radial_power` returns; the constant image is left out.

    Returns
    -------
    float
        Cycles per pixel, interpolated linearly; infinite if it never falls that far, NaN if the
        lowest bin isn't positive.

    Raises
    ------
    InvalidInputError
        If the dataset is no spectrum over ``frequency``.
    """
    f, r = varying(response)
    if len(r) and not r[0] > 0:
        return math.nan
    below = np.flatnonzero(r < r[0] / 2) if len(r) else np.array([])
    if len(below) == 0:
        return math.inf
    i = int(below[0])
    fraction = (r[i - 1] - r[0] / 2) / (r[i - 1] - r[i])
    return float(f[i - 1] + fraction * (f[i] - f[i - 1]))


@checked
def roll_off(spectrum: xr.Dataset, *, low: float = 0.0, high: float = NYQUIST) -> RollOff:
    """Fit a power law to a spectrum, by least squares on the logarithms of its bins.

    Parameters
    ----------
    spectrum : xarray.Dataset
        As `frequency_response`, `radial_power` or `prior_spectrum` returns.
    low, high : float
        Range of the bins' frequencies, in cycles per pixel, without the constant image. By default
        up to the highest frequency along an axis: bins above it lie in the corners alone.

    Returns
    -------
    RollOff
        Exponent with its errors.

    Raises
    ------
    InvalidInputError
        If there are fewer than 3 bins in the range, or one of them isn't positive and finite.

    Notes
    -----
    All bins count alike. The logarithm of a single random image's mean over m independent modes
    lies ``1 / m`` below that of its expectation.
    """
    name = _value(spectrum)
    frequency = spectrum["frequency"].values
    where = np.flatnonzero((frequency > 0) & (frequency >= low) & (frequency <= high))
    values = spectrum[name].values[where]
    if len(where) < FEWEST or not ((values > 0) & (values < np.inf)).all():
        raise InvalidInputError(
            f"a power law needs at least {FEWEST} bins between {low} and {high} cycles/pixel, all "
            f"positive; got {len(where)}, the lowest value {values.min() if len(where) else 'none'}"
        )
    x, y = np.log10(frequency[where]), np.log10(values)
    line = scipy.stats.linregress(x, y)
    slopes = (x - x.mean()) / ((x - x.mean()) ** 2).sum() / math.log(10)
    residual = y - line.intercept - line.slope * x
    return RollOff(
        exponent=-float(line.slope),
        standard_error=_sampling_error(spectrum, where, slopes / values),
        line_error=float(line.stderr),
        misfit=float(np.sqrt((residual**2).mean())),
        low=float(frequency[where[0]]),
        high=float(frequency[where[-1]]),
    )


def varying(spectrum: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Take a spectrum without the constant image."""
    name, frequency = _value(spectrum), spectrum["frequency"].values
    return frequency[frequency > 0], spectrum[name].values[frequency > 0]


def _value(spectrum: xr.Dataset) -> str:
    for name in ("response", "power"):
        if name in spectrum and spectrum[name].dims == ("frequency",):
            return name
    raise InvalidInputError(
        "expected a response or a power over frequency alone, got "
        f"{ {str(k): v.dims for k, v in spectrum.data_vars.items()} }: select a layer"
    )


# Derivatives of the exponent with respect to the bins, times their deviations.
def _sampling_error(spectrum: xr.Dataset, bins: np.ndarray, derivatives: np.ndarray) -> float:
    if spectrum.sizes.get("image", 1) > 1:
        each = spectrum["image_power"].values[:, bins] @ derivatives
        return float(standard_error(each))
    names = [n for n in ("standard_error", "response_standard_error") if n in spectrum]
    if not names:
        return math.nan
    return float(np.sqrt(((spectrum[names[-1]].values[bins] * derivatives) ** 2).sum()))
