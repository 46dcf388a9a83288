"""The page of the atlas: a verdict, a table that sorts and filters, and a card a network."""

import base64
import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from dipkernels.reports.interactive import cells_of, head_of
from dipkernels.reports.pages import write_page
from dipkernels.reports.table import PARAMETERS, Column, Row
from dipkernels.storage import RunFolder
from experiments.atlas.measure import LEVEL, TILES, Preset
from experiments.atlas.plan import Network, planned
from experiments.atlas.report import HERE, PAGE, Atlas, agreement, read, summarise, verdict
from experiments.harness import settings

WIDTH, HEIGHT, DECADES = 96, 32, 4  # of the curve on a card; its lowest power is 1e-4
PYTHON = """import pandas as pd

atlas = pd.read_csv("experiments/atlas/summary.csv")
atlas[atlas.peak_first == 1]  # which may be the best

# Your own network beside these, in a minute; nets.py holds its factory:
# python experiments/atlas/run.py --network nets.py:MyNet"""


def _interval(key: str, digits: int, sign: str = "+") -> Any:
    pattern = f"{sign}.{digits}f"

    def cell(row: Row) -> str:
        value, low, high = (float(str(row[f"{key}{end}"])) for end in ("", "_lower", "_upper"))
        if not math.isfinite(value):
            return "-"
        known = math.isfinite(low)
        ends = f" [{low:{pattern}}, {high:{pattern}}]" if known else " [no interval]"
        return f"{value:{pattern}}{ends}"

    return cell


def _rank(key: str) -> Any:
    def cell(row: Row) -> str:
        first, last = row[f"{key}_first"], row[f"{key}_last"]
        return f"{first}" if first == last else f"{first} to {last}"

    return cell


# Title, key by which it sorts, text, meaning; what can be filtered by is said apart.
COLUMNS = (
    Column("network", "network", lambda row: str(row["network"]), "Its label in the plan."),
    Column("family", "family", lambda row: str(row["family"]), "Kind of network."),
    Column("from", "origin", lambda row: str(row["origin"]), "Its library."),
    PARAMETERS,
    Column(
        "Adam's peak, dB",
        "peak",
        _interval("peak", 1),
        "PSNR of the best image of a fit minus that of the noisy image, chosen by the clean image "
        "(an oracle); mean over images with an interval of 95 %.",
    ),
    Column(
        "rank by peak",
        "peak_first",
        _rank("peak"),
        "The range of its rank: networks count as better or worse where an interval of 95 % "
        "of the difference, image by image, excludes 0. Each pair is judged by itself: of the "
        "pairs of equal networks, about one in twenty is distinguished by chance.",
    ),
    Column(
        "kernel's peak, dB",
        "kernel",
        _interval("kernel", 1),
        "The same for gradient flow of the network linearised at its initialisation, computed "
        "from its tangent kernel without a fit.",
    ),
    Column(
        "regret, dB",
        "regret",
        _interval("regret", 1, ""),
        "How much the discrepancy principle loses against the best image of the fit: it stops at "
        "the noise's level, which it knows, and needs no clean image.",
    ),
    Column(
        "regret, noise unknown",
        "regret_reference",
        _interval("regret_reference", 1, ""),
        "The same for the pseudo-reference, which needs neither; it looks at the whole fit.",
    ),
    Column(
        "coverage of 90 %",
        "coverage",
        _interval("coverage", 2, ""),
        "Share of pixels that nominal 90 % intervals contain: those of the exact posterior of the "
        "network linearised at its initialisation, with the weights' initialisation as prior and "
        "the noise's level known.",
    ),
    Column(
        "rank by coverage",
        "miss",
        _rank("miss"),
        f"By the distance of the coverage from {LEVEL:g}; as the rank by Adam's peak.",
    ),
)
FACETS = ("family", "origin")


