"""The parts of a fingerprint, each a dataset of its own: samples, kernel, limit, fits."""

import logging
import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dipkernels.base.progress import Progress
from dipkernels.base.statistics import standard_error
from dipkernels.errors import InvalidInputError
from dipkernels.fingerprints.groups import TOTAL, WithTotal, layer_groups
from dipkernels.fingerprints.rows import (
    Neighbourhood,
    lag_profile,
    shift_correlation,
    shift_variance,
    torus_window,
    windows,
)
from dipkernels.fingerprints.settings import FingerprintEffort
from dipkernels.images.axes import AXES
from dipkernels.kernels import NTK, covariance_of, infinite_width
from dipkernels.kernels.infinite import InfiniteWidth
from dipkernels.priors import draw_images
from dipkernels.priors.prior import ImagePrior
from dipkernels.spectra import (
    anisotropy,
    comb_response,
    comb_strength,
    frequency_response,
    natural_spectrum,
    radial_power,
    roll_off,
)
from dipkernels.stages import predictions
from dipkernels.stages.subject import Subject
from dipkernels.theory.curves import resolved_stretch

logger = logging.getLogger(__name__)

COMB_PERIODS = (2, 4, 8)
SHOWN = 4


def samples_part(
    subject: Subject, effort: FingerprintEffort, place: Neighbourhood, limit: xr.Dataset
) -> xr.Dataset:
    """Draw images, and measure their spectrum, comb and covariance."""
    prior, seed, progress = subject.prior, subject.seed, subject.progress
    drawn = []
    with Progress(effort.samples, f"{prior.name}: samples", enabled=progress) as bar:
        for batch in draw_images(prior, effort.samples, seed=seed):
            drawn.append(batch.cpu().double())
            bar.advance(len(batch))
    images = torch.cat(drawn)
    size = tuple(images.shape[2:])
    spectrum = radial_power(images, window="hann")
    before = bool(limit.attrs["before_output"])
    covariance = _covariance_profile(
        torch.logit(images, eps=1e-6) if before else images, place.reach
    )
    dims = ("sample", "channel", *AXES[len(size)])
    dataset = xr.Dataset(
        {
            "samples": (dims, images[:SHOWN].numpy().astype(np.float32)),
            "sample_power": spectrum.power,
            "sample_power_standard_error": spectrum.standard_error,
            "covariance_profile": ("radius", covariance),
            **_sample_combs(images, seed),
        },
        {"radius": np.arange(len(covariance)), "comb_period": comb_periods(size)},
    )
    try:
        found = roll_off(spectrum)
        fall = found.exponent, found.standard_error, found.misfit
    except InvalidInputError as error:  # too few rings, or images without variance
        logger.info("the card has no roll-off of samples: %s", error)
        fall = (math.nan,) * 3
    names = ("sample_roll_off", "sample_roll_off_standard_error", "sample_roll_off_misfit")
    deviation = float(images.std(dim=tuple(range(2, images.dim())), correction=0).mean())
    return dataset.assign_attrs(dict(zip(names, fall, strict=True)), sample_deviation=deviation)


