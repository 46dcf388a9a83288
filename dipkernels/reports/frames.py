"""Images as sheets that a page draws from, small enough for it, and what their errors are in."""

import base64
import io
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from PIL import Image, features

from dipkernels.fitting import snapshot_images
from dipkernels.fitting.snapshots import SNAPSHOTS
from dipkernels.plotting.style import middle_slices
from dipkernels.spectra import radial_power

BYTES = 3_000_000  # of all sheets of a page, as text
LONGEST = 16_000  # pixels along a side of a sheet; WebP has no more
# Every second frame goes before pixels do: of each, (block of pixels, step of frames).
REDUCTIONS = [(block, step) for block in (1, 2, 4, 8, 16, 32) for step in (1, 2, 4)]


@dataclass(frozen=True)
class Frames:
    """Images that a slider moves: positions, and pixels ``(frames, channels, height, width)``."""

    iterations: list[int]
    pixels: np.ndarray

    def every(self, step: int) -> "Frames":
        """Keep some, the first and the last among them."""
        kept = sorted({*range(0, len(self.iterations), step), len(self.iterations) - 1})
        return Frames([self.iterations[i] for i in kept], self.pixels[kept])


class Sheets(NamedTuple):
    """What a page draws: sheets of frames, of images beside them, frames kept, pixels a block."""

    frames: dict[str, Any]
    beside: dict[str, Any]
    kept: dict[str, Frames]
    block: int
    signal: bool  # a row of pixels a channel


def first_run(fit: xr.Dataset) -> xr.Dataset:
    """Take the first image and seed of a fit."""
    return fit.isel({dim: 0 for dim in ("image", "seed") if dim in fit.dims})


def frames_of(fit: xr.Dataset) -> Frames:
    """Find the images of a fit: its snapshots and its best, or the three that all fits keep."""
    one = first_run(fit)
    last = one.sizes["iteration"] - 1
    found: dict[int, np.ndarray] = {0: plane(one.initial.values), last: plane(one.final.values)}
    if SNAPSHOTS in one:
        images = snapshot_images(one)
        found |= dict(zip(images.snapshot.values.tolist(), images.values, strict=True))
    elif f"{SNAPSHOTS}_yx" in one:
        parts = [snapshot_images(one, f"{SNAPSHOTS}_{p}").values for p in ("yx", "zx", "zy")]
        whole = _laid_out(*parts)
        found |= dict(zip(one.snapshot.values.tolist(), whole, strict=True))
    if "best" in one and np.isfinite(one.peak_psnr):
        found[int(one.peak_iteration)] = plane(one.best.values)
    iterations = sorted(found)
    return Frames(iterations, np.stack([found[i] for i in iterations]).astype(np.float32))


def plane(image: np.ndarray) -> np.ndarray:
    """Lay an image out: a signal as one row a channel, a volume as its middle slices."""
    return middle_slices(image) if image.ndim == 4 else image


