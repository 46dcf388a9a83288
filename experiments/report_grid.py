"""How the experiments on the transformer report measure the grid of patches in an output."""

from typing import Any

import numpy as np
from torch import Tensor

from dipkernels import spectra

COMB_PATCHES = 4  # along an axis: what the comb's measure needs


def grid_of(image: Tensor, reference: Tensor, period: int) -> dict[str, Any]:
    """Measure the patch grid of an output: steps between pixels by phase, and the comb.

    Parameters
    ----------
    image, reference : Tensor, shape (channels, height, width)
        Output, and the clean image (the measured one, if there is no truth).
    period : int
        Of the grid.

    Returns
    -------
    dict
        ``steps`` and ``error_steps``, `steps_by_phase` of the output and of its difference from
        the reference; ``variance`` over pixels, averaged over channels; ``comb`` and
        ``comb_p_value`` of
        `dipkernels.spectra.comb_strength`, NaN where an axis has fewer than 4 patches.
    """
    row: dict[str, Any] = {
        "variance": float(image.double().flatten(1).var(dim=1).mean()),
        "steps": steps_by_phase(image, period),
        "error_steps": steps_by_phase(image - reference, period),
        "comb": float("nan"),
        "comb_p_value": float("nan"),
    }
    if min(image.shape[1:]) // period >= COMB_PATCHES:
        comb = spectra.comb_strength(image[None], period)
        row |= {"comb": float(comb.strength[0]), "comb_p_value": float(comb.p_value[0])}
    return row


def steps_by_phase(image: Tensor, period: int) -> np.ndarray:
    """Mean squared step from a pixel to the next, by where the next lies in its patch.

    Parameters
    ----------
    image : Tensor, shape (channels, height, width)
        Any.
    period : int
        Side of the patches.

    Returns
    -------
    ndarray, shape (period,)
        At phase 0 the steps across borders of patches; averaged over both axes.
    """
    both = []
    for axis in (1, 2):
        squared = image.double().diff(dim=axis).square().movedim(axis, 0).flatten(1).mean(dim=1)
        lines = squared.numpy()  # entry i: from line i to line i + 1
        phase = np.arange(1, len(lines) + 1) % period
        both.append([lines[phase == p].mean() for p in range(period)])
    return np.mean(both, axis=0)


def border_ratio(steps: np.ndarray) -> np.ndarray:
    """Divide steps across borders by those inside patches.

    Parameters
    ----------
    steps : ndarray, shape (..., period)
        Of `steps_by_phase`.

    Returns
    -------
    ndarray, shape (...)
        About 1 without a grid; 0/0 (a constant image) is NaN.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return steps[..., 0] / steps[..., 1:].mean(axis=-1)
