"""The panels of a fingerprint card, each on axes that are the same for all priors."""

import math
import re
import textwrap
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from dipkernels.plotting.style import MEASURED, PALETTE, THEORY, band, draw_pixels, middle_slices
from dipkernels.plotting.style import NOISY as SECOND

PHOTOGRAPHS = "#9AA3AD"
INK, SOFT, LINE = "#1c2530", "#5b6775", "#d9dfe5"

# The same on every card, so that two of them can be laid side by side.
FREQUENCIES = (1 / 80, 0.75)
POWERS = (1e-6, 1e4)
RESPONSES = (1e-4, 1e4)
PSNRS = (3.0, 30.0)
ITERATIONS = (1.0, 1e6)
PROFILES = (-0.5, 1.08)
CORRELATIONS = (-0.15, 1.08)


def number(value: float, pattern: str) -> str:
    """Write a number that may not be there."""
    return format(value, pattern) if math.isfinite(value) else "-"


def draw_samples(figure: Figure, place: Any, card: xr.Dataset) -> None:
    """Draw four samples, the measured image and the best one of the fit."""
    inner = place.subgridspec(2, 3, wspace=0.06, hspace=0.08)
    samples = card.samples.values.astype(float)
    shown = [(_stretched(each), (i // 2, i % 2)) for i, each in enumerate(samples)]
    shown += [(card.measurement.values, (0, 2)), (card.best.values, (1, 2))]
    for picture, at in shown:
        axes = figure.add_subplot(inner[at])
        if picture.ndim == 2:
            axes.plot(picture.T, lw=0.6, color=MEASURED)
            axes.set_ylim(-0.1, 1.1)
        else:
            draw_pixels(axes, np.nan_to_num(picture), aspect="auto")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        if at == (0, 0):
            axes.set_title("samples", loc="left", fontsize=9, fontweight="bold", pad=5)
        if at == (0, 2):
            axes.set_title("noisy", loc="center", fontsize=8, color=SOFT, pad=5)
        if at == (1, 0):
            axes.set_xlabel(f"std {card.attrs['sample_deviation']:.2g}, stretched", fontsize=7.5)
            axes.xaxis.set_label_coords(1.0, -0.06)
        if at == (1, 2):
            axes.set_xlabel("best fit", fontsize=8)
            axes.xaxis.set_label_coords(0.5, -0.06)


def _stretched(image: np.ndarray) -> np.ndarray:
    axes = tuple(range(1, image.ndim))
    middle = image.mean(axis=axes, keepdims=True)
    deviation = image.std(axis=axes, keepdims=True).mean()
    return np.asarray(0.5 + (image - middle) / (6 * max(deviation, 1e-12)))


def draw_filter(axes: Axes, card: xr.Dataset) -> None:
    """Draw the kernel's row at the central pixel."""
    row = card["filter"].values
    row = row - card.attrs["filter_constant"]
    row = row / max(np.abs(row).max(), 1e-30)
    if row.ndim == 1:
        axes.plot(np.arange(len(row)) - card.attrs["filter_pixel"], row, color=MEASURED, lw=1.2)
        axes.set(ylim=(-1.05, 1.1), xlabel="pixel from the centre")
        return
    row = middle_slices(row, np.nan) if row.ndim == 3 else row
    drawn = axes.imshow(
        np.sign(row) * np.sqrt(np.abs(row)),
        cmap="RdBu_r",
        vmin=-1,
        vmax=1,
        interpolation="nearest",
    )
    axes.set_anchor("W")
    axes.set(xticks=[], yticks=[])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    bar = axes.inset_axes((1.03, 0.0, 0.035, 1.0))
    axes.figure.colorbar(drawn, cax=bar)
    ticks = [-1, -0.25, 0, 0.25, 1]
    bar.yaxis.set_major_locator(FixedLocator([math.copysign(abs(t) ** 0.5, t) for t in ticks]))
    bar.set_yticklabels(["-1", "-\u00bc", "0", "\u00bc", "1"], fontsize=7)
    bar.tick_params(length=2)
    bar.spines[:].set_visible(False)
    axes.set_xlabel(
        f"constant part taken off: {100 * float(card.attrs['filter_constant']):.0f} %",
        fontsize=7.5,
        labelpad=4,
    )


def draw_spectrum(axes: Axes, card: xr.Dataset) -> None:
    """Draw the power of samples, and that of photographs."""
    if "natural_power" in card:
        _relative(axes, card.frequency, card.natural_power, None, POWERS,
                  color=PHOTOGRAPHS, label="photographs", ls="--", lw=1.2)  # fmt: skip
    _relative(axes, card.frequency, card.sample_power, card.sample_power_standard_error, POWERS,
              color=MEASURED, label="samples")  # fmt: skip
    _frequencies(axes, POWERS)
    axes.set_ylabel("power / lowest ring", labelpad=1)
    fall = card.attrs["sample_roll_off"]
    if math.isfinite(fall):
        error = card.attrs["sample_roll_off_standard_error"]
        axes.text(0.04, 0.20, f"$f^{{\\,{-fall:+.2f} \\pm {error:.2f}}}$", transform=axes.transAxes,
                  color=MEASURED, fontsize=9)  # fmt: skip
    axes.legend(loc="lower left", handlelength=1.6, borderaxespad=0.2, labelspacing=0.25,
                ncols=2, columnspacing=1.0)  # fmt: skip


def draw_response(axes: Axes, card: xr.Dataset) -> None:
    """Draw the kernel's response at every frequency."""
    _relative(axes, card.frequency, card.response, card.response_standard_error, RESPONSES,
              color=MEASURED, label="measured")  # fmt: skip
    _frequencies(axes, RESPONSES)
    axes.axhline(0.5, color=SOFT, lw=0.8, ls=":")
    half = card.attrs["half_power_frequency"]
    if math.isfinite(half):
        axes.plot(half, 0.5, "o", mfc="white", mec=MEASURED, ms=5.5, mew=1.3, zorder=4)
    axes.set_ylabel("response / lowest ring", labelpad=1)
    if "axes_over_diagonals" in card:
        last = card.isel(octave=-1)
        axes.text(
            0.04, 0.05,
            f"axes / diagonals at {float(last.octave_frequency):.2f}: "
            f"{float(last.axes_over_diagonals):.2f} "
            f"± {float(last.axes_over_diagonals_standard_error):.2f}",
            transform=axes.transAxes, fontsize=7.5, color=SOFT,
        )  # fmt: skip


def _relative(
    axes: Axes,
    frequency: xr.DataArray,
    values: xr.DataArray,
    errors: xr.DataArray | None,
    limits: tuple[float, float],
    **style: Any,
) -> None:
    varying = frequency.values > 0
    x, y = frequency.values[varying], values.values[varying]
    scale = y[0] if y[0] > 0 else 1.0
    y = np.maximum(y / scale, 1e-30)
    axes.plot(x, y, **style)
    if errors is not None:
        error = 2 * np.nan_to_num(errors.values[varying]) / scale
        band(axes, x, np.maximum(y - error, 1e-30), y + error, style["color"], 0.18)
    for beyond, edge, marker in (
        (y < limits[0], limits[0] * 1.8, "v"),
        (y > limits[1], limits[1] / 1.8, "^"),
    ):
        if beyond.any():  # it goes on outside of the panel
            first = x[int(np.argmax(beyond))]
            axes.plot(first, edge, marker=marker, ms=4, color=style["color"], ls="")


def _frequencies(axes: Axes, limits: tuple[float, float]) -> None:
    axes.set(xscale="log", yscale="log", xlim=FREQUENCIES, ylim=limits)
    axes.yaxis.set_minor_locator(NullLocator())
    _frequency_ticks(axes)


def _frequency_ticks(axes: Axes) -> None:
    axes.xaxis.set_major_locator(FixedLocator([1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda f, _: f"1/{round(1 / f)}"))
    axes.set_xlabel("frequency (cycles/pixel)", labelpad=2)


def draw_layers(axes: Axes, card: xr.Dataset) -> None:
    """Draw which share of the response is due to which group of layers."""
    varying = card.frequency.values > 0
    x = card.frequency.values[varying]
    parts = card.layer_response.values[:, varying]
    shares = parts / np.maximum(parts.sum(axis=0), 1e-300)
    names = [_short(name) for name in _without_shared_part([*map(str, card.layer_group.values)])]
    # from the code (light) to the image (dark)
    shades = mpl.colormaps["YlGnBu"](np.linspace(0.18, 0.95, max(2, len(names))))
    axes.stackplot(x, shares, colors=shades[: len(names)], lw=0.3, edgecolor="white", labels=names)
    axes.set(xscale="log", xlim=(x[0], x[-1]), ylim=(0, 1))
    axes.set_ylabel("share of the response", labelpad=1)
    axes.grid(False)
    _frequency_ticks(axes)
    box = axes.get_position()
    axes.set_position((box.x0, box.y0, 0.66 * box.width, box.height))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5),
                handlelength=0.8, handleheight=0.8, labelspacing=0.6, borderaxespad=0.4,
                handletextpad=0.5, fontsize=7)  # fmt: skip


# Of "0.embed" and "0.blocks" the "0."; parameters of that module itself are its own.
def _without_shared_part(names: list[str]) -> list[str]:
    head = names[0].split(".")[0]
    if len(names) < 2 or any(part.split(".")[0] != head for n in names for part in n.split(" .. ")):
        return names
    return [
        " .. ".join(part[len(head) + 1 :] or "own" for part in name.split(" .. ")) for name in names
    ]


def _short(name: str, most: int = 12) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def draw_shift(axes: Axes, card: xr.Dataset) -> None:
    """Draw the correlation of rows against a shift, and write down the combs."""
    axes.plot(card["shift"].values, card.shift_correlation.values, "o-", color=MEASURED, ms=3.5)
    axes.axhline(1, color=SOFT, lw=0.8, ls=":")
    axes.set(xlim=(-0.3, 8.3), ylim=CORRELATIONS)
    axes.xaxis.set_major_locator(FixedLocator([0, 2, 4, 6, 8]))
    axes.set_xlabel("shift (pixels along both axes)", labelpad=2)
    axes.set_ylabel("correlation of rows", labelpad=1)
    if not card.sizes.get("comb_period"):
        return
    periods = card.comb_period.values
    words, drawn = ([strength(v) for v in card[key].values] for key in ("comb", "sample_comb"))
    lines = [
        f"comb      {'  '.join(f'{p} px'.rjust(5) for p in periods)}",
        f"kernel    {'  '.join(w.rjust(5) for w in words)}",
        f"samples   {'  '.join(w.rjust(5) for w in drawn)}",
    ]
    axes.text(0.05, 0.05, "\n".join(lines), transform=axes.transAxes, fontsize=7,
              family="monospace", color=INK, linespacing=1.4)  # fmt: skip


def strength(value: float) -> str:
    """Write the strength of a comb, from 0 to many thousands."""
    return number(value, ".2f" if value < 9.95 else ".0f")


def draw_lags(axes: Axes, card: xr.Dataset) -> None:
    """Draw tangent kernel and covariance over the lag, with their infinite widths."""
    radius = card.radius.values
    share = radius / radius.max()
    limit = "limit_ntk_profile" in card
    for name, colour, title in (
        ("ntk", MEASURED, "tangent kernel"),
        ("covariance", SECOND, "covariance"),
    ):
        if limit:
            axes.plot(share, card[f"limit_{name}_profile"].values, color=colour, lw=1.3, ls="--")
        axes.plot(share, card[f"{name}_profile"].values, "o", color=colour, ms=4, label=title,
                  ls="" if limit else "-", lw=0.8)  # fmt: skip
    spread, middle = card.ntk_profile_spread.values, card.ntk_profile.values
    band(axes, share, middle - spread, middle + spread, MEASURED, 0.13)
    axes.axhline(0, color=SOFT, lw=0.7)
    axes.set(ylim=PROFILES, xlim=(-0.03, 1.03))
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda t, _: f"{t * radius.max():g}"))
    axes.set_xlabel("lag (pixels)", labelpad=2)
    axes.set_ylabel("kernel / lag 0", labelpad=1)
    axes.plot([], [], color=SOFT, ls="--", lw=1.3, label="infinite width" if limit else " ")
    if not limit:
        axes.lines[-1].set_visible(False)
        axes.text(0.98, 0.64, "infinite width: unknown,\n" + _reason(card), ha="right", va="center",
                  transform=axes.transAxes, fontsize=7, color=SOFT, linespacing=1.3,
                  bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})  # fmt: skip
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[: 2 + limit], labels[: 2 + limit], loc="upper right", handlelength=1.6,
                labelspacing=0.25, borderaxespad=0.1)  # fmt: skip


