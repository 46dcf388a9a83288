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
LEVEL = 0.05  # of tests, such as that by which means over seeds are told apart
CLOSE = 1.0  # dB between a fit and its prediction, all along


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
    sentence += above(highest.psnr, baseline)
    sound = sound and (baseline is None or highest.psnr > baseline)
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
    what += above(top, baseline)
    sound = baseline is None or top > baseline
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


def scores_verdict(rows: Sequence[Row], baseline: float | None) -> str:
    """Say which kernel predicts the highest peak, and which others it can't be told from."""
    first, *others = rows
    top, seeds = number_of(first, "score"), int(number_of(first, "seeds"))
    about = "" if first["score_resolved"] else "about "
    what = f"The kernel of {first['prior']} predicts the highest peak: {about}{top:.2f}"
    what += f"{_spread(number_of(first, 'score_spread'))} dB{above(top, baseline)}"
    said = [f"{what} ({spread_words(seeds)})."]
    low = number_of(first, "score_lower")
    same = [
        str(row["prior"])
        for row in others
        if number_of(row, "score_upper") >= low
        or (min(seeds, int(number_of(row, "seeds"))) > 1 and not told_apart(first, row, "score"))
    ]
    if same:
        said.append(f"{listed(same)} can't be distinguished from it.")
    if baseline is not None:
        worse = [str(r["prior"]) for r in rows if number_of(r, "score_upper") <= baseline]
        if worse:
            said.append(
                f"{listed(worse)} {_does(worse, 'is', 'are')} predicted to stay below the measured "
                "image."
            )
    loose = [str(row["prior"]) for row in rows if not row["score_resolved"]]
    if loose:
        peaks = _does(loose, "The peak", "The peaks")
        said.append(f"{peaks} of {listed(loose)} {_does(loose, 'is', 'are')} not resolved.")
    return " ".join(said)


def audit_verdict(rows: Sequence[Row], network: str) -> tuple[bool, str]:
    """Say how far each fit goes from its prediction, and the kernel from its start."""
    said = []
    for row in rows:
        gap = number_of(row, "measured_peak_psnr") - number_of(row, "predicted_peak_psnr")
        way = f"{abs(gap):.2f} dB {'above' if gap >= 0 else 'below'} the predicted peak"
        said.append(
            f"{row['optimiser']} takes {network} to {number_of(row, 'measured_peak_psnr'):.2f} dB, "
            f"{way}; both curves are up to {number_of(row, 'largest_gap'):.2f} dB apart, and the "
            f"kernel changes by {number_of(row, 'relative_change'):.0%} of its norm (alignment "
            f"{number_of(row, 'alignment'):.2f})."
        )
    sound = all(number_of(row, "largest_gap") < CLOSE for row in rows)
    return sound, " ".join([*said, "One seed: no spread."])


def covariance_verdict(
    network: str, tests: Sequence[tuple[str, float]], kurtosis: tuple[float, float]
) -> tuple[bool, str]:
    """Say which hypotheses about images at initialisation are rejected."""
    rejected = [name for name, p in tests if p < LEVEL]
    kept = [name for name, p in tests if p >= LEVEL]
    said = [f"Images of {network} at initialisation:"]
    if rejected:
        said.append(f"tests reject {listed(rejected)} at {LEVEL:.0%}")
        said.append(f"and can't reject {listed(kept)}." if kept else "(all of them).")
    else:
        said.append(f"no test rejects {listed(kept)} at {LEVEL:.0%}." if kept else "not tested.")
    value, error = kurtosis
    said.append(f"Excess kurtosis {value:.2f} +- {error:.2g} (0: Gaussian).")
    return not rejected, " ".join(said)


def process_verdict(row: Row, baseline: float | None, region: str) -> tuple[bool, str]:
    """Say how good the mean of a process is, and whether its deviations have the right size."""
    deviation = f"its standard deviation is {number_of(row, 'mean_deviation'):.3g} on average"
    if "psnr" not in row:
        return True, f"The clean image isn't known: {row['prior']} has no score; {deviation}."
    psnr, z = number_of(row, "psnr"), number_of(row, "z_rms")
    said = [
        f"The mean of {row['prior']} reaches {psnr:.2f} dB over the {region}"
        f"{above(psnr, baseline)}; {deviation} (white = 1)."
    ]
    if np.isfinite(z):
        size = "about right" if abs(np.log(z)) < np.log(1.25) else "small" if z > 1 else "large"
        size = size if size == "about right" else f"too {size}"
        said.append(f"Errors are {z:.2f} times the standard deviation, which is {size}.")
    return baseline is None or psnr > baseline, " ".join(said)


def above(value: float, baseline: float | None) -> str:
    """Say how far a score is above that of the measured image, where it has one."""
    if baseline is None:
        return ""
    gain = value - baseline
    way = f"{gain:.1f} dB above" if gain > 0 else f"{-gain:.1f} dB below"
    return f", {way} the measured image ({baseline:.2f} dB)"


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
