"""The tables of the atlas, how far its ranks can be told, and its page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image
from scipy.stats import t as student

from dipkernels.theory import rank_agreement
from experiments.atlas.measure import LEVEL, RULES, TILES

HERE = Path(__file__).parent
RESULTS, SUMMARY, RESPONSES, SHEET, PAGE = (
    "results.csv", "summary.csv", "responses.csv", "thumbnails.png", "index.html",
)  # fmt: skip
FACTS = ("network", "family", "origin", "source", "options", "parameters", "half_power", "rate")
# What networks are ranked by: whether more is better, and of what.
MEASURES = {
    "peak": (True, "dB that Adam's best image is above the noisy one"),
    "kernel": (True, "dB that the kernel at initialisation predicts"),
    "regret": (False, "dB that the discrepancy principle loses"),
    "miss": (False, f"distance of the coverage from {LEVEL:g}"),
}
CONFIDENCE = 0.95
ACROSS = 8  # thumbnails in a row of their sheet


@dataclass(frozen=True)
class Atlas:
    """What is known of all networks.

    Attributes
    ----------
    results : DataFrame
        A row a network and image.
    responses : DataFrame
        Of each network (the index), at each frequency.
    tiles : dict of str to Image
        The thumbnail of each.
    """

    results: pd.DataFrame
    responses: pd.DataFrame
    tiles: dict[str, Image.Image]

    def __add__(self, more: "Atlas") -> "Atlas":
        """Put further networks behind these; one that both have is taken from the first."""
        new = [label for label in more.tiles if label not in self.tiles]
        return Atlas(
            pd.concat([self.results, more.results[more.results.network.isin(new)]]),
            pd.concat([self.responses, more.responses.loc[new]]),
            self.tiles | {label: more.tiles[label] for label in new},
        )


def collected(found: Sequence[xr.Dataset]) -> Atlas:
    """Put stored units together."""
    rows, responses, tiles = [], {}, {}
    for unit in found:
        facts = {key: unit.attrs[key] for key in FACTS}
        for image in unit.image.values:
            one = unit.sel(image=image)
            numbers = {key: float(one[key]) for key in ("noisy", "peak", "kernel")}
            regrets = [float(one.regret.sel(rule=rule)) for rule in RULES]
            coverage = float(one.coverage)
            rows.append(
                {"network": facts["network"], "image": str(image)}
                | {key: value for key, value in facts.items() if key != "network"}
                | numbers
                | {"regret": regrets[0], "regret_reference": regrets[1]}
                | {"coverage": coverage, "miss": abs(coverage - LEVEL), "z_rms": float(one.z_rms)}
                | {key: int(one[key]) for key in ("iteration", "rising", "kernel_resolved")}
                | {"seconds": float(unit.attrs["seconds"])}
            )
        label = str(facts["network"])
        shown = unit.response.isel(frequency=slice(1, None))  # without the constant
        responses[label] = dict(zip(shown.frequency.values.round(4), shown.values, strict=True))
        tiles[label] = Image.fromarray(np.hstack(unit.tiles.values))
    table = pd.DataFrame.from_dict(responses, orient="index").rename_axis("network")
    return Atlas(pd.DataFrame(rows), table, tiles)


def write(atlas: Atlas, folder: Path) -> pd.DataFrame:
    """Write tables and the sheet of thumbnails; give the summary."""
    atlas.results.to_csv(folder / RESULTS, index=False, float_format="%.4g")
    atlas.responses.to_csv(folder / RESPONSES, float_format="%.3g")
    # of what the table says: a pair that is hardly told apart may be so by the digits that are cut
    summary = summarise(pd.read_csv(folder / RESULTS))
    summary.to_csv(folder / SUMMARY, index=False, float_format="%.3f")
    drawn = list(atlas.tiles.values())
    width, height = drawn[0].size
    sheet = Image.new("L", (ACROSS * width, -(-len(drawn) // ACROSS) * height))
    for i, tile in enumerate(drawn):
        sheet.paste(tile, (i % ACROSS * width, i // ACROSS * height))
    sheet.save(folder / SHEET, optimize=True)
    return summary


def read(folder: Path = HERE) -> Atlas:
    """Read what `write` has written, by default what is committed."""
    results = pd.read_csv(folder / RESULTS, keep_default_na=False, na_values=["", "nan"])
    results["options"] = results["options"].fillna("")
    responses = pd.read_csv(folder / RESPONSES, index_col="network")
    with Image.open(folder / SHEET) as sheet:
        width = sheet.width // ACROSS
        height = width // len(TILES)
        corners = [(i % ACROSS * width, i // ACROSS * height) for i in range(len(responses))]
        tiles = {
            str(label): sheet.crop((x, y, x + width, y + height))
            for label, (x, y) in zip(responses.index, corners, strict=True)
        }
    return Atlas(results, responses, tiles)


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """Give each network's means over images with intervals, and what is known of its ranks.

    Parameters
    ----------
    results : DataFrame
        A row a network and image.

    Returns
    -------
    DataFrame
        In the order of ``peak``. Of each measure: mean, ``_sd``, ``_lower``, ``_upper`` (Student's,
        95 %, the image being the unit), ``_first`` and ``_last``, between which its rank is.
    """
    by = results.groupby("network", sort=False)
    facts = by[["family", "origin", "source", "options", "parameters", "half_power", "rate"]]
    table = facts.first().assign(images=by.size(), rising=by.rising.mean())
    for measure, (more, _) in MEASURES.items():
        values = results.pivot(index="network", columns="image", values=measure).loc[table.index]
        table = table.join(spread(values.to_numpy(), table.index, measure))
        first, last = ranks(values.to_numpy() if more else -values.to_numpy())
        table[f"{measure}_first"], table[f"{measure}_last"] = first, last
    for measure in ("coverage", "regret_reference"):
        values = results.pivot(index="network", columns="image", values=measure).loc[table.index]
        table = table.join(spread(values.to_numpy(), table.index, measure))
    return table.sort_values("peak", ascending=False, kind="stable").reset_index()


def spread(values: np.ndarray, index: pd.Index, name: str) -> pd.DataFrame:
    """Give the mean over the columns, with their deviation and an interval of the mean."""
    mean, deviation, half = _student(values)
    found = {"": mean, "_sd": deviation, "_lower": mean - half, "_upper": mean + half}
    return pd.DataFrame({f"{name}{end}": each for end, each in found.items()}, index=index)


def ranks(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Say between which ranks each row may be, the highest values being first.

    Parameters
    ----------
    values : ndarray, shape (networks, images)
        On the same images: what is compared are differences image by image.

    Returns
    -------
    first, last : ndarray of int, shape (networks,)
        One more than there are networks that are surely better, and all but those that are surely
        worse: the interval of their mean difference, 95 % and for this pair alone, excludes 0.
    """
    mean, _, half = _student(values[:, None] - values[None])
    better = mean - half > 0  # [i, j]: i is surely better than j
    return 1 + better.sum(axis=0), len(values) - better.sum(axis=1)