def kernel_part(subject: Subject, effort: FingerprintEffort, place: Neighbourhood) -> xr.Dataset:
    """Measure the tangent kernel: response with its layers, rows, shift variance, comb."""
    ntk, seed, progress = subject.ntk, subject.seed, subject.progress
    shape = ntk.image_shape
    layers = WithTotal(ntk.by_layer(layer_groups(ntk.parameters)))
    response = frequency_response(
        layers, probes=effort.response_probes, seed=seed, progress=progress
    )
    whole = response.sel(layer=TOTAL)
    split = response.response.isel(layer=slice(None, -1)).rename(layer="layer_group")
    channel, wanted = shape[0] // 2, [place.centre, *place.diagonal, *place.scattered]
    with Progress(1, f"{ntk.prior.name}: rows", enabled=progress) as bar:
        flat = [int(np.ravel_multi_index((channel, *pixel), shape)) for pixel in wanted]
        found = ntk.rows(flat).to_dense().reshape(len(flat), *shape)[:, channel]
        bar.advance()
    rows = found.cpu().double().numpy()
    cut = windows(rows, wanted, place.reach)
    own = np.array([row[pixel] for row, pixel in zip(rows, wanted, strict=True)])
    scattered = slice(1 + len(place.diagonal), None)
    variance, variance_error = shift_variance(cut[scattered])
    profiles = np.stack([lag_profile(each) for each in cut[scattered]])
    dataset = xr.Dataset(
        {
            "response": whole.response,
            "response_standard_error": whole.standard_error,
            "modes": response.modes,
            "layer_response": split,
            "filter": (AXES[len(shape) - 1], rows[0] / own[0]),
            "shift_correlation": ("shift", shift_correlation(cut[1 : scattered.start])),
            "ntk_profile": ("radius", lag_profile(cut[scattered].mean(axis=0))),
            "ntk_profile_spread": ("radius", profiles.std(axis=0, ddof=1)),
            "diagonal": ("position", own[scattered]),
            "position_pixel": (("position", "axis"), np.array(place.scattered)),
            **_kernel_combs(ntk, effort, seed),
            **_anisotropy(ntk, effort, seed, progress=progress),
        },
        {
            "shift": ("shift", np.arange(len(place.diagonal)), {"units": "pixels per axis"}),
            "radius": ("radius", np.arange(profiles.shape[1]), {"units": "pixels"}),
            "comb_period": ("comb_period", comb_periods(shape[1:]), {"units": "pixels"}),
        },
    ).drop_vars("layer")
    names = ("half_power_frequency", "roll_off", "roll_off_standard_error", "roll_off_misfit")
    return dataset.assign_attrs(
        {name: float(whole[name]) for name in names},
        shift_variance=variance,
        shift_variance_standard_error=variance_error,
        diagonal_variation=float(own[scattered].std(ddof=1) / own[scattered].mean()),
        filter_constant=float(cut[0].mean() / own[0]),
        filter_pixel=list(place.centre),
        channel=channel,
    )


def limit_part(prior: ImagePrior, place: Neighbourhood) -> xr.Dataset:
    """Derive the infinite-width kernels as functions of the lag, where the network can be read."""
    found, before, reason = _limit(prior)
    attributes = {"before_output": int(before), "limit_reason": reason, "limit_notes": ""}
    if found is None:
        return xr.Dataset(attrs=attributes)
    # Of a network that crops its image the torus is larger; the lags are the same.
    size = found.kernel.size
    if any(n < 2 * r + 1 for n, r in zip(size, place.reach, strict=True)):
        attributes["limit_reason"] = f"its kernel is on a grid of {size}, smaller than the lags"
        return xr.Dataset(attrs=attributes)
    attributes["limit_notes"] = "; ".join(found.notes)
    profiles = {
        f"limit_{name}_profile": (
            "radius",
            lag_profile(torus_window(table.cpu().double().numpy(), place.reach)),
        )
        for name, table in (("ntk", found.kernel.ntk), ("covariance", found.kernel.covariance))
    }
    return xr.Dataset(profiles, {"radius": np.arange(min(place.reach) + 1)}, attributes)


