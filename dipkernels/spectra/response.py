"""Frequency response of a kernel: how strongly each spatial frequency is fitted."""

import itertools
import logging
import math

import numpy as np
import xarray as xr

from dipkernels.base.checks import checked
from dipkernels.base.statistics import with_errors
from dipkernels.errors import InvalidInputError
from dipkernels.spectra.bins import (
    Edges,
    bin_masks,
    checked_edges,
    frequency_axes,
    mean_radii,
    mode_counts,
)
from dipkernels.spectra.fall import half_power_frequency, roll_off
from dipkernels.spectra.modes import AnyKernel, Means, modes_of

logger = logging.getLogger(__name__)

ORIENTATIONS = ("horizontal", "diagonal", "vertical")
OCTAVES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
SUMMARIES = ("half_power_frequency", "roll_off", "roll_off_standard_error", "roll_off_misfit")


@checked
def frequency_response(
    kernel: AnyKernel,
    shape: tuple[int, ...] | None = None,
    *,
    which: str | None = None,
    edges: Edges | None = None,
    probes: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Measure the radial frequency response of any kernel over images or signals.

    The response at a frequency k is ``e_k^T Theta e_k = |J^T e_k|^2``, ``e_k`` the unit-norm
    Fourier mode: the rate at which gradient descent fits it. A bin's value is its mean over the
    bin's frequencies and the channels, ``tr(P Theta P) / rank P``. Of a covariance it's the mean
    power of its images, as `prior_spectrum` with ``centre=False`` has it.

    Parameters
    ----------
    kernel : SymmetricOperator, LayerKernels, StationaryKernel or Dataset
        An operator over flattened images ``(channels, *spatial)``; those of all layers cost no
        more than one. A stationary kernel; or what `dipkernels.kernels.covariance` returns.
    shape : tuple of int, ``(channels, *spatial)``, optional
        Of an operator's images; by default its ``image_shape``.
    which : {"covariance", "ntk"}, optional
        Of a stationary kernel, which must say so.
    edges : sequence of float, optional
        Ascending radii that separate the bins, in cycles per pixel; by default `bin_edges`. A
        radius that is an edge belongs to the bin above. The constant image has a bin of its own.
    probes : int, optional
        Random probes per bin of an operator, at least 2 for an error bar; by default 3. Rings of
        no more modes are summed exactly, for others random signs on the modes are unbiased.
    seed, progress
        Of the probes; show a bar.

    Returns
    -------
    xarray.Dataset
        Over ``frequency`` (mean radius of each bin's modes, cycles per pixel): ``response`` with
        its ``standard_error`` (the probes', 0 where exact, as for stationary kernels), and the
        number of ``modes`` of a channel. Attributes:
        ``half_power_frequency``; ``roll_off``, its ``roll_off_standard_error`` and
        ``roll_off_misfit`` (see `RollOff`; NaN where no power law can be fitted); ``matvecs`` (a
        quadratic form counted as one half, which it costs with an NTK). With layers the first two
        are over ``layer`` too, and what a response has for attributes are variables over it.

    Raises
    ------
    InvalidInputError
        If the shape isn't the kernel's, the edges don't ascend, there are fewer than 2 probes, or
        an argument is missing or without effect.

    Notes
    -----
    Costs ``probes`` quadratic forms a bin, each half a product with an NTK. With ``B`` the kernel
    within the bin, ``P Theta P``, a bin's standard error relative to its value is at most
    ``sqrt(2 / probes) |B|_F / tr B``.

    A covariance that isn't known for all lags of a torus is taken in a window of as many pixels as
    lags are known, 0 included. Its errors are NaN; `prior_spectrum` has errors.
    """
    modes = modes_of(kernel, shape, which=which, probes=probes, seed=seed)
    masks = bin_masks(modes.size, edges)
    means = modes.means(masks, "frequency response", progress=progress)
    dims = ("frequency", *means.extra)
    dataset = xr.Dataset(
        {
            "response": (dims, means.values, {"long_name": "mean response of the ring"}),
            "standard_error": (dims, means.errors),
            "modes": mode_counts(masks),
        },
        {"frequency": mean_radii(modes.size, masks)},
        {"matvecs": means.matvecs},
    )
    if means.layers is None:
        return dataset.assign_attrs(dict(zip(SUMMARIES, _summary(dataset), strict=True)))
    each = np.array([_summary(dataset.isel(layer=i)) for i in range(len(means.layers))])
    summaries = {name: ("layer", each[:, i]) for i, name in enumerate(SUMMARIES)}
    dataset = dataset.assign_coords(layer=means.layers).assign(summaries)
    return dataset.transpose("layer", "frequency")


@checked
def anisotropy(
    kernel: AnyKernel,
    shape: tuple[int, ...] | None = None,
    *,
    which: str | None = None,
    edges: Edges = OCTAVES,
    probes: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> xr.Dataset:
    """Compare a kernel's response along the axes with that along the diagonals.

    Frequencies within 22.5 degrees of the horizontal axis are ``horizontal`` (waves that vary along
    x), those within 22.5 degrees of the vertical one ``vertical``, all others ``diagonal``.

    Parameters
    ----------
    kernel, shape, which
        As of `frequency_response`, in 2D.
    edges : sequence of float
        Ascending radii in cycles per pixel; by default three octaves up to 1/2, beyond which there
        are diagonals alone. Frequencies below the first and above the last are left out.
    probes : int, optional
        Random probes for each of three orientations a bin; by default 3.
    seed, progress
        Of the probes; show a bar.

    Returns
    -------
    xarray.Dataset
        Over ``(frequency, orientation)``: ``response``, ``standard_error``, ``modes``. Over
        ``frequency`` (mean radius of a bin): ``axes_over_diagonals``, the mean of the horizontal
        and the vertical response over the diagonal one, and ``horizontal_over_vertical``, each
        with a standard error; 1 for an isotropic kernel, NaN for one that is 0 there. ``layer``
        comes in front where the kernel has layers. Attribute ``matvecs``.

    Raises
    ------
    InvalidInputError
        As of `frequency_response`; if the kernel isn't of 2D images; or a bin has no frequency of
        some orientation, as bins of small images may.

    Notes
    -----
    The errors of ratios are of first order in those of the responses. On a grid the orientations
    have few frequencies of different radii in the lowest octave, so that steep responses seem
    anisotropic: an isotropic ``f ** -2`` at 64 x 64 has 1.16, 1.06 and 1.02 axes over diagonals.
    """
    modes = modes_of(kernel, shape, which=which, probes=probes, seed=seed)
    if len(modes.size) != 2:
        raise InvalidInputError(f"orientation is of 2D images, got images of size {modes.size}")
    radii = checked_edges(edges, modes.size)
    sectors = _sectors(modes.size, radii)
    means = modes.means([s for part in sectors for s in part], "orientation", progress=progress)
    dims = ("frequency", "orientation", *means.extra)
    shaped = (len(sectors), len(ORIENTATIONS), *means.values.shape[1:])
    values, errors = means.values.reshape(shaped), means.errors.reshape(shaped)
    dataset = xr.Dataset(
        {
            "response": (dims, values),
            "standard_error": (dims, errors),
            "modes": (dims[:2], [[int(s.sum()) for s in part] for part in sectors]),
            **_ratios(values, errors, means),
        },
        {
            "frequency": mean_radii(modes.size, [np.any(part, axis=0) for part in sectors]),
            "orientation": list(ORIENTATIONS),
        },
        {"matvecs": means.matvecs},
    )
    if means.layers is None:
        return dataset
    return dataset.assign_coords(layer=means.layers).transpose("layer", ...)


def _summary(spectrum: xr.Dataset) -> tuple[float, ...]:
    try:
        found = roll_off(spectrum)
    except InvalidInputError as error:  # too few bins, or nothing there
        logger.info("no roll-off, NaN in its place: %s", error)
        return half_power_frequency(spectrum), math.nan, math.nan, math.nan
    return (half_power_frequency(spectrum), found.exponent, found.standard_error, found.misfit)


# By bin, then by orientation. Absolute frequencies, so that -k goes with every k.
def _sectors(size: tuple[int, ...], radii: np.ndarray) -> list[list[np.ndarray]]:
    fy, fx = (np.abs(axis) for axis in frequency_axes(size))
    radius, angle = np.hypot(fy, fx), np.degrees(np.arctan2(fy, fx))
    which = np.digitize(angle, (22.5, 67.5))
    masks = [(radius >= low) & (radius < high) for low, high in itertools.pairwise(radii)]
    sectors = [[mask & (which == i) for i in range(len(ORIENTATIONS))] for mask in masks]
    if not sectors or not all(sector.any() for part in sectors for sector in part):
        raise InvalidInputError(
            f"images of size {size} don't have frequencies of all orientations in each bin of the "
            f"edges {np.round(radii, 4).tolist()}: give fewer and wider bins, at least one"
        )
    return sectors


def _ratios(values: np.ndarray, errors: np.ndarray, means: Means) -> dict[str, object]:
    (h, d, v), (eh, ed, ev) = np.moveaxis(values, 1, 0), np.moveaxis(errors, 1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # a kernel that is 0 there
        axes = (h + v) / (2 * d), h / v
        spread = (
            np.sqrt((np.hypot(eh, ev) / (2 * d)) ** 2 + (axes[0] * ed / d) ** 2),
            np.sqrt((eh / v) ** 2 + (axes[1] * ev / v) ** 2),
        )
    names = ("axes_over_diagonals", "horizontal_over_vertical")
    found = dict(zip(names, zip(axes, spread, strict=True), strict=True))
    return with_errors(found, ("frequency", *means.extra))
