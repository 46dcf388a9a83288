"""Have the chains met, and what are their draws worth? Asked of images, not of parameters.

Parameters of a network have symmetries: chains that agree on every image may never agree on one
weight. All diagnostics are ArviZ's.
"""

import itertools
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Count
from dipkernels.base.seeds import generator
from dipkernels.errors import MissingExtraError, install_command
from dipkernels.sampling.summaries import (
    CONSTANT,
    ENERGY,
    TEMPERATURE,
    image_summaries,
    require_draws,
    whole_chains,
)

RHAT = 1.05  # of all summaries, and of so large a share of the pixels:
PIXEL_SHARE = 0.99
ESS = 50  # a posterior mean to a seventh of the deviation
HOT = 1.2  # times the temperature of the target: so much too large are variances on average
EXPLAINED = 0.05  # of the measurement's variance: a chain at less shows a grey
LEAST_DRAWS = 4  # ArviZ gives no answer for fewer
PIXELS = 400


@checked
def to_inference_data(result: xr.Dataset) -> Any:
    """Hand the draws to ArviZ.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.sampling.sample` returns.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The container of ArviZ before version 1, or since. Group ``posterior``: ``image`` over
        ``(chain, draw, channel, ...)`` and `image_summaries`; group ``observed_data``: the
        measurement, where it is an image. Chains that diverged are left out.

    Raises
    ------
    MissingExtraError
        Without ArviZ, the extra ``sampling``.
    """
    arviz = require_arviz()
    draws = require_draws(result)
    posterior = xr.Dataset({"image": draws.reset_coords(drop=True)}).assign(
        {name: (("chain", "draw"), v) for name, v in image_summaries(result).items()}
    )
    groups = {"posterior": posterior}
    if "measurement" in result:
        groups["observed_data"] = result[["measurement"]].reset_coords(drop=True)
    if "InferenceData" in vars(arviz):  # before ArviZ 1; asking that one for it warns
        return arviz.InferenceData(**groups)
    return xr.DataTree.from_dict(groups)


@checked
def diagnose(result: xr.Dataset, *, pixels: Count | None = PIXELS, seed: int = 0) -> xr.Dataset:
    """Rank-normalised R-hat, and bulk and tail effective sample sizes, of pixels and of summaries.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.sampling.sample` returns, with at least 4 draws of each chain.
    pixels : int, optional
        So many entries of the image, drawn at random without repetition; None for all. ArviZ takes
        about a second for 400.
    seed : int
        Of that draw.

    Returns
    -------
    xarray.Dataset
        ``rhat``, ``ess_bulk``, ``ess_tail`` over ``pixel`` (with coordinates ``channel``, ``y``,
        ``x``), and whether it was ``constant`` in all draws of all chains, when it has none of the
        three; ``summary_rhat``, ``summary_ess_bulk``, ``summary_ess_tail`` over ``summary``: mean,
        total variation, energy in five radial bands of frequency, PSNR and misfit where known.
        With one chain R-hat is NaN: it compares chains. Over ``chain``, after burn-in, where the
        run has kept them: ``temperature`` of the velocities over that of the target (1 if exact),
        and ``explained``, one less the misfit over that of the best grey (about 0 where the
        network shows a grey whatever its parameters). Attributes: numbers of chains and draws.

    Raises
    ------
    InvalidInputError
        If there are too few draws.
    MissingExtraError
        Without ArviZ, the extra ``sampling``.

    Notes
    -----
    Source: Vehtari et al. 2021. A chain that diverged counts as one that hasn't met the others:
    `summary` says so.
    """
    arviz = require_arviz()
    draws = require_draws(result, LEAST_DRAWS)
    count = int(np.prod(draws.shape[2:]))
    order = torch.randperm(count, generator=generator("diagnosed-pixels", seed)).numpy()
    chosen = np.sort(order[: count if pixels is None else pixels])
    flat = draws.values.reshape(*draws.shape[:2], count)[..., chosen].astype(float)
    places = np.unravel_index(chosen, draws.shape[2:])
    coordinates = {
        str(dim): ("pixel", place) for dim, place in zip(draws.dims[2:], places, strict=True)
    }
    summaries = image_summaries(result)
    values = np.stack(list(summaries.values()), axis=-1)
    found: dict[str, Any] = {}
    for prefix, dim, array in (("", "pixel", flat), ("summary_", "summary", values)):
        for name, table in _tables(arviz, array).items():
            found[prefix + name] = (dim, table)
    found["constant"] = ("pixel", (flat == flat[:1, :1]).all(axis=(0, 1)))
    attributes = {
        "chains": draws.sizes["chain"],
        "draws": draws.sizes["draw"],
        "diverged": result.sizes["chain"] - draws.sizes["chain"],
    }
    found |= _states(result)
    return xr.Dataset(found, {**coordinates, "summary": list(summaries)}, attributes)


