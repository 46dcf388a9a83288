"""The gallery: cards of many priors side by side in one self-contained HTML file."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import xarray as xr

from dipkernels import fingerprints, plotting
from dipkernels.base.checks import checked
from dipkernels.base.origin import digest, provenance
from dipkernels.base.seeds import as_seeds
from dipkernels.base.spread import spread_note
from dipkernels.fingerprints import FingerprintEffort
from dipkernels.fingerprints.rows import neighbourhood
from dipkernels.networks import ImagePrior
from dipkernels.plotting.style import save_figures
from dipkernels.reports.cards import baseline_of, cards_fields, packed
from dipkernels.reports.citing import reopening
from dipkernels.reports.interactive import head_of
from dipkernels.reports.pages import picture_words, write_page
from dipkernels.reports.table import PARAMETERS, PRIOR, Column, csv_table, plain, still_rising
from dipkernels.reports.verdicts import above
from dipkernels.storage.netcdf import save, write_text
from dipkernels.storage.runs import RunFolder
from dipkernels.tasks import Task

CARD, FIT = "card", "adam"  # of the stored results, below the prior's name
PAGE, TABLE = "index.html", "summary.csv"
_REOPENED = """print(run.table())  # the numbers of the table, as a pandas.DataFrame
cards = {name: card for name, card in run.stages.items() if name.endswith("/card")}"""


@checked
def gallery_settings(
    task: Task, effort: FingerprintEffort, *, image: str, seed: int = 0, device: str = "cpu"
) -> dict[str, object]:
    """Describe what the cards of a folder have in common, to tell whether another may join them.

    Parameters
    ----------
    task : Task
        What is fitted.
    effort : FingerprintEffort
        How much is spent on each.
    image : str
        Its name, for titles.
    seed : int
        Of initialisation and probes.
    device : str
        That computes.

    Returns
    -------
    dict
        Fit for `dipkernels.storage.RunFolder.open`. The priors aren't in it: cards are added to a
        folder by another call.

    Raises
    ------
    InvalidInputError
        If no card can be made with them: a folder would be bound to what can't be done.
    """
    as_seeds(seed)
    neighbourhood(task.shape[1:], effort.positions, seed)
    return {
        "command": "fingerprint",
        "image": image,
        "shape": list(task.shape),
        "task": task.name,
        "noise_sigma": task.noise_sigma,
        "measurement_sha256": digest(task.measurement),
        "effort": asdict(effort),
        "seed": seed,
        "device": device,
        "version": provenance("cpu")["version_dipkernels"],
    }


@checked
def stored_card(
    folder: RunFolder,
    name: str,
    prior: ImagePrior,
    task: Task,
    effort: FingerprintEffort,
    *,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Return the card of a prior, made and kept if the folder doesn't hold it.

    Parameters
    ----------
    folder : RunFolder
        With the settings of `gallery_settings`.
    name : str
        Of the card.
    prior, task, effort, seed, progress
        As of `dipkernels.fingerprints.fingerprint`.

    Returns
    -------
    xarray.Dataset
        ``NAME/card.nc``.
    """
    stored = folder.stored(f"{name}/{CARD}")
    if stored is not None:
        return stored
    card = fingerprints.fingerprint(
        prior, task, seed=seed, effort=effort, folder=folder, name=name, progress=progress
    )
    save(card, folder.file(f"{name}/{CARD}"))
    return card


@checked
def gallery_page(
    folder: RunFolder, names: Sequence[str] | None = None, *, formats: Sequence[str] = ("png",)
) -> Path:
    """Draw the cards of a folder and write its table and page.

    Parameters
    ----------
    folder : RunFolder
        That holds ``NAME/card.nc`` of each prior, from `dipkernels.fingerprints.fingerprint`.
    names : sequence of str, optional
        Which, in this order; cards of others that the folder holds follow by name.
    formats : sequence of str
        Of the cards' figures beside the page, which holds PNG: ``"pdf"``, ``"svg"``.

    Returns
    -------
    Path
        Of ``index.html``, of at most 6 MB, which works without a network and without the other
        files: a table that is sorted by a click on a column's head, a slider through the fits of
        two networks side by side, curves of all, and all cards, made smaller where they are many.
        Beside it are ``summary.csv`` and ``NAME.png``; figures that are newer than their card are
        kept.
    """
    found = sorted(path.parent.name for path in folder.path.glob(f"*/{CARD}.nc"))
    order = [name for name in names or () if name in found]
    order += [name for name in found if name not in order]
    cards = {name: folder.stored(f"{name}/{CARD}") for name in order}
    drawn = {name: card for name, card in cards.items() if card is not None}
    fits = {name: folder.stored(f"{name}/{FIT}") for name in drawn}
    rows = [fingerprints.fingerprint_row(card) for card in drawn.values()]
    write_text(csv_table(rows), folder.path / TABLE)
    files = {name: _picture(folder, name, card, formats) for name, card in drawn.items()}
    baseline = baseline_of(drawn)
    peaks: list[Any] = [row["peak_psnr"] for row in rows]
    return write_page(
        folder,
        PAGE,
        "gallery",
        title=f"fingerprints of {len(rows)} priors",
        verdict=_verdict(rows, baseline),
        sound=baseline is None or any(peak > baseline for peak in peaks),
        question=f"Fingerprints of {len(rows)} image prior{'' if len(rows) == 1 else 's'}",
        lead=_lead(folder.settings or {}),
        baseline=None if baseline is None else f"The measured image itself: {baseline:.2f} dB.",
        columns=head_of(_COLUMNS),
        rows=[{"cells": _line(row)} for row in rows],
        notes=[f"{spread_note()} Numbers after +- are standard errors of the measurement."],
        pictures=packed(files),
        python=reopening(folder.path, _REOPENED),
        figures=[],
        **cards_fields(drawn, {name: fit for name, fit in fits.items() if fit is not None}),
    )


