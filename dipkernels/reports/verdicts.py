"""The sentences that a page begins with: what a fit, or a comparison, came to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import ttest_ind_from_stats

from dipkernels.base.spread import spread_words
from dipkernels.fitting import peak
from dipkernels.reports.table import Row, measured_psnr, number_of, still_rising
from dipkernels.storage.runs import is_interrupted
from dipkernels.tasks import Task

FALL = 0.1  # dB below the peak, from which on a fit is said to have fallen
LEVEL = 0.05  # of the test by which means over seeds are told apart


def fit_verdict(result: xr.Dataset, task: Task | None) -> tuple[bool, str]:
    """Say what a fit came to, and whether that is as it should be."""
    name, last = result.prior, result.sizes["iteration"] - 1
    said, sound = [], True
    status: Any = result["status"].values if "status" in result else result.attrs.get("status")
    words = sorted({str(word) for word in np.ravel(status)})
    if "diverged" in words or is_interrupted(result):
        said.append(f"The fit {' and '.join(words)} after {last} iterations.")
        sound = False
    if "psnr_clean" not in result:
        final = float(result.psnr_noisy.isel(iteration=-1).mean())
        said.append(
            f"{name} comes within {final:.2f} dB of the measured image in {last} iterations; the "
            "clean image isn't known, so that only a stopping rule can say which image to take."
        )
        return sound, " ".join([*said, *_chosen(result)])
    highest = peak(result)
    if not np.isfinite(highest.psnr):
        return False, " ".join([*said, f"{name} has no finite score."])
    spread = _spread(highest.spread)
    sentence = f"{name} reaches {highest.psnr:.2f}{spread} dB at iteration {highest.iteration:.0f}"
    baseline = measured_psnr(task)
    if baseline is not None:
        gain = highest.psnr - baseline
        way = f"{gain:.1f} dB above" if gain > 0 else f"{-gain:.1f} dB below"
        sentence += f", {way} the measured image ({baseline:.2f} dB)"
        sound = sound and gain > 0
    said.append(f"{sentence} ({spread_words(highest.seeds)}).")
    end = result.psnr_clean.sel(region=result.score_region).isel(iteration=-1)
    end = float(end.where(np.isfinite(end)).mean())
    if still_rising({"peak_iteration": highest.iteration, "iterations": last}):
        said.append(f"It was still rising when it ended, after {last} iterations.")
    elif end < highest.psnr - FALL:
        said.append(f"After {last} iterations it has fallen to {end:.2f} dB.")
    return sound, " ".join([*said, *_chosen(result)])


def _chosen(result: xr.Dataset) -> list[str]:
    if "chosen" not in result:
        return []
    found = [int(i) for i in np.ravel(result.chosen)]
    where = ", ".join("none" if i < 0 else str(i) for i in found)
    return [f"The stopping rule {result.stop} chose iteration {where}."]


def comparison_verdict(rows: Sequence[Row], baseline: float | None) -> tuple[bool, str]:
    """Say which network comes nearest to the clean image, and what can be told of it."""
    fitted = [row for row in rows if np.isfinite(number_of(row, "peak_psnr"))]
    if not fitted:
        return False, "No network has been fitted yet."
    first, *others = sorted(fitted, key=lambda row: -number_of(row, "peak_psnr"))
    top, seeds = number_of(first, "peak_psnr"), int(number_of(first, "seeds", 1.0))
    spread = _spread(number_of(first, "peak_psnr_spread"))
    what = f"{first['prior']} comes nearest to the clean image: {top:.2f}{spread} dB"
    sound = True
    if baseline is not None:
        gain = top - baseline
        sound = gain > 0
        way = f"{gain:.1f} dB above" if sound else f"{-gain:.1f} dB below"
        what += f", {way} the measured image ({baseline:.2f} dB)"
    said = [f"{what} ({spread_words(seeds)})."]
    if others and seeds > 1:
        same = [str(row["prior"]) for row in others if not told_apart(first, row)]
        if same:
            said.append(f"{listed(same)} can't be distinguished from it with these seeds.")
    if baseline is not None and sound:
        worse = [str(r["prior"]) for r in others if number_of(r, "peak_psnr") <= baseline]
        if worse:
            said.append(
                f"{listed(worse)} never {_does(worse, 'gets', 'get')} above the measured image."
            )
    rising = [str(row["prior"]) for row in fitted if still_rising(row)]
    if rising:
        said.append(f"{listed(rising)} {_does(rising, 'was', 'were')} still rising at the end.")
    return sound, " ".join(said)


def kernels_verdict(rows: Sequence[Row]) -> str:
    """Say which networks prefer low frequencies, and how much of their spectra is known."""
    half = {str(row["prior"]): number_of(row, "half_power_frequency") for row in rows}
    low = sorted((name for name in half if half[name] < 1), key=lambda name: half[name])
    none = [name for name in half if name not in low]
    if len(rows) == 1:
        where = (
            f"to half at {half[low[0]]:.3f} cycles per pixel" if low else "to half at no frequency"
        )
        kind = "a low-pass filter" if low else "no low-pass filter"
        said = [f"The kernel of {rows[0]['prior']} is {kind}: its response falls {where}."]
        said.append(f"Its largest eigenvalue holds {rows[0]['largest_share']:.0%} of the trace.")
    elif low:
        first = f"{low[0]} prefers low frequencies most: its response falls to half at"
        said = [f"{first} {half[low[0]]:.3f} cycles per pixel (one seed)."]
        others = [f"{name} at {half[name]:.3f}" for name in low[1:]]
        said += [f"{listed(others)} {_does(others, 'follows', 'follow')}."] if others else []
        if none:
            what, falls = _does(none, "response", "responses"), _does(none, "falls", "fall")
            said.append(f"The {what} of {listed(none)} never {falls} to half.")
    else:
        said = ["No network prefers low frequencies: no response falls to half."]
    least = min(rows, key=lambda row: number_of(row, "placed"))
    if number_of(least, "placed_down_to") > 0:
        of = "" if len(rows) == 1 else f" of {least['prior']} (and more of the others)"
        said.append(
            f"About {least['placed']:,.0f} of {least['eigenvalues']:,} eigenvalues{of} are "
            f"resolved, those above {least['placed_down_to']:.0e} of the largest; of the rest only "
            "the number and the sum are known."
        )
    return " ".join(said)


# Of one seed, or of one that didn't diverge, there is none.
def _spread(deviation: float) -> str:
    return f" +- {deviation:.2f}" if np.isfinite(deviation) else ""


def told_apart(one: Row, other: Row, key: str = "peak_psnr") -> bool:
    """Tell two means over seeds apart, by Welch's test."""
    values = [
        (number_of(row, key), number_of(row, f"{key}_spread"), number_of(row, "seeds"))
        for row in (one, other)
    ]
    if values[0][1] == values[1][1] == 0:
        return values[0][0] != values[1][0]
    test = ttest_ind_from_stats(*values[0], *values[1], equal_var=False)
    return bool(test.pvalue < LEVEL)


def listed(names: Sequence[str]) -> str:
    """Name things one after another."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _does(names: Sequence[str], one: str, several: str) -> str:
    return one if len(names) == 1 else several