def write_atlas(
    atlas: Atlas, folder: Path, chosen: Preset, *, missing: Mapping[str, str] | None = None
) -> Path:
    """Write the page of an atlas.

    Parameters
    ----------
    atlas : Atlas
        All that is known.
    folder : Path
        Where ``index.html`` is to lie; with a run's record, if it is one.
    chosen : Preset
        Sizes, for the text.
    missing : mapping of str to str, optional
        Networks that aren't there, and why.

    Returns
    -------
    Path
        Of the page, which needs nothing else.
    """
    run, gone = RunFolder(folder), dict(missing or {})
    summary = summarise(atlas.results)
    rows: list[Row] = summary.to_dict(orient="records")
    told = agreement(atlas.results) if len(rows) >= 3 else {}
    return write_page(
        run,
        PAGE,
        "atlas",
        templates=[HERE],
        record=run.record or {"settings": {"experiment": "atlas", **dataclasses.asdict(chosen)}},
        title=f"atlas of {len(rows)} untrained networks",
        verdict=verdict(summary),
        sound=True,
        chosen=chosen,
        told=told,
        missing={why: [label for label in gone if gone[label] == why] for why in gone.values()},
        columns=[
            {**head, "words": column.key in FACETS, "facet": column.key in FACETS}
            for head, column in zip(head_of(COLUMNS), COLUMNS, strict=True)
        ],
        rows=[{"cells": cells_of(COLUMNS, row)} for row in rows],
        cards=[card(row, atlas) for row in rows],
        python=PYTHON,
    )  # fmt: skip


def committed_page(folder: Path) -> Path:
    """Write the page of the tables that lie beside this file: for the documentation."""
    atlas, chosen = read(), settings(str(HERE / "run.py"), "cpu", Preset)
    return write_atlas(atlas, folder, chosen, missing=missing_of(planned(), atlas, {}))


def missing_of(plan: Sequence[Network], atlas: Atlas, failed: Mapping[str, str]) -> dict[str, str]:
    """Say which networks of the plan aren't in the atlas, and why."""
    return {
        network.label: failed.get(
            network.label,
            "not measured yet" if network.is_there else f"because {network.needs} is not installed",
        )
        for network in plan
        if network.label not in atlas.tiles
    }


def card(row: Row, atlas: Atlas) -> dict[str, Any]:
    """Lay out one network: its pictures, its curve, its numbers."""
    label = str(row["network"])
    options = f" ({row['options']})" if row["options"] else ""
    return {
        "label": label,
        "source": f"{row['source']}{options}",
        "picture": picture(atlas.tiles[label]),
        "curve": curve(atlas.responses.loc[label]),
        "numbers": [
            ("Adam", _interval("peak", 1)(row)),
            ("kernel", _interval("kernel", 1)(row)),
            ("regret", _interval("regret", 1, "")(row)),
            ("coverage", _interval("coverage", 2, "")(row)),
        ],
    }


def picture(tile: Image.Image) -> str:
    """Encode a thumbnail for the page, its parts a pixel apart."""
    side, count = tile.height, len(TILES)
    apart = Image.new("LA", (count * (side + 1) - 1, side))
    for i in range(count):
        part = tile.crop((i * side, 0, (i + 1) * side, side))
        apart.paste(part.convert("LA"), (i * (side + 1), 0))
    file = io.BytesIO()
    apart.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode("ascii")


def curve(response: "pd.Series[float]") -> str:
    """Draw a response as a path of SVG: logarithmic in both, relative to the lowest ring."""
    found = response.dropna()
    frequency, power = np.asarray(found.index, dtype=float), found.to_numpy()
    x = np.log(frequency / frequency[0]) / math.log(frequency[-1] / frequency[0]) * WIDTH
    fall = np.log10(np.maximum(power / power[0], 10.0**-DECADES)).clip(max=1)
    y = (1 - fall) / (DECADES + 1) * HEIGHT  # a decade above the lowest ring has room
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