# What a reason says, in few words.
_REASONS = (
    ("takes a code of shape", "its code is no image"),
    ("was used before", "layers share weights"),
    ("grid of", "its grid is too small"),
)


def _reason(card: xr.Dataset) -> str:
    reason = str(card.attrs.get("limit_reason", ""))
    for key, words in _REASONS:
        if key in reason:
            return words
    operation = re.match(r"'(\w+)' in '[^']*' can't be read", reason)
    if operation:
        return f"no rule for {operation[1]} there"
    lines = textwrap.wrap(reason, 30, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines[:3]) + ("…" if len(lines) > 3 else "")


def draw_curves(axes: Axes, card: xr.Dataset) -> None:
    """Draw predicted and measured PSNR against iterations."""
    axes.axhline(card.attrs["measurement_psnr"], color=SOFT, lw=0.8, ls=":")
    axes.text(ITERATIONS[0] * 1.3, card.attrs["measurement_psnr"] + 0.2, "noisy", fontsize=7,
              color=SOFT, va="bottom")  # fmt: skip
    time, told = card.time.values, card.predicted_resolved.values.astype(bool)
    low, high = card.predicted_psnr_lower.values, card.predicted_psnr_upper.values
    band(axes, time, np.maximum(low, PSNRS[0]), np.minimum(high, PSNRS[1]), THEORY)
    axes.plot(time[told], card.predicted_psnr.values[told], color=THEORY, ls="--",
              label="gradient flow, predicted")  # fmt: skip
    axes.plot(card.descent_iteration.values[1:], card.descent_psnr.values[1:], color=PALETTE[1],
              lw=2.6, alpha=0.9, label="gradient descent")  # fmt: skip
    axes.plot(card.iteration.values[1:], card.adam_psnr.values[1:], color=MEASURED, label="Adam")
    axes.plot(max(1, card.attrs["peak_iteration"]), card.attrs["peak_psnr"], "o", color=MEASURED,
              ms=4.5)  # fmt: skip
    axes.set(xscale="log", xlim=ITERATIONS, ylim=PSNRS)
    axes.xaxis.set_major_locator(FixedLocator([1, 1e2, 1e4, 1e6]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("iteration", labelpad=2)
    axes.set_ylabel("PSNR to clean (dB)", labelpad=1)
    axes.legend(loc="lower right", handlelength=1.6, labelspacing=0.25, borderaxespad=0.1)
