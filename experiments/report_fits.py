"""What the experiments on the transformer report share: its networks, its measurements, its fits.

A fit is stored beside the folders of results, under its settings, so that experiments that need
the same one make it once: ``runs/report_fits/`` for the outputs ``runs/NAME-cpu``.
"""

import functools
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels import fit, images, networks, tasks
from dipkernels.errors import InvalidInputError
from dipkernels.images.metrics import decibels
from dipkernels.images.sizes import crop
from dipkernels.storage.netcdf import load, save
from dipkernels.tasks import Task
from experiments.compact import compact, restored
from experiments.harness import Options, Table, each, reduced
from experiments.report_grid import border_ratio, grid_of

BACKTRACKING = 5.0  # dB, as the report's code
PIXELS = ("channel", "measured_y", "measured_x")  # of whole images; pictures may have fewer
# What reports read of a fit; pictures are only drawn, and of the first seed alone.
NUMBERS = (
    "psnr_clean", "psnr_noisy", "ssim", "rollbacks", "variance", "border_ratio",
    "error_border_ratio", "mean_step", "comb", "comb_p_value",
)  # fmt: skip
PICTURES = ("output", "best", "final")
SIDE = 64  # most pixels of a picture along an axis, those of the cpu presets


@dataclass(frozen=True)
class Setting:
    """One preset.

    Attributes
    ----------
    size : int
        Pixels a side.
    period : int
        Side of the patches that the networks write, whose grid is looked for.
    images : tuple of str
        Denoised, noise of 25/255, clipped.
    jpegs : tuple of tuple
        Freed of JPEG's artefacts: a name, a quality, perhaps the corner of a crop and its size.
        Quality 0: the file is a JPEG already, without a truth.
    seeds : int
        Initialisations, which are also those of the noise.
    iterations : int
        Of Adam, unless a network has its own.
    every : int
        Iterations between measurements of the grid; those of `shown` are measured, too.
    shown : tuple of int
        Iterations whose outputs are kept.
    networks : dict
        By label: ``prior``, ``options``, ``learning_rate``, perhaps ``iterations``, and ``jpegs``:
        false for one that isn't fitted to these.
    """

    size: int
    period: int
    images: tuple[str, ...]
    seeds: int
    iterations: int
    every: int
    shown: tuple[int, ...]
    networks: dict[str, dict[str, Any]]
    jpegs: tuple[tuple[Any, ...], ...] = ()
    jpeg_seeds: int = 1

    def measured(self) -> list["Measured"]:
        """List what is fitted."""
        noisy = [Measured("denoise", name) for name in self.images]
        return noisy + [Measured("jpeg", *each) for each in self.jpegs]


@dataclass(frozen=True)
class Measured:
    """An image and what was done to it."""

    kind: str
    image: str
    quality: int = -1
    corner: tuple[int, int] | None = None
    size: int = 0  # of the crop; 0 is the preset's

    @property
    def label(self) -> str:
        """Fit for a column and for a file's name."""
        stem = Path(self.image).stem
        return stem if self.kind == "denoise" else f"{stem}-jpeg"

    def task(self, size: int, seed: int) -> Task:
        """Make the measurement of the preset's size; JPEG has no noise that a seed could draw."""
        size = self.size or size
        if self.kind == "denoise":
            return tasks.denoise(images.load(self.image, size=size), clip=True, seed=seed)
        picture = images.load(self.image)
        if self.corner is None:
            picture = images.load(self.image, size=size) if self.quality else crop(picture, size)
        else:  # a crop keeps the artefacts as they are; on JPEG's own grid
            top, left = self.corner
            picture = picture[:, top : top + size, left : left + size]
        if self.quality:
            return tasks.dejpeg(picture, quality=self.quality)
        return tasks.dejpeg(measurement=picture)


@dataclass(frozen=True)
class Unit:
    """One fit."""

    network: str
    measured: Measured
    seed: int

    def __str__(self) -> str:
        return f"{self.network} {self.measured.label} {self.seed}"


def units(setting: Setting) -> list[Unit]:
    """List the fits: seed by seed, so that what is interrupted has all networks."""
    return [
        Unit(label, measured, seed)
        for seed in range(max(setting.seeds, setting.jpeg_seeds))
        for measured in setting.measured()
        for label in setting.networks
        if seed < (setting.seeds if measured.kind == "denoise" else setting.jpeg_seeds)
        and (measured.kind == "denoise" or setting.networks[label].get("jpegs", True))
    ]


def store_of(options: Options) -> Path:
    """Say where the fits of an experiment are kept."""
    return options.output.parent / "report_fits"


def recipe(unit: Unit, setting: Setting) -> dict[str, Any]:
    """All that a fit depends on."""
    if unit.network not in setting.networks:
        known = ", ".join(setting.networks)
        raise InvalidInputError(f"no network '{unit.network}' in this preset, only {known}")
    network = {"iterations": setting.iterations, "options": {}, **setting.networks[unit.network]}
    network.pop("jpegs", None)
    kept = {k: getattr(setting, k) for k in ("period", "every", "shown")}
    measured = asdict(unit.measured)
    size = measured.pop("size") or setting.size
    return {**network, **kept, "size": size, "measured": measured, "seed": unit.seed}


