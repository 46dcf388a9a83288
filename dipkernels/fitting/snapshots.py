"""Images of a fit while it goes on, in 8 bits, evenly spread over the logarithm of iterations."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import pixel_axes

SNAPSHOTS, RANGE = "snapshots", ("snapshot_low", "snapshot_high")
STEPS = 255  # of 8 bits


class Snapshots:
    """Keeps at most so many images, of the first seed of each task.

    Which iterations are kept at some moment depends on how many there were until then and on
    nothing else, so that a fit that is stopped, continued or extended keeps those of one that
    went through.
    """

    def __init__(self, most: int, seeds: int, units: Sequence[float]) -> None:
        self.most, self._room = most, max(0, most - 1)  # the last iteration's has a place
        self._seeds, self._units = seeds, list(units)
        self._scales: Tensor | None = None  # the units, once on the device
        self.iterations: list[int] = []
        self._kept: list[dict[str, Tensor]] = []

    def add(self, iteration: int, images: Tensor) -> None:
        """Take the images of an iteration, of all runs, if it is to be kept, and drop another."""
        if not self._room or not self._wanted(iteration):
            return
        self.iterations.append(iteration)
        self._kept.append(self._in_8_bits(images[:: self._seeds]))
        self._thin()

    def variables(
        self, length: int, final: Tensor, lead: Sequence[str], shape: Sequence[int]
    ) -> dict[str, Any]:
        """Give what is kept as variables of a dataset, up to the last iteration, which is added."""
        if not self.most:
            return {}
        before = [i for i, iteration in enumerate(self.iterations) if iteration < length - 1]
        kept = [self._kept[i] for i in before] + [self._in_8_bits(final[:: self._seeds])]
        at = [self.iterations[i] for i in before] + [length - 1]
        found: dict[str, Any] = {"snapshot": at}
        for name in kept[0]:
            values = torch.stack([each[name] for each in kept], dim=1).cpu().numpy()
            dims = (*lead, "snapshot", *_axes(name, shape))
            found[name] = (dims, values if lead else values[0])
        return found

    def shapes(self, images: Tensor) -> list[tuple[int, ...]]:
        """Shapes of what one iteration keeps in 8 bits."""
        return [tuple(view.shape) for view in _views(images[:: self._seeds]).values()]

    def state(self) -> dict[str, Any]:
        """Everything that `load` needs."""
        return {"iterations": self.iterations, "kept": self._kept}

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Take the place of the one that gave this state, which may have kept more."""
        if not self.most:
            return
        self.iterations = list(state["iterations"])
        self._kept = [{k: v.to(device) for k, v in each.items()} for each in state["kept"]]
        self._thin()

    # Those much nearer than the others are by now would be dropped again at once.
    def _wanted(self, iteration: int) -> bool:
        if len(self.iterations) < self._room:
            return True
        gap = math.log((iteration + 1) / (self.iterations[-1] + 1))
        return gap >= math.log(iteration + 1) / self._room

    # The one whose neighbours are nearest to each other; the first and the last stay.
    def _thin(self) -> None:
        while len(self.iterations) > self._room:
            at = self.iterations
            gaps = [(at[i + 1] + 1) / (at[i - 1] + 1) for i in range(1, len(at) - 1)]
            drop = 1 + gaps.index(min(gaps)) if gaps else len(at) - 1
            del self.iterations[drop], self._kept[drop]

    # 0 to 1, or what the image's values reach beyond.
    def _in_8_bits(self, images: Tensor) -> dict[str, Tensor]:
        if self._scales is None:
            self._scales = images.new_tensor(self._units).reshape(-1, *[1] * (images.dim() - 1))
        views = _views(images / self._scales)
        flat = torch.cat([view.flatten(1) for view in views.values()], dim=1)
        low, high = flat.amin(dim=1).clamp(max=0), flat.amax(dim=1).clamp(min=1)
        kept = {}
        for name, view in views.items():
            own = [end.reshape(-1, *[1] * (view.dim() - 1)) for end in (low, high)]
            share = (view - own[0]) / (own[1] - own[0])
            kept[name] = (STEPS * share).round().to(torch.uint8)
        return kept | dict(zip(RANGE, (low.float(), high.float()), strict=True))


# What is kept of images (runs, channels, *spatial): of volumes the middle slices.
def _views(images: Tensor) -> dict[str, Tensor]:
    if images.dim() < 5:
        return {SNAPSHOTS: images}
    z, y, x = (n // 2 for n in images.shape[2:])
    slices = images[:, :, z], images[:, :, :, y], images[..., x]
    return dict(zip((f"{SNAPSHOTS}_{plane}" for plane in ("yx", "zx", "zy")), slices, strict=True))


def _axes(name: str, shape: Sequence[int]) -> tuple[str, ...]:
    if name in RANGE:
        return ()
    plane = name.removeprefix(SNAPSHOTS).lstrip("_")
    return ("channel", *plane) if plane else pixel_axes(shape)


@checked
def snapshot_images(result: xr.Dataset, name: str = SNAPSHOTS) -> xr.DataArray:
    """Read the images that a fit kept while it went on.

    Parameters
    ----------
    result : xarray.Dataset
        From `dipkernels.fit`.
    name : str
        Of the variable: ``"snapshots"``; of volumes ``"snapshots_yx"``, ``"snapshots_zx"`` and
        ``"snapshots_zy"``, the middle slices.

    Returns
    -------
    xarray.DataArray
        Float32 over ``(snapshot, channel, y, x)``, after ``image`` if there are several, white
        being 1; ``snapshot`` holds the iterations. Each value is within 1/510 of the range of its
        image (of [0, 1], if its values lie in it), which 8 bits tell.

    Raises
    ------
    InvalidInputError
        If the fit kept none of that name.

    Examples
    --------
    >>> import torch
    >>> from dipkernels import fit, networks, tasks
    >>> prior = networks.create("deep-decoder", image_size=(16, 24), width=8)
    >>> result = fit(prior, tasks.denoise(torch.full((3, 16, 24), 0.5)), iterations=3)
    >>> images = snapshot_images(result)
    >>> images.sizes["snapshot"], images.snapshot.values.tolist()
    (4, [0, 1, 2, 3])
    """
    if name not in result:
        there = [str(key) for key in result.data_vars if str(key).startswith(SNAPSHOTS)]
        raise InvalidInputError(
            f"this result has no '{name}', but {', '.join(there) or 'no snapshots'}: a fit keeps "
            "them unless it was told snapshots=0, or was made before version 0.2"
        )
    low, high = (result[end] for end in RANGE)
    found = low + (high - low) * (result[name].astype(np.float32) / STEPS)
    return found.transpose(*result[name].dims).astype(np.float32)
