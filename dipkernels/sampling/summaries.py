"""What stands beside draws in a dataset, and the numbers that each is summarised by."""

from typing import Any

import numpy as np
import torch
import xarray as xr

from dipkernels.base.origin import digest
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.regularisers import total_variation
from dipkernels.images.axes import AXES
from dipkernels.images.metrics import mse_to_psnr
from dipkernels.tasks import Task


def require_draws(result: xr.Dataset, least: int = 1) -> xr.DataArray:
    """Take the draws of the chains that are whole."""
    if "draws" not in result or not {"chain", "draw"} <= set(result["draws"].dims):
        raise InvalidInputError(
            "the result has no draws over (chain, draw, ...): dipkernels.sampling.sample makes one"
        )
    draws = result["draws"]
    if draws.sizes["draw"] < least:
        raise InvalidInputError(
            f"at least {least} draws of each chain are needed, got {draws.sizes['draw']}: run "
            "longer, or choose a smaller thin"
        )
    whole = np.isfinite(draws.values).reshape(draws.sizes["chain"], -1).all(axis=1)
    if not whole.any():
        raise InvalidInputError("no chain has finite draws")
    return draws.isel(chain=np.flatnonzero(whole))


def image_summaries(result: xr.Dataset) -> dict[str, np.ndarray]:
    """Summarise every draw by its mean, its total variation and its PSNR."""
    draws = require_draws(result)
    images = torch.from_numpy(np.ascontiguousarray(draws.values))
    axes = tuple(range(2, images.dim()))
    found = {
        "mean": images.mean(dim=axes),
        "total_variation": total_variation(
            images.flatten(0, 1), "anisotropic", spatial_dims=images.dim() - 3
        ).reshape(images.shape[:2]),
    }
    if "clean" in result:
        clean = torch.from_numpy(result["clean"].values).to(images.dtype)
        found["psnr"] = mse_to_psnr((images - clean).square().mean(dim=axes))
    return {name: value.double().numpy() for name, value in found.items()}


def describe_measurement(task: Task) -> dict[str, str | float]:
    """Tell what was measured, and which of it counted, from what else may have been."""
    values = (task.measurement.double() / task.data_range * task.counted).flatten().cpu()
    weights = torch.cos(torch.arange(len(values), dtype=torch.float64))
    return {
        "counted": digest(task.counted.cpu()),
        "measurement_sum": float(values @ weights),
    }


def known_of(task: Task) -> dict[str, Any]:
    """Make the variables of a dataset that tell what draws are held against."""
    pixels = ("channel", *AXES[len(task.shape) - 1])
    found: dict[str, Any] = {}
    if task.clean is not None:
        found["clean"] = (pixels, (task.clean / task.data_range).cpu().numpy())
    if task.measurement.shape == task.shape:
        found["measurement"] = (pixels, (task.measurement / task.data_range).cpu().numpy())
        found["counted"] = (pixels, task.counted.cpu().numpy())
    return found
