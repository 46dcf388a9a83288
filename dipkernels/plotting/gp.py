"""Posteriors of Gaussian processes: what was known, the means, and how sure they are."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dipkernels.errors import InvalidInputError
from dipkernels.images.metrics import decibels
from dipkernels.plotting.style import heat_map, panels, show_image
from dipkernels.tasks import Task


def plot_posteriors(task: Task, posteriors: Mapping[str, xr.Dataset]) -> Figure:
    """Draw a measurement, the posterior means of several processes, and one's deviation.

    Parameters
    ----------
    task : Task
        Of images; titles give PSNR over the whole image where it has a clean one.
    posteriors : mapping of str to Dataset
        As `dipkernels.gp.Posterior.dataset` makes them; the last one's standard deviation is shown.

    Returns
    -------
    Figure
        One row.

    Raises
    ------
    InvalidInputError
        If it's of a signal, or there is no posterior.
    """
    if len(task.shape) != 3 or not posteriors:
        raise InvalidInputError(
            f"expected an image and at least one posterior, got shape {task.shape} and "
            f"{len(posteriors)} posteriors"
        )
    figure, axes = panels(len(posteriors) + 2, columns=len(posteriors) + 2, width=2.2, height=2.3)
    show_image(axes[0], task.measurement.cpu().numpy(), f"measured ({task.name})")
    for axis, (name, found) in zip(axes[1:], posteriors.items(), strict=False):
        title = name
        if task.clean is not None:
            error = float(np.mean((found["mean"].values - task.clean.cpu().numpy()) ** 2))
            title += f"\n{float(decibels(error / task.peak**2)):.2f} dB"
        show_image(axis, found["mean"].values, title)
    name, last = list(posteriors.items())[-1]
    deviation = last["standard_deviation"].mean("channel").values
    title = f"standard deviation,\n{name}"
    heat_map(axes[-1], deviation, title, "units of the image", shrink=0.75)
    return figure
