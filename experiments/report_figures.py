"""What figures of the experiments on the transformer report share."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from dipkernels.plotting.style import PALETTE


def share_scale(row: Sequence[Axes]) -> None:
    """Give panels that are drawn already one scale, which shows all of them."""
    limits = np.array([panel.get_ylim() for panel in row if panel.axison])
    for panel in row:
        panel.set_ylim(limits[:, 0].min(), limits[:, 1].max())


def draw_psnrs(panel: Axes, results: Sequence[xr.Dataset]) -> None:
    """Draw both PSNRs against iterations: the mean over seeds, and their range as a band."""
    curves = [("output to the measured", PALETTE[4], [r.psnr_noisy.values for r in results])]
    if "psnr_clean" in results[0]:
        clean = [r.psnr_clean.sel(region="whole").values for r in results]
        curves.append(("output to the clean", PALETTE[0], clean))
    for label, colour, values in curves:
        steps = np.arange(len(values[0]))
        panel.fill_between(steps, np.min(values, 0), np.max(values, 0), color=colour, alpha=0.2,
                           lw=0)  # fmt: skip
        panel.plot(steps, np.mean(values, 0), color=colour, label=label)
        panel.set_xlabel("iteration")