def path_of(unit: Unit, setting: Setting, store: Path) -> Path:
    """File of a fit, named by what it depends on."""
    text = json.dumps(recipe(unit, setting), sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:10]
    return store / f"{unit.network}-{unit.measured.label}-{unit.seed}-{key}.nc"


def run_fits(
    setting: Setting, options: Options, drawn: Collection[str] | None = None
) -> dict[Unit, xr.Dataset]:
    """Make the fits that aren't stored, and read all; after Ctrl-C, those that are finished.

    Parameters
    ----------
    setting : Setting
        Of which preset.
    options : Options
        Of the command line.
    drawn : collection of str, optional
        Networks whose outputs from the first seed are kept as pictures; by default all. A fit that
        another experiment has stored without them is made anew where they are needed.

    Returns
    -------
    dict of Unit to Dataset
        As `slim` leaves them, with the ``measurement`` and, where there is one, the ``clean``
        image, which are made again from the unit.
    """
    store, wanted = store_of(options), units(setting)
    store.mkdir(parents=True, exist_ok=True)
    pictured = {u for u in wanted if u.seed == 0 and (drawn is None or u.network in drawn)}

    def stored(unit: Unit) -> Any:
        return stored_fit(unit, path_of(unit, setting, store), pictured=unit in pictured)

    found = {unit: result for unit in wanted if (result := stored(unit)) is not None}
    try:
        for unit in each([unit for unit in wanted if unit not in found]):
            result = slim(run_fit(unit, setting, options.device), unit, pictured=unit in pictured)
            # netCDF 3 can't hold 8 bits, and its files are the smaller ones without pictures.
            path = path_of(unit, setting, store)
            save(compact(result), path, classic=unit not in pictured)
            found[unit] = stored(unit)  # so that a later report draws the same pictures
    except KeyboardInterrupt:
        if not found:
            raise
        print(f"interrupted: what follows is of {len(found)} of {len(wanted)} fits", flush=True)
    task_of = functools.cache(lambda measured, seed: measured.task(setting.size, seed))
    return {u: with_images(found[u], task_of(u.measured, u.seed)) for u in wanted if u in found}


def stored_fit(unit: Unit, path: Path, *, pictured: bool) -> xr.Dataset | None:
    """Read a fit; None if it isn't there, or without the pictures that are asked for."""
    if not path.exists():
        return None
    result = slim(restored(load(path)), unit, pictured=pictured)
    return None if pictured and "final" not in result else result


