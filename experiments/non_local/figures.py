"""Filters of a pixel, and images, as pictures."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dipkernels.plotting.style import panels, show_image


def plot_filters(
    rows: Mapping[str, Mapping[str, np.ndarray]], pixel: tuple[int, int] | None
) -> Figure:
    """Draw filters of a pixel as images."""
    columns = max(len(row) for row in rows.values())
    figure, axes = panels(columns * len(rows), columns=columns, width=1.7, height=1.85)
    for index, panel in enumerate(axes):
        row, column = divmod(index, columns)
        pictures = list(list(rows.values())[row].items())
        panel.set_axis_off()
        if column >= len(pictures):
            continue
        title, picture = pictures[column]
        if title.startswith("image"):
            show_image(panel, picture[None], title.removeprefix("image: "))
        else:
            top = np.sort(picture, axis=None)[-2]
            low = min(0.0, float(picture.min()))
            panel.imshow(picture, cmap="magma", vmin=low, vmax=top, interpolation="nearest")
            panel.set_title(title, fontsize=8)
        if pixel is not None:
            panel.plot(pixel[1], pixel[0], "+", color="#56B4E9", ms=6, mew=1)
    return figure
