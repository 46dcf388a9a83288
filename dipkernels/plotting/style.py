"""What all figures share: size, colours, how they are saved."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.base.checks import checked
from dipkernels.base.files import replacing, stays
from dipkernels.errors import InvalidInputError, OutputError

# Okabe & Ito's palette, which colour-blind readers can tell apart; grey last.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#5D5D5D", "#B8A900")

MEASURED, THEORY, NOISY = PALETTE[0], PALETTE[2], PALETTE[4]
Name = TypeVar("Name")

_RC: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}


def by_image(fits: Mapping[str, xr.Dataset]) -> list[tuple[str, xr.Dataset]]:
    """List fits with their names, those of several images one by one."""
    return [
        (f"{name}, image {int(i)}", fit.sel(image=i)) if "image" in fit.dims else (name, fit)
        for name, fit in fits.items()
        for i in (fit.image if "image" in fit.dims else [0])
    ]


def colours(names: Iterable[Name]) -> dict[Name, str]:
    """Give each prior a colour, the same in every figure of a run."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def styles(names: Iterable[Name]) -> dict[Name, dict[str, Any]]:
    """Give each prior a colour, line and marker: with eight colours, all of 32 look different."""
    lines, markers = ("-", "--", ":", "-."), (".", "s", "^", "x")
    return {
        name: {
            "color": PALETTE[i % len(PALETTE)],
            "ls": lines[i // len(PALETTE) % len(lines)],
            "marker": markers[i // len(PALETTE) % len(markers)],
        }
        for i, name in enumerate(names)
    }


def one_panel(ax: Axes | None) -> Axes:
    """Take a caller's panel, or make one in a figure of its own."""
    return panels(1, width=6.5, height=3.6)[1][0] if ax is None else ax


def figure_of(panel: Axes) -> Figure:
    """Give the figure that a panel is in, be it in a part of one."""
    figure = panel.figure
    return figure if isinstance(figure, Figure) else figure.figure


def panels(
    count: int, *, columns: int = 3, width: float = 3.1, height: float = 2.5
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels."""
    if count < 1:
        raise InvalidInputError("there is nothing to plot: give at least one dataset")
    columns = min(columns, count)
    rows = -(-count // columns)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width * columns, height * rows + 0.3), layout="constrained")
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def band(
    axes: Axes, x: Any, low: Any, high: Any, color: Any, alpha: float = 0.15, label: str = ""
) -> None:
    """Shade what lies between two curves."""
    axes.fill_between(x, low, high, color=color, alpha=alpha, lw=0, label=label)


def over_seeds(
    axes: Axes, x: Any, curves: xr.DataArray, *, shade: float = 0.15, **style: Any
) -> None:
    """Draw a curve; of several seeds their mean, and their range as a band."""
    if "seed" in curves.dims:
        band(axes, x, curves.min("seed"), curves.max("seed"), style["color"], shade)
        curves = curves.mean("seed")
    axes.plot(x, curves.values, **style)


def heat_map(
    axes: Axes,
    values: np.ndarray,
    title: str,
    label: str,
    *,
    limits: tuple[float | None, float | None] = (0.0, None),
    cmap: str = "viridis",
    shrink: float = 0.8,
) -> None:
    """Draw values as colours with their bar, which ends in a point if some are above the limit."""
    values = middle_slices(values, np.nan) if values.ndim == 3 else values
    bottom, top = limits
    extend = "max" if top is not None and (values > top).any() else "neither"
    shown = np.ma.masked_invalid(values)
    drawn = axes.imshow(shown, cmap=cmap, vmin=bottom, vmax=top, interpolation="nearest")
    bar = axes.figure.colorbar(drawn, ax=axes, shrink=shrink, extend=extend)
    bar.ax.tick_params(labelsize=6)
    bar.ax.yaxis.get_offset_text().set_fontsize(6)
    bar.set_label(label, fontsize=7)
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def shared_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of one panel below all panels, which share it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False
    )


def draw_pixels(axes: Axes, image: np.ndarray, aspect: Any = None) -> None:
    """Draw an image, every pixel as it is; of a volume the middle slices."""
    pixels = np.clip(middle_slices(image) if image.ndim == 4 else image, 0, 1)
    pixels = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(axis=0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest", aspect=aspect)


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw an image without axes."""
    draw_pixels(axes, image)
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def middle_slices(volume: np.ndarray, fill: float = 1.0) -> np.ndarray:
    """Lay the middle slices of ``(..., z, y, x)`` side by side: y x, right of it y z, below z x."""
    z, y, x = volume.shape[-3:]
    gap = max(1, max(z, y, x) // 32)
    plane = np.full((*volume.shape[:-3], y + gap + z, x + gap + z), fill, dtype=volume.dtype)
    plane[..., :y, :x] = volume[..., z // 2, :, :]
    plane[..., :y, x + gap :] = volume[..., x // 2].swapaxes(-1, -2)
    plane[..., y + gap :, :x] = volume[..., y // 2, :]
    return plane


def show(axes: Axes, picture: np.ndarray, title: str = "") -> None:
    """Draw an image, a signal as curves, a volume as its middle slices."""
    if picture.ndim in (3, 4):
        show_image(axes, picture, title)
        return
    if picture.ndim > 4:  # a measurement that is no image
        axes.text(0.5, 0.5, "x".join(map(str, picture.shape)), ha="center", va="center")
        axes.set_axis_off()
        axes.set_title(title, fontsize=8)
        return
    axes.plot(picture.T, lw=0.8)
    axes.set_xticks([])
    axes.tick_params(labelsize=6)
    axes.set_title(title, fontsize=8)


@checked
def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure, in the format of the path's suffix.

    Parameters
    ----------
    figure : Figure
        Any.
    path : str or Path
        Where to, such as ``spectra.png``, ``.pdf`` or ``.svg``; an existing file is replaced. PDF
        has TrueType fonts, as publishers ask, and SVG its text as text.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    try:
        with mpl.rc_context({"pdf.fonttype": 42, "ps.fonttype": 42, "svg.fonttype": "none"}):
            # matplotlib takes the format from the suffix, and adds one where there is none
            path = Path(path) if Path(path).suffix else Path(f"{path}.png")
            with replacing(path) as partial:
                figure.savefig(partial, format=path.suffix[1:], dpi=130)
    except (OSError, ValueError) as error:  # the latter of a suffix that isn't known
        raise OutputError(f"can't write figure {path}: {error}") from error


def save_figures(figure: Figure, path: Path, formats: Iterable[str] = ("png",)) -> None:
    """Write a figure beside itself in several formats, but for files that can't be written anew."""
    for suffix in formats:
        file = path.with_name(f"{path.name}.{suffix}")
        if not stays(file):
            save_figure(figure, file)
