"""Predicted peaks against measured ones, a panel for each kernel."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dipkernels.plotting.style import colours, panels, shared_legend

# Title, priors, predicted and measured peaks in dB of shape (images, priors).
Panel = tuple[str, Sequence[str], np.ndarray, np.ndarray]
LINE = 0.055  # distance of labels, in heights of a panel


def plot_ranking(kernels: Sequence[Panel], families: Mapping[str, str]) -> Figure:
    """Draw the mean over images of every prior's predicted and measured peak."""
    palette = colours(list(dict.fromkeys(families.values())))
    figure, axes = panels(len(kernels), columns=2, width=4.6, height=3.7)
    for ax, kernel in zip(axes, kernels, strict=True):
        _draw(ax, kernel, families, palette)
    shared_legend(figure, axes[0])
    return figure


def _draw(ax: Axes, kernel: Panel, families: Mapping[str, str], palette: Mapping[str, str]) -> None:
    title, names, predicted, measured = kernel
    x, y = predicted.mean(axis=0), measured.mean(axis=0)
    spread = [_spread(predicted), _spread(measured)]
    for family in palette:
        members = [i for i, name in enumerate(names) if families[name] == family]
        ax.errorbar(
            x[members],
            y[members],
            xerr=spread[0][members],
            yerr=spread[1][members],
            fmt="o",
            ms=5,
            lw=0.7,
            color=palette[family],
            label=family,
        )
    ends = [min(x.min(), y.min()) - 0.3, max(x.max(), y.max()) + 0.3]
    ax.plot(ends, ends, color="0.6", lw=1, ls=":")
    ax.set_title(title, fontsize=9)
    ax.set(xlabel="predicted peak PSNR (dB)", ylabel="measured peak PSNR, Adam (dB)")
    low, high = ax.get_ylim()
    wanted = (y - low) / (high - low)
    for name, at, height in zip(names, _spaced(wanted), range(len(names)), strict=True):
        ax.annotate(
            name,
            (float(x[height]), float(y[height])),
            (1.02, at),
            textcoords="axes fraction",
            fontsize=6.5,
            va="center",
            color=palette[families[name]],
            arrowprops={"arrowstyle": "-", "lw": 0.3, "color": "0.75"},
            annotation_clip=False,
        )


# Standard deviation over images of what is left without each image's mean over the priors.
def _spread(values: np.ndarray) -> np.ndarray:
    if len(values) < 2:
        return np.zeros(values.shape[1])
    centred = values - values.mean(axis=1, keepdims=True)
    return np.asarray(centred.std(axis=0, ddof=1))


# Heights of labels near the wanted ones, in their order, at least a line apart.
def _spaced(wanted: np.ndarray) -> np.ndarray:
    order = np.argsort(wanted, kind="stable")
    step = min(LINE, 1.0 / max(len(wanted) - 1, 1))
    heights = wanted[order].copy()
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + step)
    over = heights[-1] - max(1.0, wanted.max())
    if over > 0:
        heights[-1] -= over
        for i in range(len(heights) - 2, -1, -1):
            heights[i] = min(heights[i], heights[i + 1] - step)
    placed = np.empty_like(heights)
    placed[order] = heights
    return placed
