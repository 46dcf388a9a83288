"""The key numbers of a fingerprint."""

import math

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked

# Attributes that are numbers of a row as they are.
PLAIN = (
    "parameters",
    "half_power_frequency",
    "roll_off",
    "roll_off_standard_error",
    "sample_roll_off",
    "sample_roll_off_standard_error",
    "sample_deviation",
    "shift_variance",
    "shift_variance_standard_error",
    "diagonal_variation",
    "filter_constant",
)
FITS = (
    "predicted_peak_psnr",
    "predicted_peak_psnr_lower",
    "predicted_peak_psnr_upper",
    "predicted_peak_resolved",
    "predicted_peak_time",
    "peak_psnr",
    "peak_iteration",
    "iterations",
    "learning_rate",
    "measurement_psnr",
    "matvecs",
    "seconds",
)


@checked
def fingerprint_row(card: xr.Dataset) -> dict[str, object]:
    """Condense a fingerprint to the numbers of a table.

    Parameters
    ----------
    card : xarray.Dataset
        From `fingerprint`.

    Returns
    -------
    dict
        By name. ``comb_period`` is the longest period whose comb is at least half as strong as the
        strongest, since a grid's combs are there at its divisors, too; ``comb`` its strength, NaN
        where the image is too small for one. ``descent_error``: predicted less
        measured PSNR at the last iteration of gradient descent, in dB. ``limit_distance``: how far
        the measured kernel's profile is from the infinitely wide network's, root mean square over
        radii from 1 on; NaN where that isn't known.
    """
    row: dict[str, object] = {"prior": card.attrs["card"]}
    row |= {key: _plain(card.attrs[key]) for key in PLAIN}
    row |= _comb(card)
    if "axes_over_diagonals" in card:
        row["axes_over_diagonals"] = float(card.axes_over_diagonals[-1])
    row |= {key: _plain(card.attrs[key]) for key in FITS}
    extrapolated = "predicted_peak_extrapolated"  # not of earlier cards
    row[extrapolated] = _plain(card.attrs.get(extrapolated, 0))
    last = card.isel(descent_iteration=-1)
    row["descent_error"] = float(last.predicted_descent_psnr - last.descent_psnr)
    row["limit_distance"] = _limit_distance(card)
    return row


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _comb(card: xr.Dataset) -> dict[str, object]:
    if not card.sizes.get("comb_period") or not bool(card.comb.notnull().any()):
        return {"comb": math.nan, "comb_standard_error": math.nan, "comb_period": 0}
    strong = np.flatnonzero(card.comb.values >= 0.5 * np.nanmax(card.comb.values))
    best = card.isel(comb_period=int(strong[-1]))
    return {
        "comb": float(best.comb),
        "comb_standard_error": float(best.comb_standard_error),
        "comb_period": int(best.comb_period),
    }


def _limit_distance(card: xr.Dataset) -> float:
    if "limit_ntk_profile" not in card:
        return math.nan
    difference = (card.ntk_profile - card.limit_ntk_profile).values[1:]
    return float(np.sqrt((difference**2).mean()))
