"""The result of a fit as a dataset."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.fitting.record import Record
from dipkernels.images.axes import pixel_axes
from dipkernels.images.metrics import decibels
from dipkernels.tasks import Task
from dipkernels.tasks.laws import SQUARES

logger = logging.getLogger(__name__)

SCORED_PICTURES = ("final", "average", "best")


def build_trace(
    record: Record, seeds: Sequence[int] = (), *, many: tuple[bool, bool]
) -> xr.Dataset:
    """Put the scalars of a fit into a dataset; see `dipkernels.fit` for its variables."""
    return _trace(_Layout(record, seeds or range(record.seeds), many))


def build_dataset(
    record: Record,
    seeds: Sequence[int],
    by_run: Mapping[str, np.ndarray],
    *,
    many: tuple[bool, bool],
) -> xr.Dataset:
    """Put everything that was recorded into a dataset; see `dipkernels.fit` for its variables."""
    layout = _Layout(record, seeds, many)
    result = _trace(layout).assign(layout.images())
    if record.knows_truth:
        result = _with_peaks(result, layout).assign(layout.scores())
    return result.assign({name: layout.of_runs(values) for name, values in by_run.items()})


def _trace(layout: "_Layout") -> xr.Dataset:
    record, columns = layout.record, layout.columns
    law = record.tasks[0].law
    named = "mean squared misfit" if law == SQUARES else f"mean misfit: {law.name}"
    loss = layout.trace(columns["loss"], long_name=named)
    variables: dict[str, object] = {"loss": loss}
    for name in ("noisy", "average_noisy", "held_out", "second"):
        if f"mse_{name}" in columns:
            psnr = decibels(columns[f"mse_{name}"])
            variables[f"psnr_{name}"] = layout.trace(psnr, units="dB")
    if record.knows_truth:
        for name in ("clean", "average_clean"):
            regions = [decibels(columns[f"mse_{name}:{region}"]) for region in record.regions]
            variables[f"psnr_{name}"] = layout.trace_by_region(np.stack(regions, axis=-1))
    for monitor in record.monitors:
        variables |= {name: layout.trace(columns[name]) for name in monitor.names}
    return xr.Dataset(variables, layout.coordinates())


class _Layout:
    """How runs become dimensions: nothing, ``seed``, ``image``, or both."""

    def __init__(self, record: Record, seeds: Sequence[int], many: tuple[bool, bool]) -> None:
        self.record, self.tasks, self.seeds = record, record.tasks, seeds
        tasks = record.tasks
        lengths = {"image": len(tasks), "seed": len(seeds)}
        self.lead = tuple(name for name, wanted in zip(lengths, many, strict=True) if wanted)
        self.sizes = tuple(lengths[name] for name in self.lead)
        self.many_images = many[0]
        self.data_range = tasks[0].data_range
        table = record.table()
        ended = np.isnan(table[..., 1]).all(axis=1)
        self.length = int(ended.argmax()) if ended.any() else len(table)
        rows = np.moveaxis(table[: self.length], -1, 0)
        self.columns = dict(zip(record.columns, rows, strict=True))
        self.pixels = pixel_axes(tasks[0].shape)

    # An array over (runs, ...), its first axis unfolded.
    def unfold(self, array: np.ndarray) -> np.ndarray:
        return array.reshape((*self.sizes, *array.shape[1:]))

    # A number, or an image, of every run.
    def of_runs(self, values: np.ndarray) -> tuple[object, ...]:
        dims = (*self.lead, *self.pixels) if values.ndim > 1 else self.lead
        return dims, self.unfold(values)

    def trace(self, values: np.ndarray, **attributes: str) -> tuple[object, ...]:
        return (*self.lead, "iteration"), self.unfold(values.T), attributes

    def trace_by_region(self, values: np.ndarray) -> tuple[object, ...]:
        dims = (*self.lead, "iteration", "region")
        return dims, self.unfold(np.moveaxis(values, 0, 1)), {"units": "dB"}

    def coordinates(self) -> dict[str, object]:
        known: dict[str, object] = {
            "iteration": np.arange(self.length),
            "region": self.record.regions,
        }
        if "seed" in self.lead:
            known["seed"] = list(self.seeds)
        if self.many_images:
            known["image"] = np.arange(len(self.tasks))
        return known

    def images(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, pictures in self.record.pictures.items():
            array = self.unfold(pictures.cpu().numpy())
            found[name] = (*self.lead, *self.pixels), array / array.dtype.type(self.data_range)
        found |= self.record.snapshots.variables(
            self.length,
            self.record.pictures["final"],
            ("image",) if self.many_images else (),
            self.tasks[0].shape,
        )
        if self.record.knows_truth:
            found["clean"] = self._by_image(
                [_array(task.clean, task.data_range) for task in self.tasks]
            )
        measured = self.tasks[0].measurement.shape
        dims = self.pixels
        if measured != self.tasks[0].shape:
            names = self.pixels if len(measured) == len(self.pixels) else range(len(measured))
            dims = tuple(f"measured_{name}" for name in names)
        measurements = [_array(task.measurement, task.data_range) for task in self.tasks]
        found["measurement"] = self._by_image(measurements, dims)
        masks = [_mask(task) for task in self.tasks]
        if all(mask is not None for mask in masks):
            found["mask"] = self._by_image(
                [np.asarray(m.cpu()) for m in masks if m is not None], self.pixels[1:]
            )
        return found

    def scores(self) -> dict[str, object]:
        tasks = [task.to(device="cpu", dtype=torch.float64) for task in self.tasks]
        regions = self.record.regions
        shape = (self.record.runs, len(SCORED_PICTURES), len(regions))
        tables = {metric: np.full(shape, np.nan) for metric in ("mse", "psnr", "ssim")}
        for i, name in enumerate(SCORED_PICTURES):
            for run, picture in enumerate(self.record.pictures[name].cpu().double()):
                task = tasks[run // len(self.seeds)]
                for j, region in enumerate(regions):
                    for metric, table in tables.items():
                        table[run, i, j] = _score(task, metric, picture, region)
        tables["mse"] /= self.data_range**2
        dims = (*self.lead, "picture", "region")
        found: dict[str, object] = {k: (dims, self.unfold(t)) for k, t in tables.items()}
        return {**found, "picture": list(SCORED_PICTURES)}

    def _by_image(
        self, arrays: list[np.ndarray], dims: tuple[str, ...] | None = None
    ) -> tuple[object, ...]:
        dims = self.pixels if dims is None else dims
        if self.many_images:
            return ("image", *dims), np.stack(arrays)
        return dims, arrays[0]


def _with_peaks(result: xr.Dataset, layout: _Layout) -> xr.Dataset:
    """Add the peaks: attributes of a single run, variables of several."""
    score = decibels(layout.columns[f"mse_clean:{layout.record.score_region}"])
    filled = np.where(np.isnan(score), -np.inf, score)
    iteration, peak = filled.argmax(axis=0), filled.max(axis=0)
    peak = np.where(np.isnan(score).all(axis=0), np.nan, peak)  # never finite
    if not layout.lead:
        peaks = {"peak_psnr": float(peak[0]), "peak_iteration": int(iteration[0])}
        return result.assign_attrs(peaks)
    return result.assign(
        peak_psnr=(layout.lead, layout.unfold(peak), {"units": "dB"}),
        peak_iteration=(layout.lead, layout.unfold(iteration)),
    )


def _score(task: Task, metric: str, picture: Tensor, region: str) -> float:
    if not bool(picture.isfinite().all()):
        return float("nan")
    try:
        return float(getattr(task, metric)(picture, region))
    except InvalidInputError as error:  # SSIM of an image smaller than its window
        logger.debug("no %s of region '%s', NaN in its place: %s", metric, region, error)
        return float("nan")


def _mask(task: Task) -> Tensor | None:
    try:
        return task.mask
    except InvalidInputError:  # its operator is no mask
        return None


# In units in which white is 1.
def _array(tensor: Tensor | None, peak: float = 1.0) -> np.ndarray:
    return np.asarray(None if tensor is None else (tensor / peak).cpu().numpy())