def _student(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count, mean = values.shape[-1], values.mean(axis=-1)
    if count < 2:
        unknown = np.full(mean.shape, np.nan)
        return mean, unknown, unknown
    deviation = values.std(axis=-1, ddof=1)
    factor = student.ppf((1 + CONFIDENCE) / 2, count - 1) / np.sqrt(count)
    return mean, deviation, factor * deviation


def agreement(results: pd.DataFrame) -> Mapping[str, Any]:
    """Compare the ranking by the kernel's peak with the measured one: see `rank_agreement`."""
    tables = [results.pivot(index="image", columns="network", values=m) for m in ("kernel", "peak")]
    return rank_agreement(*(table.to_numpy() for table in tables)).attrs


def verdict(summary: pd.DataFrame) -> str:
    """Say in two sentences which network gains most, and from how many it can't be told."""
    best, images = summary.iloc[0], int(summary.images.max())
    said = (
        f"Of {len(summary)} untrained networks {best.network} gains most, {best.peak:+.1f} dB "
        f"[{best.peak_lower:+.1f}, {best.peak_upper:+.1f}] over the noisy image on {images} images"
    )
    others = int((summary.peak_first == 1).sum()) - 1
    return f"{said}; {others or 'no'} other{'s' * (others != 1)} can't be told from it."