def _lead(asked: dict[str, Any]) -> str:
    words = picture_words(
        asked["shape"],
        task=asked["task"],
        image=asked["image"],
        noise_sigma=asked["noise_sigma"],
    )
    return (
        f"Samples and kernel at initialisation, and fits, on the same axes. {words}, seed "
        f"{asked['seed']}, on {asked['device']}. Click a column head to sort table and cards; "
        "click a card to enlarge it."
    )


# The extremes, which the table sorts by.
def _verdict(rows: Sequence[dict[str, Any]], baseline: float | None) -> str:
    known = [row for row in rows if math.isfinite(row.get("peak_psnr", math.nan))]
    if not known:
        return f"{len(rows)} fingerprints; no fit among them has a score."
    best = max(known, key=lambda row: row["peak_psnr"])
    top = best["peak_psnr"]
    said = f"{best['prior']} comes nearest to the clean image: {top:.1f} dB{above(top, baseline)}"
    return f"{said}, at iteration {best['peak_iteration']} (one seed: no spread)."


def _picture(folder: RunFolder, name: str, card: xr.Dataset, formats: Sequence[str]) -> Path:
    made = folder.file(f"{name}/{CARD}").stat().st_mtime
    files = {each: folder.path / f"{name}.{each}" for each in ("png", *formats)}
    old = [k for k, file in files.items() if not file.exists() or file.stat().st_mtime < made]
    if old:
        save_figures(plotting.plot_fingerprint(card), folder.path / name, old)
    return files["png"]


# Text and number of each cell; what isn't a finite number sorts last.
def _line(row: dict[str, Any]) -> list[dict[str, str]]:
    cells = []
    for column in _COLUMNS:
        value = row.get(column.key)
        number = str(value) if isinstance(value, str) else ""
        if isinstance(value, int | float) and math.isfinite(value):
            number = repr(float(value))
        text = column.cell(row) if number else "-"
        cells.append({"text": text, "sort": number})
    return cells


def _predicted(row: dict[str, Any]) -> str:
    about = "~ " if row.get("predicted_peak_extrapolated") else "> "
    sign = "" if row["predicted_peak_resolved"] else about
    return f"{sign}{row['predicted_peak_psnr']:.1f}"


def _measured(row: dict[str, Any]) -> str:
    mark = "+" if still_rising(row) else ""
    return f"{row['peak_psnr']:.1f} @ {row['peak_iteration']}{mark}"


_COLUMNS: Sequence[Column] = (
    PRIOR,
    PARAMETERS,
    plain(
        "half-power c/px",
        "half_power_frequency",
        ".3f",
        "Where the tangent kernel's response has fallen to half of its lowest ring; - if it "
        "doesn't. Low: a low-pass filter.",
    ),
    plain(
        "roll-off",
        "sample_roll_off",
        ".1f",
        "Exponent of the fall of the samples' power; photographs have about 2.",
    ),
    Column(
        "comb",
        "comb",
        lambda row: f"{row['comb']:.2f} ({row['comb_period']} px)",
        "The kernel's response on the harmonics of a grid over that beside them, the largest of "
        "periods 2, 4 and 8; 1 without a grid.",
    ),
    Column(
        "shift variance",
        "shift_variance",
        lambda row: f"{row['shift_variance']:.2f} +- {row['shift_variance_standard_error']:.2f}",
        "How much of a kernel's row changes when its pixel moves; 0 for a stationary kernel.",
    ),
    plain(
        "diagonal varies",
        "diagonal_variation",
        ".0%",
        "Standard deviation of the kernel's diagonal over pixels, relative to its mean.",
    ),
    Column(
        "predicted dB",
        "predicted_peak_psnr",
        _predicted,
        "Peak of gradient flow, from the kernel alone; > marks a lower bound: too few "
        "matrix-vector products to resolve the peak.",
    ),
    Column(
        "Adam dB @ it.",
        "peak_psnr",
        _measured,
        "Highest PSNR to the clean image; + if it was still rising at the end.",
    ),
    plain(
        "GD: predicted - measured dB",
        "descent_error",
        "+.2f",
        "At the last iteration of gradient descent.",
    ),
    plain(
        "to infinite width",
        "limit_distance",
        ".2f",
        "Root mean square between the tangent kernel over the lag, relative to lag 0, and that of "
        "the infinitely wide network; - where the network can't be read.",
    ),
    plain("s", "seconds", ".0f", "All parts together."),
)