def _states(result: xr.Dataset) -> dict[str, Any]:
    """Say what the traces tell of chains that are whole, where a run has kept them."""
    found: dict[str, Any] = {}
    if "iteration" not in result.dims:
        return found
    after = result.isel(chain=whole_chains(result["draws"]))
    after = after.isel(iteration=slice(int(result.attrs.get("burn_in", 0)) + 1, None))
    if TEMPERATURE in result:
        heat = after[TEMPERATURE].mean("iteration") / result.attrs["temperature"]
        found["temperature"] = ("chain", heat.values)
    if result.attrs.get(CONSTANT):
        ratio = after["loss"].mean("iteration") / result.attrs[CONSTANT]
        found["explained"] = ("chain", 1 - ratio.values)
    return found


@dataclass(frozen=True)
class Convergence:
    """Whether chains have converged, in words; see `verdict`."""

    converged: bool
    reasons: tuple[str, ...]
    within: str = ""

    def __str__(self) -> str:
        if self.converged:
            return f"No sign of non-convergence: {self.within}."
        return f"NOT CONVERGED: {'; '.join(self.reasons)}."


@checked
def verdict(diagnosis: xr.Dataset) -> Convergence:
    """Judge the diagnostics.

    Parameters
    ----------
    diagnosis : xarray.Dataset
        From `diagnose`.

    Returns
    -------
    Convergence
        ``converged`` if all chains are there, none is heated or stuck, R-hat is at most 1.05 for
        99 % of the pixels and for each summary but energies, and each has at least 50 effective
        draws (bulk); else ``reasons``. ``within`` says how far R-hat goes. This bounds the error of
        posterior means. For quantiles of rare events Vehtari et al. 2021 ask for 1.01 and 100
        effective draws a chain.
    """
    reasons, chains = [], int(diagnosis.attrs["chains"])
    known = diagnosis.isel(pixel=~diagnosis["constant"].values)
    if not known.sizes["pixel"]:
        return Convergence(False, ("no pixel differs between draws: the chains don't move",))
    if ended := int(diagnosis.attrs["diverged"]):
        reasons.append(f"{ended} of {chains + ended} chains diverged")
    reasons += _ailments(diagnosis)
    # Of a pixel that is constant in each chain, but not between them, R-hat isn't a number.
    pixels = {
        "rhat": _nearly_all(np.nan_to_num(known["rhat"].values, nan=np.inf)),
        "ess_bulk": -_nearly_all(-np.nan_to_num(known["ess_bulk"].values)),
    }
    if chains < 2:
        reasons.append("one chain can't be compared with others")
    elif not pixels["rhat"] <= RHAT:
        share = float((~(known["rhat"] <= RHAT)).mean())
        worst = float(known["rhat"].max())
        reasons.append(f"R-hat above {RHAT} for {share:.0%} of pixels, up to {worst:.3g}")
    if not pixels["ess_bulk"] >= ESS:
        reasons.append(f"only {pixels['ess_bulk']:.0f} effective draws of the slowest pixels")
    numbers, bands = _slow(diagnosis, several=chains > 1)
    if numbers or (bands and reasons):
        reasons.append(f"doesn't mix: {', '.join(bands + numbers)}")
    judged = ~diagnosis["summary"].str.startswith(ENERGY).values
    rhat, ess = (diagnosis[f"summary_{name}"].values[judged] for name in ("rhat", "ess_bulk"))
    within = (
        f"R-hat at most {pixels['rhat']:.3f} for {PIXEL_SHARE:.0%} of pixels and "
        f"{rhat.max():.3f} for each summary, at least {min(pixels['ess_bulk'], ess.min()):.0f} "
        "effective draws"
    )
    if bands:
        within += f"; slowest is {', '.join(bands)}"
    return Convergence(not reasons, tuple(reasons), within)


# The value that so large a share doesn't exceed; of few, the largest.
def _nearly_all(values: np.ndarray) -> float:
    return float(np.quantile(values, PIXEL_SHARE, method="higher"))


def _ailments(diagnosis: xr.Dataset) -> list[str]:
    """Say what is wrong with chains whether they agree or not."""
    found = []
    if "temperature" in diagnosis and not (heat := float(diagnosis["temperature"].max())) <= HOT:
        found.append(
            f"heated: velocities have {heat:.3g} times the temperature of the target, the step is "
            "too large"
        )
    if "explained" in diagnosis:
        stuck = np.flatnonzero(~(diagnosis["explained"].values > EXPLAINED))
        if len(stuck):
            which = ", ".join(map(str, stuck))
            found.append(
                f"chain(s) {which} show no more than a grey: the gradient vanishes there; use a "
                "normalised network, or start from fits"
            )
    return found


