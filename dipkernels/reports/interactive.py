"""What pages share: images side by side, of which a slider moves some, and curves with a mark."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from dipkernels import networks
from dipkernels.fitting import peak
from dipkernels.plotting.style import styles
from dipkernels.reports import charts
from dipkernels.reports.frames import (
    BYTES,
    Frames,
    Sheets,
    error_power,
    first_run,
    frames_of,
    references_of,
    sheets,
)
from dipkernels.reports.table import Column, Row

if TYPE_CHECKING:
    from bokeh.plotting import figure

Datasets = Mapping[str, xr.Dataset]
PARTS = (
    ("image", "image"),
    ("measured", "minus measured"),
    ("clean", "minus clean"),
)
REFERENCES = {"clean": "clean image", "measured": "measured image"}
CURVES = (
    "PSNR at every iteration",
    "Solid: to the clean image. Dashed: to the measured one. Dotted: the peak that the kernel at "
    "initialisation predicts. Grey: the measured image itself. The dashed upright line is the "
    "iteration of the slider.",
)
POWER = (
    "Error by spatial frequency",
    "At the iteration of the slider: how much of the {} is left at each spatial frequency, "
    "averaged over rings. Dashed grey: the measured image. Images in 8 bits can't show less than "
    "1e-6.",
)
Chart = tuple[str, tuple[str, str], Callable[[], "figure"]]


def fits_fields(
    fits: Datasets,
    *,
    peaks: Mapping[str, float] | None = None,
    measured: float | None = None,
    further: Sequence[Chart] = (),
    budget: int = BYTES,
) -> dict[str, Any]:
    """Make the fields of the template for what moves, from results of `dipkernels.fit` by name."""
    looks = styles(fits)
    known = references_of(next(iter(fits.values())))
    best = sorted(fits, key=lambda name: -_highest(fits[name]))  # of equal ones the first
    sides = [*best, *(name for name in REFERENCES if name in known)]
    found = sheets({name: frames_of(fit) for name, fit in fits.items()}, known, budget)
    power, noise, radii = powers(found.kept, known)
    drawn: list[Chart] = [
        ("chart-psnr", CURVES, lambda: charts.learning_chart(fits, looks, peaks or {}, measured))
    ]
    if radii is not None:
        drawn.append(power_chart(radii, power, looks, noise, clean="clean" in known))
    drawn += further
    return {
        **panes_fields(
            found,
            list(fits),
            looks,
            drawn,
            word="iteration",
            said=lambda name, frames: _scores(first_run(fits[name]), frames),
            chosen=[sides[0], sides[1] if len(sides) > 1 else sides[0]],
            titles={name: text for name, text in REFERENCES.items() if name in known},
            notes={"measured": "" if measured is None else f"{measured:.2f} dB to clean"},
            power=power,
            scale=scale_of(known),
            start=_start(fits[best[0]]),
            offset=1,
        ),
        "moving": "Through the iterations",
        "needs": "This part needs JavaScript: images through the iterations, with curves.",
        "frames_note": _note(fits, found.kept, known, found.block),
        "sources": _sources(fits),
    }


def panes_fields(
    found: Sheets,
    names: Sequence[str],
    looks: charts.Looks,
    drawn: Sequence[Chart],
    *,
    word: str,
    said: Callable[[str, Frames], list[str]],
    chosen: Sequence[str],
    titles: Mapping[str, str] | None = None,
    notes: Mapping[str, str] | None = None,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    parts: Sequence[tuple[str, str]] = PARTS,
    power: Mapping[str, np.ndarray] | None = None,
    **how: Any,
) -> dict[str, Any]:
    """Make the fields of images side by side, of which a slider moves those that have frames.

    ``word`` is what the slider goes through, ``said`` what stands over a frame. ``titles`` are of
    the images beside them that can be chosen, ``notes`` what stands over these, ``ranges`` black
    and white of those that are maps. ``how`` is data of the script: ``scale``, ``start``, ...
    """  # noqa: DOC201
    data = {
        "networks": {
            name: {
                "positions": frames.iterations,
                "said": said(name, frames),
                "frames": found.frames[name],
                "power": _rounded((power or {}).get(name)),
            }
            for name, frames in found.kept.items()
        },
        "references": found.beside,
        "ranges": dict(ranges or {}),
        "said": dict(notes or {}),
        "block": found.block,
        "signal": found.signal,
        "word": word,
        **{"scale": 1.0, "start": 0, "offset": 0, **how},
    }
    return {
        **shared_fields(names, looks, drawn, data),
        "word": word,
        "choices": [*((name, name) for name in found.kept), *(titles or {}).items()],
        "chosen": dict(zip(("left", "right", "third", "fourth"), chosen, strict=False)),
        "parts": [(part, text) for part, text in parts if part == "image" or part in found.beside],
    }


def shared_fields(
    names: Sequence[str], looks: charts.Looks, drawn: Sequence[Chart], data: dict[str, Any]
) -> dict[str, Any]:
    """Make the fields of all that has charts, of networks that are toggled."""
    return {
        "data": data | {"charts": {name: charts.as_json(make()) for name, _, make in drawn}},
        "names": names,
        "colours": {name: looks[name]["color"] for name in names},
        "dashed": [name for name in names if looks[name]["ls"] != "-"],
        "charts": [(name, *words) for name, words, _ in drawn],
    }


def cells_of(columns: Sequence[Column], row: Row) -> list[dict[str, object]]:
    """Lay out a row: texts, and what they sort by."""
    return [{"text": column.cell(row), "sort": row.get(column.key, "")} for column in columns]


def head_of(columns: Sequence[Column]) -> list[dict[str, object]]:
    """Say what the columns are."""
    return [{"title": each.title, "meaning": each.meaning, "words": False} for each in columns]


def power_chart(
    radii: np.ndarray,
    power: Mapping[str, np.ndarray],
    looks: charts.Looks,
    noise: np.ndarray | None,
    *,
    clean: bool,
    words: tuple[str, str] = POWER,
) -> Chart:
    """Make the chart of errors by frequency, which the slider moves."""
    text = words[1].format("error" if clean else "residual")
    draw = partial(charts.frequency_chart, radii, power, looks, noise)
    return "chart-power", (words[0], text), draw


def powers(
    kept: Mapping[str, Frames], known: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray | None, np.ndarray | None]:
    """Find the power of errors by frequency: of frames by name, of the measured image, radii."""
    reference = known.get("clean", known.get("measured"))
    if reference is None:
        return {}, None, None
    found = {name: error_power(frames, reference) for name, frames in kept.items()}
    if any(each is None for each in found.values()):
        return {}, None, None
    power = {name: each[1] for name, each in found.items() if each is not None}
    radii = next(each[0] for each in found.values() if each is not None)
    noise = None
    if {"clean", "measured"} <= known.keys() and "mask" not in known:  # holes have no noise
        beside = error_power(Frames([0], known["measured"][None]), known["clean"])
        noise = None if beside is None else beside[1][0]
    return power, noise, radii


def _rounded(power: np.ndarray | None) -> list[list[float]]:
    return [] if power is None else [[float(f"{x:.3g}") for x in row] for row in power]


def _scores(one: xr.Dataset, frames: Frames) -> list[str]:
    at = one.isel(iteration=frames.iterations)
    noisy, clean = at.psnr_noisy.values, [np.nan] * len(frames.iterations)
    if "psnr_clean" in one:
        clean = at.psnr_clean.sel(region=one.score_region).values
    return [
        f"{_decibels(c)} to clean, " * ("psnr_clean" in one) + f"{_decibels(n)} to measured"
        for c, n in zip(clean, noisy, strict=True)
    ]


def _decibels(value: float) -> str:
    return f"{value:.2f} dB" if np.isfinite(value) else "unknown"


def scale_of(known: Mapping[str, np.ndarray]) -> float:
    """Choose where differences end in white or black: beyond nearly all of the noise."""
    if not {"clean", "measured"} <= known.keys() or "mask" in known:
        return 0.25
    error = np.abs(known["measured"] - known["clean"])
    return max(0.05, round(float(np.quantile(error, 0.995)), 2)) if error.size else 0.25


# Where there is no clean image, all are alike.
def _highest(fit: xr.Dataset) -> float:
    found = peak(fit).psnr if "psnr_clean" in fit else 0.0
    return found if np.isfinite(found) else -np.inf


def _start(fit: xr.Dataset) -> int:
    if "psnr_clean" in fit and np.isfinite(first_run(fit).peak_psnr):
        return int(first_run(fit).peak_iteration)
    return int(fit.sizes["iteration"]) - 1


def _note(
    fits: Datasets, kept: Mapping[str, Frames], known: Mapping[str, np.ndarray], block: int
) -> str:
    said = [
        f"At most {max(len(frames.iterations) for frames in kept.values())} images of each fit "
        "are here, in 8 bits, evenly spread over the logarithm of iterations; what is shown is the "
        "last of them up to the iteration of the slider, which arrow keys move, too."
    ]
    said += drawing_words(known, block)
    if any("seed" in fit.dims and fit.sizes["seed"] > 1 for fit in fits.values()):
        said.append(
            "Images are of the first seed; curves are means, in bands from lowest to highest."
        )
    if any("image" in fit.dims for fit in fits.values()):
        said.append("Of several images that were fitted together the first is shown.")
    return " ".join(said)


def drawing_words(known: Mapping[str, np.ndarray], block: int) -> list[str]:
    """Say how differences are drawn, and which pixels were averaged."""
    said = []
    if "measured" in known or "clean" in known:
        said.append(
            f"In differences, grey is 0, white {scale_of(known):g} or more, black its negative."
        )
    if block > 1:
        said.append(f"To keep this page small, {block}x{block} pixels are averaged.")
    return said


def _sources(fits: Datasets) -> list[tuple[str, str]]:
    registered = networks.names()
    return [(name, networks.entry(name).source) for name in fits if name in registered]
