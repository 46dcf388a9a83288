"""What stands beside draws in a dataset, and the numbers that each is summarised by."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.base.origin import digest
from dipkernels.errors import InvalidInputError
from dipkernels.fitting.regularisers import total_variation
from dipkernels.images.axes import pixel_axes
from dipkernels.images.metrics import mse_to_psnr
from dipkernels.spectra.bands import band_edges
from dipkernels.spectra.bins import radial_frequency
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES

TEMPERATURE = "kinetic_temperature"  # over chain and iteration, of samplers with a momentum
CONSTANT = "misfit_of_constant"  # of the grey that is nearest to the measurement; as the loss
ENERGY = "energy_"  # and the edges of the band, in cycles per pixel
SLACK = 1e-9  # a frequency on an edge belongs below it, whatever its rounding


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
    whole = whole_chains(draws)
    if not len(whole):
        raise InvalidInputError("no chain has finite draws")
    return draws.isel(chain=whole)


def whole_chains(draws: xr.DataArray) -> np.ndarray:
    """Numbers of the chains whose draws are all finite."""
    finite = np.isfinite(draws.values).reshape(draws.sizes["chain"], -1)
    return np.flatnonzero(finite.all(axis=1))


def image_summaries(result: xr.Dataset) -> dict[str, np.ndarray]:
    """Summarise every draw: mean, total variation, energy in radial bands, PSNR, misfit."""
    draws = require_draws(result)
    images = torch.from_numpy(np.ascontiguousarray(draws.values))
    axes = tuple(range(2, images.dim()))
    found = {
        "mean": images.mean(dim=axes),
        "total_variation": total_variation(
            images.flatten(0, 1), "anisotropic", spatial_dims=images.dim() - 3
        ).reshape(images.shape[:2]),
        **_energies(images),
    }
    if "clean" in result:
        clean = torch.from_numpy(result["clean"].values).to(images.dtype)
        found["psnr"] = mse_to_psnr((images - clean).square().mean(dim=axes))
    if {"loss", "draw_iteration"} <= result.variables.keys():
        kept = result["loss"].sel(iteration=result["draw_iteration"])
        found["misfit"] = torch.from_numpy(
            kept.transpose("chain", "draw").values[whole_chains(result["draws"])]
        )
    return {name: value.double().numpy() for name, value in found.items()}


def _energies(images: Tensor) -> dict[str, Tensor]:
    """Energy of draws ``(chain, draw, channel, ...)`` in each radial band that has a frequency."""
    size = tuple(images.shape[3:])
    radius, edges = radial_frequency(size).ravel(), band_edges(dims=len(size), corners=True)
    power = torch.fft.fftn(images, dim=tuple(range(3, images.dim())), norm="ortho").abs().square()
    power = power.sum(dim=2).flatten(2)
    found = {}
    for low, high in itertools.pairwise(edges + SLACK):
        inside = torch.from_numpy((radius > low) & (radius <= high))
        if inside.any():
            found[f"{ENERGY}{low:.1f}_{high:.1f}"] = power[..., inside].sum(dim=-1)
    return found


def describe_measurement(task: Task) -> dict[str, str | float]:
    """Tell what was measured, and which of it counted, from what else may have been."""
    values = (task.measurement.double() / task.data_range * task.counted).flatten().cpu()
    weights = torch.cos(torch.arange(len(values), dtype=torch.float64))
    found: dict[str, str | float] = {
        "counted": digest(task.counted.cpu()),
        "measurement_sum": float(values @ weights),
    }
    if task.law != SQUARES:
        return found | {"misfit": repr(task.law) if task.law.by_entry else task.law.name}
    measured, counted = task.measurement.double(), task.counted.double()
    grey = (measured * counted).sum() / counted.sum().clamp(min=1)
    constant = float(((measured - grey).square() * counted).mean())
    if constant > 2 * task.noise_sigma**2 * task.measured_fraction:  # else it may be all there is
        found[CONSTANT] = constant
    return found


def known_of(task: Task) -> dict[str, Any]:
    """Make the variables of a dataset that tell what draws are held against."""
    pixels = pixel_axes(task.shape)
    found: dict[str, Any] = {}
    if task.clean is not None:
        found["clean"] = (pixels, (task.clean / task.data_range).cpu().numpy())
    if task.measurement.shape == task.shape:
        found["measurement"] = (pixels, (task.measurement / task.data_range).cpu().numpy())
        found["counted"] = (pixels, task.counted.cpu().numpy())
    return found


def require_draws_of(result: xr.Dataset, task: Task) -> xr.DataArray:
    """Take the draws, if they are of this very task."""
    draws = require_draws(result)
    if tuple(draws.shape[2:]) != task.shape:
        raise InvalidInputError(
            f"the draws have shape {tuple(draws.shape[2:])}, the task {task.shape}: give the task "
            "that was sampled"
        )
    given = describe_measurement(task)
    known = {key: result.attrs.get(key, value) for key, value in given.items()}
    # a sum over float32 images is known to about 1e-5
    alike = np.isclose(known["measurement_sum"], given["measurement_sum"], rtol=1e-4, atol=1e-4)
    if known["counted"] != given["counted"] or not alike:
        raise InvalidInputError(
            "the draws are of another measurement, or of one with other pixels held out: give the "
            "very task that was sampled; pixels can't be held out afterwards"
        )
    return draws


def what_is_measured(pooled: np.ndarray, task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Of draws ``(draws, ...)`` what would be measured, and what was; in units of white."""
    task = task.to(device="cpu", dtype=torch.float64)
    images = torch.from_numpy(pooled).double() * task.data_range
    predicted = torch.stack([task.forward(image) for image in images]) / task.data_range
    return predicted.numpy(), (task.measurement / task.data_range).numpy()


def noise_of(result: xr.Dataset, task: Task) -> float:
    """Deviation of the errors of a measurement, in units of white: as sampled, or as stated."""
    return float(result.attrs.get("noise_sigma", task.noise_sigma / task.data_range))


def check_levels(levels: Sequence[float]) -> None:
    """Refuse what is no probability."""
    if not len(levels) or not all(0 < level < 1 for level in levels):
        raise InvalidInputError(f"levels must be in (0, 1), got {tuple(levels)}")