def _slow(diagnosis: xr.Dataset, *, several: bool) -> tuple[list[str], list[str]]:
    """Put summaries that don't mix into words, and bands, adjacent ones together."""
    rhat, ess = (diagnosis[f"summary_{name}"].values for name in ("rhat", "ess_bulk"))
    fails = (~(rhat <= RHAT) & several) | ~(ess >= ESS)
    names = [str(name) for name in diagnosis["summary"].values]
    bands = [i for i, name in enumerate(names) if name.startswith(ENERGY)]

    def said(words: str, which: list[int]) -> str:
        fewest = np.nan_to_num(ess[which]).min()
        return f"{words} (R-hat {rhat[which].max():.3g}, {fewest:.0f} effective draws)"

    found = []
    for slow, run in itertools.groupby(bands, key=lambda i: bool(fails[i])):
        if slow:
            members = list(run)
            low, high = names[members[0]].split("_")[1], names[members[-1]].split("_")[2]
            reach = f"above {low}" if members[-1] == bands[-1] else f"from {low} to {high}"
            found.append(said(f"energy {reach} cycles/pixel", members))
    numbers = [i for i, name in enumerate(names) if fails[i] and i not in bands]
    return [said(_words(names[i]), [i]) for i in numbers], found


@checked
def summary(result: xr.Dataset, diagnosis: xr.Dataset | None = None) -> str:
    """Say what a run came to; the first line says whether it has converged.

    Parameters
    ----------
    result : xarray.Dataset
        As `dipkernels.sampling.sample` returns.
    diagnosis : xarray.Dataset, optional
        From `diagnose`, with its default options unless given.

    Returns
    -------
    str
        A few lines.
    """
    found = diagnose(result) if diagnosis is None else diagnosis
    draws, said = require_draws(result), result.attrs
    iterations = result.sizes.get("iteration", draws.sizes["draw"])
    temperature = f", temperature {said['temperature']:g}" if "temperature" in said else ""
    lines = [
        str(verdict(found)),
        f"{said.get('prior', 'network')}: {said.get('method', 'sampled')}, {found.attrs['chains']} "
        f"chains of {iterations} iterations, {found.attrs['draws']} draws each{temperature}",
    ]
    rhat, bulk, tail = (found[name] for name in ("rhat", "ess_bulk", "ess_tail"))
    if found.attrs["chains"] > 1:
        middle, largest = float(rhat.median()), float(rhat.max())
        lines.append(f"R-hat of pixels: median {middle:.3f}, largest {largest:.3f}")
    lines.append(
        f"Effective draws of pixels: median {float(bulk.median()):.0f} (bulk), "
        f"{float(tail.median()):.0f} (tail); fewest {float(bulk.min()):.0f}, "
        f"{float(tail.min()):.0f}"
    )
    if "temperature" in found:
        heat = float(found["temperature"].max())
        lines.append(f"Temperature of the velocities over that of the target: {heat:.3f} at most")
    tables = (found[f"summary_{name}"].values for name in ("rhat", "ess_bulk", "ess_tail"))
    for name, rhat_of, bulk_of, tail_of in zip(found["summary"].values, *tables, strict=True):
        lines.append(
            f"{_words(str(name))}: R-hat {rhat_of:.3f}, effective draws {bulk_of:.0f} (bulk), "
            f"{tail_of:.0f} (tail)"
        )
    return "\n".join(lines)


def _words(name: str) -> str:
    if name.startswith(ENERGY):
        return "energy from {} to {} cycles/pixel".format(*name.removeprefix(ENERGY).split("_"))
    return {"psnr": "PSNR", "total_variation": "total variation"}.get(name, name)


def require_arviz() -> Any:
    """Import ArviZ."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it announces its own next version
            import arviz
    except ImportError as error:
        raise MissingExtraError(
            f"diagnostics of chains need ArviZ: {install_command('sampling')}"
        ) from error
    return arviz


def _tables(arviz: Any, array: np.ndarray) -> dict[str, np.ndarray]:
    # A value that never changes (a pixel at the end of its range) has neither.
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")
        dataset = xr.Dataset({"value": (("chain", "draw", "item"), array)})
        found = {
            "ess_bulk": arviz.ess(dataset, method="bulk"),
            "ess_tail": arviz.ess(dataset, method="tail"),
        }
        if len(array) > 1:
            found["rhat"] = arviz.rhat(dataset, method="rank")
    tables = {name: np.asarray(values["value"]) for name, values in found.items()}
    return tables if "rhat" in tables else {**tables, "rhat": np.full(array.shape[2], np.nan)}
