"""What a fit came to, in numbers and in a line; with several seeds, with their spread."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.spread import spread_words
from dipkernels.errors import InvalidInputError


@checked(nan=True)
@dataclass(frozen=True)
class Peak:
    """Highest PSNR to the clean image: over seeds the mean, and how much they differ.

    Attributes
    ----------
    psnr : float
        In dB; over images, too, the mean.
    spread : float
        Standard deviation over seeds in dB (of one image; over several, the root mean square);
        NaN for one seed, which says nothing about it.
    iteration : float
        Where it was reached, the median.
    seeds : int
        How many.
    """

    psnr: float
    spread: float
    iteration: float
    seeds: int

    def __str__(self) -> str:
        decibels = f"{self.psnr:.2f}{_deviation(self.spread, self.seeds)} dB"
        return f"{decibels} ({spread_words(self.seeds)}) at iteration {self.iteration:.0f}"


@checked
def peak(result: xr.Dataset) -> Peak:
    """Find the peak of a fit.

    Parameters
    ----------
    result : xarray.Dataset
        From `dipkernels.fit`.

    Returns
    -------
    Peak
        In the task's score region.

    Raises
    ------
    InvalidInputError
        If the clean image isn't known.
    """
    if "psnr_clean" not in result:
        raise InvalidInputError(
            "this fit has no peak, since its clean image isn't known: a stopping rule can choose "
            "an iteration, see dipkernels.stopping"
        )
    psnr, seeds = xr.DataArray(result.peak_psnr), result.sizes.get("seed", 1)
    where = xr.DataArray(result.peak_iteration).where(psnr.notnull())
    return Peak(float(psnr.mean()), _over_seeds(psnr), float(where.median()), seeds)


@checked
def summary(result: xr.Dataset) -> str:
    """Say in a line what a fit came to.

    Parameters
    ----------
    result : xarray.Dataset
        From `dipkernels.fit`.

    Returns
    -------
    str
        Peak with its spread over seeds (or that it has none), number of iterations, status,
        seconds.
    """
    last = result.sizes["iteration"] - 1
    if "psnr_clean" not in result:
        final, seeds = result.psnr_noisy.isel(iteration=-1), result.sizes.get("seed", 1)
        decibels = f"{float(final.mean()):.2f}{_deviation(_over_seeds(final), seeds)} dB"
        what = f"{decibels} to the measurement at the end ({spread_words(seeds)}), no clean image,"
    else:
        what = f"peak {peak(result)}"
    words = sorted({str(word) for word in np.asarray(result.status).ravel()})
    chosen = ""
    if "chosen" in result:
        found = [int(i) for i in np.atleast_1d(result.chosen).ravel()]
        where = ", ".join(str(i) if i >= 0 else "none" for i in found)
        chosen = f", {result.stop} chose iteration {where}"
        if max(found) < 0:
            chosen = f", {result.stop} found no iteration to choose"
    return f"{what} of {last} ({', '.join(words)}{chosen}), {result.seconds:.0f} s"


# Of one image; over several, the root mean square.
def _over_seeds(values: xr.DataArray) -> float:
    if values.sizes.get("seed", 1) == 1:
        return float("nan")
    return float(np.sqrt(values.var("seed", ddof=1).mean()))


def _deviation(value: float, seeds: int) -> str:
    return f" +- {value:.2f}" if seeds > 1 else ""
