"""What is kept of runs: curves averaged over bins, and values at a few iterations.

Whole traces of the `paper` preset would be more than a GB.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import xarray as xr

PER_OCTAVE = 6  # bins of the curves
LOOKS = 200  # at the norm of the kernels


def binned(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average a curve over bins of equal width in the logarithm of the iteration, from 1 on.

    Parameters
    ----------
    values : ndarray, shape (iterations,)
        NaN where there is none.

    Returns
    -------
    centres, means : ndarray, shape (bins,)
        NaN for a bin without a value.
    """
    last = len(values)
    count = max(2, round(PER_OCTAVE * np.log2(last)))
    edges = np.unique(np.round(np.geomspace(1, last, count + 1)).astype(int))
    pairs = list(itertools.pairwise(edges))
    centres = np.array([np.sqrt(a * (b - 1.0)) for a, b in pairs])
    means = np.full(len(pairs), np.nan)
    for number, (a, b) in enumerate(pairs):
        finite = values[a:b][np.isfinite(values[a:b])]
        if len(finite):
            means[number] = finite.mean()
    return centres, means


def doubling(centres: np.ndarray, means: np.ndarray) -> float:
    """Give the change over the last doubling of the iterations, in dB."""
    return float(means[-1] - np.interp(np.log(centres[-1] / 2), np.log(centres), means))


def curve(run: xr.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Take a curve out of what was kept, without the bins that have no value."""
    centres, means = run["centre"].values, run[name].values
    there = np.isfinite(means)
    return centres[there], means[there]


def value(run: xr.Dataset, name: str, at: int) -> float | None:
    """Give what a picture scored at an iteration, if it was kept."""
    return float(run[f"{name}_at"].sel(at=at)) if at in run["at"].values else None


def kept_of_arm(run: xr.Dataset, readouts: Sequence[int]) -> xr.Dataset:
    """Reduce a run of an arm.

    Parameters
    ----------
    run : xarray.Dataset
        As `run_arm` returns.
    readouts : sequence of int
        Iterations whose own scores are kept; those that weren't reached are left out.

    Returns
    -------
    xarray.Dataset
        Curves over ``bin``; ``NAME_at`` over ``at``, the read-outs and the last iteration; ``norm``
        over ``look``; as attribute the ``iterations``.
    """
    last = run.sizes["iteration"] - 1
    at = sorted({i for i in readouts if i <= last} | {last})
    names = [str(name) for name in run.data_vars if name not in ("loss", "norm")]
    found: dict[str, tuple[str, np.ndarray, dict[str, str]]] = {}
    for name in names:
        values = run[name].values
        centres, means = binned(values)
        found[name] = ("bin", means, run[name].attrs)
        found[f"{name}_at"] = ("at", values[at], run[name].attrs)
    looked = np.flatnonzero(np.isfinite(run["norm"].values))
    spaced = np.geomspace(1, len(looked), LOOKS).round().astype(int) - 1
    looked = looked[np.unique(spaced)]
    found["norm"] = ("look", run["norm"].values[looked], {})
    coordinates = {"centre": ("bin", centres), "at": at, "look": looked}
    return xr.Dataset(found, coordinates, {**run.attrs, "iterations": last + 1})


def kept_of_chains(run: xr.Dataset, lengths: Sequence[int]) -> xr.Dataset:
    """Reduce chains.

    Parameters
    ----------
    run : xarray.Dataset
        As `run_sampler` returns.
    lengths : sequence of int
        How many iterations of each chain count; the rest is left out.

    Returns
    -------
    xarray.Dataset
        ``iterate``, ``average`` and ``misfit`` (in variances of the noise) over ``(chain, bin)``,
        at the iterations ``centre``, NaN beyond a shorter chain's end; ``before``,
        ``misfit_before``, ``average_end``, ``ended_at``, ``length`` over ``chain``.
    """
    chains = []
    for number, length in enumerate(lengths):
        one = run.isel(chain=number, iteration=slice(0, length))
        misfit = one["loss"].values / run.attrs["noise_variance"]
        centres, _ = binned(misfit)
        curves = {"iterate": one["iterate"].values, "average": one["average"].values}
        found = {
            name: ("bin", binned(values)[1])
            for name, values in {**curves, "misfit": misfit}.items()
        }
        scalars = {
            "before": curves["iterate"][0],
            "misfit_before": misfit[0],
            "average_end": curves["average"][-1],
            "ended_at": int(one["ended_at"]),
            "length": one.sizes["iteration"],
        }
        # aligned by their numbers, so that a shorter chain ends in NaN
        chains.append(xr.Dataset({**found, "centre": ("bin", centres), **scalars}))
    bins = max(chain.sizes["bin"] for chain in chains)
    padded = [chain.pad(bin=(0, bins - chain.sizes["bin"])) for chain in chains]
    return xr.concat(padded, "chain").assign_attrs(run.attrs)