def prediction_part(subject: Subject, effort: FingerprintEffort) -> xr.Dataset:
    """Predict gradient flow and gradient descent on a task."""
    found = predictions.PREDICTION.run(
        subject,
        steps=effort.steps,
        iterations=effort.descent,
    )
    region = subject.task.score_region
    score, largest = found.sel(region=region), found.largest_eigenvalue
    told, decibels = resolved_stretch(found, region), {"units": "dB"}
    return xr.Dataset(
        {
            **{
                f"predicted_{name}": ("time", score[name].values, decibels)
                for name in ("psnr", "psnr_lower", "psnr_upper")
            },
            "predicted_resolved": ("time", (np.arange(score.sizes["time"]) < told).astype(int)),
            "predicted_descent_psnr": ("descent_iteration", score.descent_psnr.values, decibels),
        },
        {
            "time": (
                "time",
                score.time.values * largest,
                {"units": "1 / largest eigenvalue"},
            ),
            "descent_iteration": score.iteration.values,
        },
        {
            **{f"predicted_{key}": found.attrs[key] for key in predictions.PEAK},
            "predicted_peak_time": found.peak_time * largest,
            "largest_eigenvalue": largest,
            "descent_learning_rate": found.learning_rate,
        },
    )


def comb_periods(size: tuple[int, ...]) -> list[int]:
    """Choose the periods at which combs are looked for."""
    return [period for period in COMB_PERIODS if min(size) // period >= 4]


def _limit(prior: ImagePrior) -> tuple[InfiniteWidth | None, bool, str]:
    # With an output sigmoid the first way works, without one the second; else it says why not.
    try:
        return infinite_width(prior, before_output=True), True, ""
    except InvalidInputError:
        pass
    try:
        return infinite_width(prior), False, ""
    except InvalidInputError as error:
        return None, False, str(error)


def _covariance_profile(images: Tensor, reach: tuple[int, ...]) -> np.ndarray:
    found = covariance_of(
        [images], len(images), tuple(images.shape[1:]), max_lag=max(reach), tests=False
    )
    kernel = found.kernel.transpose(*(f"lag_{axis}" for axis in AXES[len(reach)]))
    for axis, r in zip(AXES[len(reach)], reach, strict=True):
        kernel = kernel.sel({f"lag_{axis}": slice(-r, r)})
    return lag_profile(kernel.values)


def _sample_combs(images: Tensor, seed: int) -> dict[str, Any]:
    strengths, errors = [], []
    for period in comb_periods(tuple(images.shape[2:])):
        try:
            each = comb_strength(images, period, seed=seed).strength.values
        except InvalidInputError as error:  # constant images
            logger.info("the card has no comb of period %d: %s", period, error)
            each = np.full(len(images), math.nan)
        strengths.append(each.mean())
        errors.append(float(standard_error(each)))
    return {
        "sample_comb": ("comb_period", strengths),
        "sample_comb_standard_error": ("comb_period", errors),
    }


def _kernel_combs(ntk: NTK, effort: FingerprintEffort, seed: int) -> dict[str, Any]:
    found = [
        comb_response(ntk, period, probes=effort.comb_probes, seed=seed)
        for period in comb_periods(ntk.image_shape[1:])
    ]
    return {
        "comb": ("comb_period", [float(each.strength) for each in found]),
        "comb_standard_error": (
            "comb_period",
            [float(each.strength_standard_error) for each in found],
        ),
    }


def _anisotropy(
    ntk: NTK, effort: FingerprintEffort, seed: int, *, progress: bool
) -> dict[str, Any]:
    if len(ntk.image_shape) != 3:
        return {}
    try:
        found = anisotropy(ntk, probes=effort.response_probes, seed=seed, progress=progress)
    except InvalidInputError as error:  # too small for three orientations in each octave
        logger.info("the card has no anisotropy: %s", error)
        return {}
    return {
        name: ("octave", found[name].values)
        for name in (
            "axes_over_diagonals",
            "axes_over_diagonals_standard_error",
            "horizontal_over_vertical",
            "horizontal_over_vertical_standard_error",
        )
    } | {"octave_frequency": ("octave", found.frequency.values, {"units": "cycles/pixel"})}


def natural_part(size: tuple[int, ...]) -> xr.Dataset:
    """Measure the spectrum of photographs on the same rings."""
    if len(size) != 2:
        return xr.Dataset()
    return xr.Dataset({"natural_power": natural_spectrum((size[0], size[1])).power})
