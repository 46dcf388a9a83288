"""Have the chains met, and what are their draws worth? Asked of images, not of parameters.

Parameters of a network have symmetries: chains that agree on every image may never agree on one
weight. All diagnostics are ArviZ's.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError, MissingExtraError, install_command
from dipkernels.sampling.summaries import image_summaries, require_draws

RHAT = 1.01  # Vehtari et al. 2021
ESS_OF_A_CHAIN = 100  # likewise: 400 in all for four chains
LEAST_DRAWS = 4  # ArviZ gives no answer for fewer
PIXELS = 400


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
def diagnose(result: xr.Dataset, *, pixels: int | None = PIXELS, seed: int = 0) -> xr.Dataset:
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
        three; ``summary_rhat``, ``summary_ess_bulk``, ``summary_ess_tail`` over ``summary``.
        With one chain R-hat is NaN: it compares chains. Attributes: numbers of chains and draws.

    Raises
    ------
    InvalidInputError
        If there are too few draws or pixels.
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
    if pixels is not None and pixels < 1:
        raise InvalidInputError(f"pixels must be at least 1, got {pixels}")
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
    return xr.Dataset(found, {**coordinates, "summary": list(summaries)}, attributes)


@dataclass(frozen=True)
class Convergence:
    """Whether chains have converged, in words.

    Attributes
    ----------
    converged : bool
        All chains are there, every R-hat is at most 1.01 and every effective sample size at least
        100 for each chain.
    reasons : tuple of str
        Why not; empty if so.
    """

    converged: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        if self.converged:
            return (
                f"Nothing speaks against convergence: R-hat at most {RHAT}, at least "
                f"{ESS_OF_A_CHAIN} effective draws a chain."
            )
        return f"NOT CONVERGED: {'; '.join(self.reasons)}."


def verdict(diagnosis: xr.Dataset) -> Convergence:
    """Judge the diagnostics.

    Parameters
    ----------
    diagnosis : xarray.Dataset
        From `diagnose`.

    Returns
    -------
    Convergence
        By the thresholds of Vehtari et al. 2021.
    """
    reasons, chains = [], int(diagnosis.attrs["chains"])
    known = diagnosis.isel(pixel=~diagnosis["constant"].values)
    if not known.sizes["pixel"]:
        return Convergence(False, ("no pixel differs between draws: the chains don't move",))
    if ended := int(diagnosis.attrs["diverged"]):
        reasons.append(f"{ended} of {chains + ended} chains diverged")
    if chains < 2:
        reasons.append("one chain can't be compared with others")
    else:
        # of a pixel that is constant in each chain, but not between them, it isn't a number
        if share := float((~(known["rhat"] <= RHAT)).mean()):
            worst = float(known["rhat"].max())
            reasons.append(f"R-hat above {RHAT} for {share:.0%} of pixels, up to {worst:.3g}")
        for name, value in _by_summary(diagnosis, "summary_rhat"):
            if not value <= RHAT:
                reasons.append(f"R-hat {value:.3g} of the {name}")
    needed = ESS_OF_A_CHAIN * chains
    sizes = [known[p + name] for p in ("", "summary_") for name in ("ess_bulk", "ess_tail")]
    fewest = min(float(np.nan_to_num(each.values).min()) for each in sizes)  # unknown is none
    if not fewest >= needed:
        reasons.append(f"only {fewest:.0f} effective draws where it has fewest, of {needed}")
    return Convergence(not reasons, tuple(reasons))


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
    tables = (_by_summary(found, f"summary_{name}") for name in ("rhat", "ess_bulk", "ess_tail"))
    for (name, rhat_of), (_, bulk_of), (_, tail_of) in zip(*tables, strict=True):
        lines.append(
            f"{name}: R-hat {rhat_of:.3f}, effective draws {bulk_of:.0f} (bulk), "
            f"{tail_of:.0f} (tail)"
        )
    return "\n".join(lines)


def _by_summary(diagnosis: xr.Dataset, variable: str) -> list[tuple[str, float]]:
    words = {"psnr": "PSNR", "total_variation": "total variation"}
    names = [words.get(str(name), str(name)) for name in diagnosis["summary"].values]
    return list(zip(names, map(float, diagnosis[variable].values), strict=True))


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
