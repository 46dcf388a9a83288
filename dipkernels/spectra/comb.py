"""Patch-grid comb: what sits on the harmonics of a patch grid, beyond their neighbours."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.seeds import derive
from dipkernels.base.statistics import with_errors
from dipkernels.errors import InvalidInputError
from dipkernels.images.axes import AXES
from dipkernels.spectra.bins import radial_frequency
from dipkernels.spectra.modes import AnyKernel, ProbedModes, QuadraticForms, modes_of
from dipkernels.spectra.power import is_constant, periodogram

FEWEST_PATCHES = 4  # along an axis: below, harmonics have no neighbours between them
PROBES = 8
DRAWS = 2000


@checked
def comb_strength(
    images: Float[Tensor, "images channels *spatial"],
    period: int,
    *,
    reach: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how much stronger images are on the harmonics of a patch grid than beside them.

    Harmonics are the frequencies whose components are multiples of ``1 / period``, 0 left out: a
    pattern that repeats with the patches has no others. The strength is
    ``sum_h |h|^2 P(h) / sum_h |h|^2 mean_n P(n)`` over harmonics h and the neighbours n of each:
    the frequencies within `reach` of it; if h lies on an axis, those on the axis alone. The weights
    make harmonics of natural images, whose power falls as ``f ** -2``, count alike.

    Parameters
    ----------
    images : Tensor, shape ``(images, channels, *spatial)``
        Signals or images. Pixels beyond the last whole patch are cut off.
    period : int
        Side of a patch in pixels, at least 2.
    reach : int, optional
        In frequencies of the image's grid; by default a quarter of the distance between harmonics,
        at least 1.
    seed : int
        Of the null distribution's draws.

    Returns
    -------
    xarray.Dataset
        Over ``image``: ``strength``, about 1 without a comb (a ratio's mean lies above: see
        ``null_mean``); ``p_value``, the share of images without a comb that are at least as strong;
        ``null_mean`` and ``null_standard_deviation`` of the strength without one; ``excess_share``,
        the share of the image's variance that is on the harmonics beyond what their neighbours have
        (may be below 0). Attributes: ``period``, ``reach``, ``harmonics``.

    Raises
    ------
    InvalidInputError
        If there are fewer than 4 whole patches along an axis, a number is out of range, or an image
        is constant or not finite.

    Notes
    -----
    The null distribution is that of Gaussian images whose expected power at a harmonic is its
    neighbours' mean. Channels are taken to be copies of each other, so that p-values are too large
    where they aren't. Power that falls as ``f ** -a`` biases the strength by some percent; edges in
    the image that are in step with the patches count as a comb.
    """
    lattice = _Lattice(_whole(tuple(images.shape[2:]), period), period, reach)
    whole: Any = (..., *(slice(n) for n in lattice.size))
    if bool(is_constant(images[whole]).any()):
        raise InvalidInputError("a constant image has no comb")
    power = periodogram(images[whole]).mean(dim=1).cpu().numpy()
    rows = [lattice.judge(each, seed) for each in power]
    return xr.Dataset(
        {name: ("image", [row[name] for row in rows]) for name in rows[0]},
        attrs={"period": period, "reach": lattice.reach, "harmonics": len(lattice.harmonics)},
    )


