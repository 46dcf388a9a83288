"""What moves on the page of fingerprints: fits, curves of all cards, and the cards made small."""

import base64
import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from PIL import Image, features

from dipkernels.plotting.style import styles
from dipkernels.reports import charts
from dipkernels.reports.charts import Curve, network_lines
from dipkernels.reports.interactive import Chart, fits_fields, shared_fields
from dipkernels.reports.kernels import relative_curve, responses_chart

BYTES = 2_400_000  # of all cards of a page, as text
FRAMES = 1_500_000  # of all images of fits
# Of a card that is too large, as one: quality (100: nothing is lost), share of its pixels a side.
REDUCTIONS = ((100, 1.0), (80, 1.0), (60, 1.0), (60, 0.7), (50, 0.5), (40, 0.35), (30, 0.25))
PHOTOGRAPHS = "photographs"
SAMPLES = (
    "Spectrum of samples",
    "Mean power of images at initialisation over rings of spatial frequency, relative to the "
    "lowest ring, with bands of two standard errors. Grey: photographs of the same size.",
)
LAGS = (
    "Kernel over the lag",
    "Tangent kernel between pixels at a distance, relative to that of a pixel with itself; bands: "
    "standard deviation over pixels.",
)
SHIFTS = (
    "Shift correlation",
    "Correlation of the kernel's rows of pixels that are so many pixels apart along both axes: 1 "
    "everywhere for a stationary kernel; it returns to 1 at the patch size of a patch network.",
)
FLOWS = (
    "Predicted learning curves",
    "PSNR of gradient flow to the clean image, predicted from the kernel alone, as far as the "
    "products resolve it. One unit of time is an iteration of gradient descent at half of its "
    "largest stable rate.",
)
Cards = Mapping[str, xr.Dataset]


def cards_fields(cards: Cards, fits: Cards) -> dict[str, Any]:
    """Make the fields of all that moves, from cards and the fits behind them, if all are there."""
    looks = styles(cards)
    further = _charts(cards, looks)
    if len(fits) < len(cards) or not cards:
        return shared_fields(list(cards), looks, further, {}) | {"needs": "Curves need JavaScript."}
    peaks = {
        name: float(card.attrs["predicted_peak_psnr"])
        for name, card in cards.items()
        if card.attrs["predicted_peak_resolved"] or card.attrs.get("predicted_peak_extrapolated")
    }
    baseline = baseline_of(cards)
    return fits_fields(fits, peaks=peaks, measured=baseline, further=further, budget=FRAMES)


def baseline_of(cards: Cards) -> float | None:
    """Find the PSNR of the measured image, which all cards share, where it is one."""
    found = [float(card.attrs.get("measurement_psnr", np.nan)) for card in cards.values()]
    return found[0] if found and np.isfinite(found[0]) else None


def packed(files: Mapping[str, Path], budget: int = BYTES) -> dict[str, str]:
    """Read the pictures of cards as addresses of data, all of which fit."""
    if not features.check("webp"):
        return {name: _address(file.read_bytes(), "png") for name, file in files.items()}
    for quality, share in REDUCTIONS:
        found = {name: _webp(file, quality, share) for name, file in files.items()}
        if sum(map(len, found.values())) <= budget:
            break
    return found


def _webp(file: Path, quality: int, share: float) -> str:
    to = io.BytesIO()
    with Image.open(file) as picture:
        whole = picture.convert("RGB")
        if share < 1:
            size = (max(1, round(whole.width * share)), max(1, round(whole.height * share)))
            whole = whole.resize(size, Image.Resampling.LANCZOS)
        whole.save(to, format="WEBP", lossless=quality == 100, quality=min(quality, 80))
    return _address(to.getvalue(), "webp")


def _address(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _charts(cards: Cards, looks: charts.Looks) -> list[Chart]:
    found = [responses_chart(cards, looks)]
    grey = {"color": "#888888", "ls": "--"}
    log = {"x_axis_type": "log", "y_axis_type": "log"}
    spectra = {
        name: relative_curve(card.frequency, card.sample_power, card.sample_power_standard_error)
        for name, card in cards.items()
    }
    first = next(iter(cards.values()))
    if "natural_power" in first:
        spectra[PHOTOGRAPHS] = relative_curve(first.frequency, first.natural_power, None)
    ways = {**looks, PHOTOGRAPHS: grey}
    words = ("spatial frequency (cycles per pixel)", "power / lowest ring")
    found.append(("chart-samples", SAMPLES, partial(_spectra, spectra, ways, words, log)))
    lags, shifts = {}, {}
    for name, card in cards.items():
        middle, spread = card.ntk_profile.values, card.ntk_profile_spread.values
        lags[name] = Curve(card.radius.values, middle, middle - spread, middle + spread)
        shifts[name] = Curve(card["shift"].values, card.shift_correlation.values)
    words = ("lag (pixels)", "kernel / that at lag 0")
    found.append(("chart-lags", LAGS, partial(network_lines, lags, looks, *words)))
    words = ("shift (pixels along both axes)", "correlation of rows")
    found.append(("chart-shifts", SHIFTS, partial(network_lines, shifts, looks, *words)))
    flows = {name: _flow(card) for name, card in cards.items()}
    words = ("time x largest eigenvalue", "predicted PSNR (dB)")
    draw = partial(network_lines, flows, looks, *words, x_axis_type="log")
    return [*found, ("chart-predicted", FLOWS, draw)]


def _spectra(
    curves: Mapping[str, Curve],
    looks: charts.Looks,
    words: tuple[str, str],
    axes: Mapping[str, Any],
) -> Any:
    plot = network_lines(curves, looks, *words, **axes)
    charts.frequency_ticks(plot)
    return plot


def _flow(card: xr.Dataset) -> Curve:
    shown = (card.predicted_resolved.values > 0) & (card.time.values > 0)
    names = ("predicted_psnr", "predicted_psnr_lower", "predicted_psnr_upper")
    return Curve(card.time.values[shown], *(card[name].values[shown] for name in names))