# As `middle_slices` lays out a volume.
def _laid_out(yx: np.ndarray, zx: np.ndarray, zy: np.ndarray) -> np.ndarray:
    (y, x), z = yx.shape[-2:], zx.shape[-2]
    gap = max(1, max(z, y, x) // 32)
    whole = np.ones((*yx.shape[:-2], y + gap + z, x + gap + z), dtype=yx.dtype)
    whole[..., :y, :x] = yx
    whole[..., :y, x + gap :] = zy.swapaxes(-1, -2)
    whole[..., y + gap :, :x] = zx
    return whole


def error_power(frames: Frames, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Power of the difference at each spatial frequency: radii, and ``(frames, radii)``."""
    # As of `radial_power`: white noise has its variance at every frequency. Without the constant.
    errors = torch.from_numpy(np.nan_to_num(frames.pixels - reference))
    if min(errors.shape[2:]) < 4:  # two rings at most
        return None
    found = radial_power(errors, centre=False).isel(frequency=slice(1, None))
    return found.frequency.values, found.image_power.values


def references_of(fit: xr.Dataset) -> dict[str, np.ndarray]:
    """Find the clean and the measured image and its mask, where they are of the fit's shape."""
    one = first_run(fit)
    found = {"clean": one.clean.values} if "clean" in one else {}
    if one.measurement.dims == one.final.dims:
        found["measured"] = one.measurement.values
    if "measured" in found and "mask" in one and not bool(one["mask"].all()):
        found["mask"] = one["mask"].values.astype(np.float32)[None]
    return {name: plane(image).astype(np.float32) for name, image in found.items()}


def sheets(
    fits: Mapping[str, Frames],
    references: Mapping[str, np.ndarray],
    budget: int = BYTES,
    *,
    own: Container[str] = (),
) -> Sheets:
    """Encode all images; those in ``own`` in their own range, however narrow, as maps are."""
    # All have one size. Of too many bytes frames are left out, then blocks of pixels averaged.
    for block, step in REDUCTIONS:
        kept = {name: frames.every(step) for name, frames in fits.items()}
        encoded = {n: _sheet(frames.pixels, block, own=n in own) for n, frames in kept.items()}
        beside = {n: _sheet(image[None], block, own=n in own) for n, image in references.items()}
        size = sum(len(each["sheet"]) for each in (*encoded.values(), *beside.values()))
        if size <= budget:
            break
    one = next(iter([*(each.pixels[0] for each in kept.values()), *references.values()]))
    return Sheets(encoded, beside, kept, block, one.ndim == 2)


def _sheet(pixels: np.ndarray, block: int, *, own: bool) -> dict[str, Any]:
    """Lay images side by side in 8 bits, each in its own range; unless `own`, [0, 1] at least."""
    if pixels.ndim == 3:  # signals: a row a channel, never averaged
        pixels = pixels[:, None]
    elif block > 1:
        pixels = _averaged(pixels, block)
    values = np.nan_to_num(pixels if pixels.shape[1] == 3 else pixels.mean(axis=1, keepdims=True))
    count, channels, height, width = values.shape
    ends = (1, 2, 3)
    low, high = values.min(axis=ends), values.max(axis=ends)
    if not own:
        low, high = np.minimum(low, 0), np.maximum(high, 1)
    spread = np.where(high > low, high - low, 1)[:, None, None, None]
    bytes_ = np.rint(255 * (values - low[:, None, None, None]) / spread).astype(np.uint8)
    columns = max(1, min(math.ceil(math.sqrt(count * height / width)), LONGEST // width, count))
    rows = -(-count // columns)
    whole = np.zeros((rows * columns, height, width, channels), dtype=np.uint8)
    whole[:count] = bytes_.transpose(0, 2, 3, 1)
    whole = whole.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    whole = whole.reshape(rows * height, columns * width, channels)
    return {
        "sheet": _encoded(whole.squeeze(-1) if channels == 1 else whole),
        "width": width,
        "height": height,
        "columns": columns,
        "channels": channels,
        "low": [float(f"{x:.7g}") for x in low],
        "high": [float(f"{x:.7g}") for x in high],
    }


def _averaged(pixels: np.ndarray, block: int) -> np.ndarray:
    height, width = (n // block for n in pixels.shape[2:])
    if not height or not width:
        return np.asarray(pixels.mean(axis=(2, 3), keepdims=True))
    whole = pixels[:, :, : height * block, : width * block]
    return np.asarray(
        whole.reshape(*pixels.shape[:2], height, block, width, block).mean(axis=(3, 5))
    )


def _encoded(whole: np.ndarray) -> str:
    webp = features.check("webp") and max(whole.shape[:2]) <= LONGEST
    file = io.BytesIO()
    options = {"format": "WEBP", "lossless": True, "quality": 60} if webp else {"format": "PNG"}
    Image.fromarray(whole).save(file, **options)
    kind = "webp" if webp else "png"
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode("ascii")
