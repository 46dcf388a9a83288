"""Iterations calibrated on training images, and how well they carry over to others."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.stopping.rules import Decision, NotApplicableError, Rule, clean_psnr, fixed_at

Traces = xr.Dataset | Sequence[xr.Dataset]


@checked(nan=True)
@dataclass(frozen=True)
class Calibration(Rule):
    """Stop at an iteration that was fixed beforehand, see `calibrate`.

    Attributes
    ----------
    iteration : int, optional
        Where; None if nothing was calibrated, and then the rule is applicable to nothing.
    psnr : float
        Mean PSNR of the training images there, in dB.
    images : int
        Number of training images.
    """

    iteration: int | None = None
    psnr: float = float("nan")
    images: int = 0

    name = "calibrated"

    def decide(self, trace: xr.Dataset) -> Decision:
        """Choose the calibrated iteration, or the last one of a trace that ends before it."""
        if self.iteration is None:
            raise NotApplicableError(
                "nothing was calibrated: pass calibrate(traces of training images) as a rule"
            )
        return fixed_at(trace, self.iteration)


@checked
def calibrate(traces: Traces, *, average: bool = False) -> Calibration:
    """Find the iteration that is best on average over training images.

    Parameters
    ----------
    traces : Dataset or sequence of Dataset
        Results of `dipkernels.fit` with the clean images known: one with a dimension ``image``, or
        one for each image. Several seeds of an image are averaged.
    average : bool
        Of the running averages of the outputs instead of the outputs.

    Returns
    -------
    Calibration
        A rule, to be passed to `stopping_panel` with the results of test images.

    Raises
    ------
    InvalidInputError
        If there are no traces, or one doesn't know its clean image.

    Notes
    -----
    It maximises the mean PSNR in dB, over the iterations that all traces have; the first one, if
    several are equal.
    """
    curves = _means(_runs(traces, average))
    mean = curves.mean(axis=0)
    best = int(mean.argmax())
    return Calibration(best, float(mean[best]), len(curves))


@checked
def leave_one_out(traces: Traces, *, average: bool = False) -> xr.Dataset:
    """Calibrate on all images but one, and judge that one, in turn.

    Parameters
    ----------
    traces : Dataset or sequence of Dataset
        As for `calibrate`, of at least two images.
    average : bool
        Of the running averages of the outputs instead of the outputs.

    Returns
    -------
    xarray.Dataset
        Over ``image``: ``chosen``, the iteration calibrated on the others; ``psnr`` of the image
        there, in dB; ``regret`` in dB against its own best iteration. With several seeds, the
        mean over the seeds of the PSNR and of each seed's own regret.

    Raises
    ------
    InvalidInputError
        If there are fewer than two images, or one doesn't know its clean image.
    """
    runs = _runs(traces, average)
    if len(runs) < 2:
        raise InvalidInputError(
            f"leaving one image out needs at least 2 images, got {len(runs)}: add traces"
        )
    means = _means(runs)
    chosen = [int(np.delete(means, i, axis=0).mean(axis=0).argmax()) for i in range(len(runs))]
    psnr = [float(curves[:, k].mean()) for curves, k in zip(runs, chosen, strict=True)]
    best = [float(curves.max(axis=1).mean()) for curves in runs]
    dataset = xr.Dataset(
        {
            "chosen": ("image", np.array(chosen)),
            "psnr": ("image", np.array(psnr), {"units": "dB"}),
            "regret": ("image", np.array(best) - np.array(psnr), {"units": "dB"}),
        }
    )
    if isinstance(traces, xr.Dataset) and "image" in traces.coords:
        dataset = dataset.assign_coords(image=traces["image"].values)
    return dataset


# Mean over the seeds of every image, (images, iterations that all have).
def _means(runs: list[np.ndarray]) -> np.ndarray:
    length = min(curves.shape[1] for curves in runs)
    return np.stack([curves[:, :length].mean(axis=0) for curves in runs])


# PSNR of every image, (seeds, iterations that all its seeds have).
def _runs(traces: Traces, average: bool) -> list[np.ndarray]:
    if isinstance(traces, xr.Dataset):
        single = "image" not in traces.dims
        images = range(traces.sizes.get("image", 0))
        traces = [traces] if single else [traces.isel(image=i) for i in images]
    if len(traces) == 0:
        raise InvalidInputError("there is nothing to calibrate on: give at least one trace")
    return [_seeds(trace, average) for trace in traces]


def _seeds(trace: xr.Dataset, average: bool) -> np.ndarray:
    several = "seed" in trace.dims
    seeds = [trace.isel(seed=i) for i in range(trace.sizes["seed"])] if several else [trace]
    curves = [_finite(clean_psnr(seed, average=average)) for seed in seeds]
    length = min(len(curve) for curve in curves)
    return np.stack([curve[:length] for curve in curves])


# A run that diverged ends early, in a result of several.
def _finite(curve: np.ndarray) -> np.ndarray:
    missing = np.flatnonzero(np.isnan(curve))
    curve = curve[: missing[0]] if len(missing) else curve
    if len(curve) == 0:
        raise InvalidInputError("a trace has no finite PSNR at all: leave it out")
    return curve