@checked
def comb_response(
    kernel: AnyKernel,
    period: int,
    shape: tuple[int, ...] | None = None,
    *,
    which: str | None = None,
    reach: int | None = None,
    probes: int | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Measure how much stronger a kernel acts on the harmonics of a patch grid than beside them.

    Parameters
    ----------
    kernel, shape, which
        As of `dipkernels.spectra.frequency_response`. The modes of an operator are those of its
        whole patches; other kernels must have whole patches only.
    period, reach
        As of `comb_strength`.
    probes, seed : int, optional
        Random probes of an operator, for the harmonics and for their neighbours each; by default 8.

    Returns
    -------
    xarray.Dataset
        Over nothing, or over ``layer``: ``strength``, the weighted mean response at the harmonics
        over that of their neighbours, NaN where both are 0; ``harmonics`` and ``neighbours``, these
        means. Each with a standard error. Attributes: ``period``, ``reach``, ``matvecs``.

    Raises
    ------
    InvalidInputError
        As of `comb_strength` and `frequency_response`.

    Notes
    -----
    Costs ``2 probes`` quadratic forms, ``probes`` products with an NTK.
    """
    if probes is None and isinstance(kernel, QuadraticForms):
        probes = PROBES
    modes = modes_of(kernel, shape, which=which, probes=probes, seed=seed)
    size = _whole(modes.size, period)
    if isinstance(modes, ProbedModes):
        modes = ProbedModes(modes.kernel, modes.shape, modes.probes, seed, size)
    elif size != modes.size:
        raise InvalidInputError(
            f"a kernel of size {modes.size} doesn't have whole patches of {period} pixels only"
        )
    lattice = _Lattice(size, period, reach)
    means = modes.means(lattice.weights(), "patch comb", progress=False)
    (on, beside), (on_error, beside_error) = means.values, means.errors
    with np.errstate(divide="ignore", invalid="ignore"):  # a kernel that is 0 there
        strength = on / beside
        error = np.hypot(on_error, strength * beside_error) / beside
    found = {
        "strength": (strength, error),
        "harmonics": (on, on_error),
        "neighbours": (beside, beside_error),
    }
    attrs = {"period": period, "reach": lattice.reach, "matvecs": means.matvecs}
    dataset = xr.Dataset(with_errors(found, means.extra), attrs=attrs)
    return dataset if means.layers is None else dataset.assign_coords(layer=means.layers)


def _whole(size: tuple[int, ...], period: int) -> tuple[int, ...]:
    if len(size) not in AXES:
        raise InvalidInputError(
            f"expected images (images, channels, *spatial), got {len(size)} spatial axes"
        )
    if period < 2 or any(n // period < FEWEST_PATCHES for n in size):
        raise InvalidInputError(
            f"a comb needs a period of at least 2 pixels and {FEWEST_PATCHES} whole patches along "
            f"each axis, got period {period} and size {size}"
        )
    return tuple(n // period * period for n in size)


class _Lattice:
    """Harmonics of a patch grid with their weights and neighbours."""

    def __init__(self, size: tuple[int, ...], period: int, reach: int | None) -> None:
        spacing = tuple(n // period for n in size)
        most = (min(spacing) - 1) // 2
        self.size, self.reach = size, max(1, min(spacing) // 4) if reach is None else reach
        if not 1 <= self.reach <= most:
            raise InvalidInputError(
                f"reach must be 1 to {most} frequencies, so that harmonics {min(spacing)} apart "
                f"don't share neighbours; got {reach}"
            )
        every = itertools.product(range(period), repeat=len(size))
        steps = [each for each in every if any(each)]
        self.harmonics = [tuple(i * n for i, n in zip(s, spacing, strict=True)) for s in steps]
        radius = radial_frequency(size)
        self.weight = np.array([radius[h] ** 2 for h in self.harmonics])
        self.neighbours = [self._around(h) for h in self.harmonics]
        # h and -h are one; which is its own opposite has a real transform.
        opposite = [tuple(-i % n for i, n in zip(h, size, strict=True)) for h in self.harmonics]
        self.own = np.array([h == o for h, o in zip(self.harmonics, opposite, strict=True)])
        self.first = np.array([h <= o for h, o in zip(self.harmonics, opposite, strict=True)])

    def weights(self) -> Sequence[np.ndarray]:
        """Weights of all modes: those of harmonics, and those of neighbours."""
        on, beside = np.zeros(self.size), np.zeros(self.size)
        for h, weight, around in zip(self.harmonics, self.weight, self.neighbours, strict=True):
            on[h] = weight
            np.add.at(beside, around, weight / len(around[0]))
        return on, beside

    def judge(self, power: np.ndarray, seed: int) -> dict[str, float]:
        """Strength of one image's power, and what it would be without a comb."""
        if not np.isfinite(power).all():
            raise InvalidInputError("an image is NaN or infinite somewhere: it has no comb")
        at = np.array([power[h] for h in self.harmonics])
        beside = np.array([power[around].mean() for around in self.neighbours])
        if not beside.any():
            raise InvalidInputError("an image without any power beside the harmonics has no comb")
        strength = float((self.weight * at).sum() / (self.weight * beside).sum())
        null = self._null(beside, seed)
        return {
            "strength": strength,
            "p_value": float(((null >= strength).sum() + 1) / (len(null) + 1)),
            "null_mean": float(null.mean()),
            "null_standard_deviation": float(null.std()),
            "excess_share": float((at.sum() - beside.sum()) / (power.sum() - power.flat[0])),
        }

    # Draws of the strength: power over its expectation is a chi-square variable over its degrees of
    # freedom, 2 for each pair of frequencies, 1 for one that is its own opposite.
    def _null(self, expected: np.ndarray, seed: int) -> np.ndarray:
        chosen = self.first
        weight = (self.weight * expected * np.where(self.own, 1, 2))[chosen]
        counts = np.array([len(around[0]) for around in self.neighbours])[chosen]
        random = np.random.default_rng(derive("comb", seed))
        shape = np.where(self.own[chosen], 0.5, 1.0)
        at = random.gamma(shape, 1 / shape, (DRAWS, len(weight)))
        shape = counts * shape
        beside = random.gamma(shape, 1 / shape, (DRAWS, len(weight)))
        return np.asarray((weight * at).sum(axis=1) / (weight * beside).sum(axis=1))

    def _around(self, harmonic: tuple[int, ...]) -> tuple[np.ndarray, ...]:
        spans = [
            range(1) if len(self.size) > 1 and i == 0 else range(-self.reach, self.reach + 1)
            for i in harmonic
        ]
        offsets = [o for o in itertools.product(*spans) if any(o)]
        moved = (np.array(harmonic) + np.array(offsets)) % np.array(self.size)
        return tuple(moved.T)