def slim(result: xr.Dataset, unit: Unit, *, pictured: bool) -> xr.Dataset:
    """Keep what reports read: a hundredth of a large image's fit.

    Parameters
    ----------
    result : xarray.Dataset
        Of `run_fit`, or what this function has made of it.
    unit : Unit
        The fit.
    pictured : bool
        Whether to keep the outputs, subsampled and in 8 bits.

    Returns
    -------
    xarray.Dataset
        Curves as they were. Over ``measured_iteration`` the `border_ratio` of ``steps`` and of
        ``error_steps``, and ``mean_step``, the mean of ``steps`` over phases, in their place.
        ``average_peak_psnr`` in dB among the attributes.
    """
    if "steps" in result:
        seen = {"mean_step": result["steps"].mean("phase")}
        for name in ("steps", "error_steps"):
            ratio = border_ratio(result[name].transpose("measured_iteration", "phase").values)
            seen[name.replace("steps", "border_ratio")] = ("measured_iteration", ratio)
        result = result.assign(seen)
    if "psnr_average_clean" in result:
        peak = float(result["psnr_average_clean"].sel(region="whole").max())
        result = result.assign_attrs(average_peak_psnr=peak)
    if unit.measured.kind == "jpeg" and "shown" in result.coords:  # one of them is drawn
        result = result.sel(shown=result["shown"][[len(result["shown"]) // 2]])
    return reduced(result, NUMBERS, pictures=PICTURES if pictured else (), side=SIDE)


def with_images(result: xr.Dataset, task: Task) -> xr.Dataset:
    """Add the measured image and, where it's known, the clean one, which aren't stored."""
    known = {"clean": task.clean, "measurement": task.measurement}
    return result.assign(
        {name: (PIXELS, image.numpy()) for name, image in known.items() if image is not None}
    )


def run_fit(unit: Unit, setting: Setting, device: torch.device) -> xr.Dataset:
    """Fit one network to one measurement by Adam, as the report's code does.

    Parameters
    ----------
    unit : Unit
        What to fit.
    setting : Setting
        Of which preset.
    device : torch.device
        Where.

    Returns
    -------
    xarray.Dataset
        As of `dipkernels.fit`, and ``output`` over ``shown``, and over ``measured_iteration`` what
        `Watch` measures.
    """
    how = recipe(unit, setting)
    task = unit.measured.task(setting.size, unit.seed)
    sizes = {k: tuple(v) if isinstance(v, list) else v for k, v in how["options"].items()}
    prior = networks.create(how["prior"], image_size=how["size"], **sizes).to(device=device)
    watch = Watch(task, setting)
    result = fit(
        prior,
        task,
        learning_rate=how["learning_rate"],
        iterations=how["iterations"],
        backtracking=BACKTRACKING,
        seed=unit.seed,
        callback=watch,
    )
    return result.merge(watch.dataset())


class Watch:
    """Keeps outputs at chosen iterations, and measures the patch grid in outputs."""

    def __init__(self, task: Task, setting: Setting) -> None:
        self.setting = setting
        self.reference = (task.measurement if task.clean is None else task.clean).cpu()
        self.pictures: dict[int, np.ndarray] = {}
        self.rows: dict[int, dict[str, Any]] = {}

    def __call__(self, iteration: int, image: Tensor, parameters: Mapping[str, Tensor]) -> None:
        """Take one output."""
        if iteration in self.setting.shown:
            self.pictures[iteration] = image.cpu().numpy().copy()
        if iteration % self.setting.every == 0 or iteration in self.setting.shown:
            self.rows[iteration] = grid_of(image.cpu(), self.reference, self.setting.period)

    def dataset(self) -> xr.Dataset:
        """Put together what was seen."""
        rows = list(self.rows.values())
        seen = xr.Dataset(
            {
                name: (("measured_iteration", *["phase"] * np.ndim(rows[0][name])),
                       np.array([row[name] for row in rows]))
                for name in rows[0]
            },
            coords={"measured_iteration": list(self.rows)},
        )  # fmt: skip
        shown = list(self.pictures)
        pictures = np.array([self.pictures[i] for i in shown])
        return seen.merge({"output": (("shown", "channel", "y", "x"), pictures), "shown": shown})


def mean_squared(psnr: np.ndarray) -> np.ndarray:
    """Turn a PSNR in dB into the mean squared error, white being 1."""
    return 10 ** (-np.asarray(psnr) / 10)


def corruption_power(result: xr.Dataset) -> float:
    """Mean square of what was done to the clean image: the report's ``|c|^2`` over its entries."""
    return float(((result.measurement - result.clean) ** 2).mean())


def noise_share(result: xr.Dataset) -> np.ndarray:
    """How much of the corruption has been fitted, by iteration.

    ``<c, f - x> / |c|^2`` for corruption c, output f and clean x: 0 if the error has nothing to do
    with the corruption, 1 if it is the corruption. From the two errors, by the report's identity
    ``|x + c - f|^2 - |x - f|^2 = |c|^2 - 2 <c, f - x>``.

    Parameters
    ----------
    result : Dataset
        A fit whose truth is known.

    Returns
    -------
    ndarray, shape (iterations + 1,)
        Below 1/2 exactly where the PSNR to the clean image is the higher one.
    """
    clean = mean_squared(result.psnr_clean.sel(region="whole").values)
    noisy = mean_squared(result.psnr_noisy.values)
    power = corruption_power(result)
    return (power - (noisy - clean)) / (2 * power)


def end_of(result: xr.Dataset) -> dict[str, Any]:
    """Describe a fit with a known truth: its peak, its end, and what lies between.

    Parameters
    ----------
    result : Dataset
        A fit.

    Returns
    -------
    dict
        PSNRs and gaps (to the clean image less to the measured one) in dB; ``crossing``, the first
        iteration from which the gap isn't positive any more up to the end, -1 if it is at the end;
        ``matched_psnr``, to the clean image where the fit first comes as near to the measured one
        as the clean image is (equal fits for all networks), NaN if it never does.
    """
    clean = result.psnr_clean.sel(region="whole").values
    noisy, share = result.psnr_noisy.values, noise_share(result)
    top = int(result.peak_iteration)
    above = np.flatnonzero(clean > noisy)
    level = float(decibels(corruption_power(result)))
    near = np.flatnonzero(noisy >= level)
    crossing = int(above[-1]) + 1 if len(above) else 0
    return {
        "corrupted_psnr": float(level),
        "peak_psnr": float(clean[top]),
        "peak_iteration": top,
        "noisy_psnr_at_peak": float(noisy[top]),
        "gap_at_peak": float(clean[top] - noisy[top]),
        "share_at_peak": float(share[top]),
        "ssim_at_peak": float(result.ssim.sel(picture="best", region="whole")),
        "final_psnr": float(clean[-1]),
        "final_noisy_psnr": float(noisy[-1]),
        "final_gap": float(clean[-1] - noisy[-1]),
        "final_share": float(share[-1]),
        "final_ssim": float(result.ssim.sel(picture="final", region="whole")),
        "crossing": -1 if crossing == len(clean) else crossing,
        "matched_psnr": float(clean[near[0]]) if len(near) else float("nan"),
        "average_peak_psnr": float(result.average_peak_psnr),
        "rollbacks": int(result.rollbacks),
    }


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table of results anew."""
    path.unlink(missing_ok=True)
    Table(path, list(rows[0]), ()).append(rows)


def over_seeds(fits: Mapping[Unit, xr.Dataset], network: str, label: str) -> list[xr.Dataset]:
    """Choose the fits of a network to a measurement, one a seed."""
    return [r for u, r in fits.items() if (u.network, u.measured.label) == (network, label)]
