"""What all figures share: size, colours, how they are saved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.errors import OutputError

# Okabe & Ito's palette, which colour-blind readers can tell apart; grey last.
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#5D5D5D", "#B8A900")

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


def colours(names: Sequence[str]) -> dict[str, str]:
    """Give each prior a colour, the same in every figure of a run."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def panels(
    count: int, *, columns: int = 3, width: float = 3.1, height: float = 2.5
) -> tuple[Figure, list[Axes]]:
    """Make a figure of equal panels."""
    columns = min(columns, count)
    rows = -(-count // columns)
    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width * columns, height * rows + 0.3), layout="constrained")
        axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    return figure, axes


def shared_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of one panel below all panels, which share it."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False
    )


def show_image(axes: Axes, image: np.ndarray, title: str = "") -> None:
    """Draw an image without axes, every pixel as it is."""
    pixels = np.clip(image, 0, 1)
    pixels = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels.mean(axis=0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def show(axes: Axes, picture: np.ndarray, title: str = "") -> None:
    """Draw an image, or a signal as curves."""
    if picture.ndim == 3:
        show_image(axes, picture, title)
        return
    axes.plot(picture.T, lw=0.8)
    axes.set_xticks([])
    axes.tick_params(labelsize=6)
    axes.set_title(title, fontsize=8)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG.

    Parameters
    ----------
    figure : Figure
        Any.
    path : str or Path
        Where to; an existing file is replaced.

    Raises
    ------
    OutputError
        If it can't be written.
    """
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise OutputError(f"can't write figure {path}: {error}") from error
