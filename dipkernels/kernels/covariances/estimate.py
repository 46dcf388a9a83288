"""The estimate: one pass over images, all moments at once, nothing kept but sums."""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.origin import provenance
from dipkernels.base.progress import Progress
from dipkernels.base.statistics import RunningMoments
from dipkernels.base.words import readable_bytes
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.images.axes import AXES, require_spatial
from dipkernels.kernels.covariances import hypotheses
from dipkernels.kernels.covariances.lagged import LaggedProducts
from dipkernels.priors.draws import FIXED, Codes, draw_images
from dipkernels.priors.memory import DEFAULT_BUDGET
from dipkernels.priors.prior import ImagePrior, describe_prior

CENTRES = ("none", "image", "ensemble")
GROUP = 8  # samples that are centred on their common mean


@checked
def covariance(
    prior: ImagePrior,
    samples: int = 256,
    *,
    seed: int = 0,
    first: int = 0,
    codes: Codes = FIXED,
    progress: bool = False,
    **options: Any,
) -> xr.Dataset:
    """Estimate the covariance of a network's output over its initialisations.

    The output is the prior's image as it is: made with ``output="none"`` it's what the theory of
    wide networks is about; with a sigmoid it's bounded, and neither of mean zero nor Gaussian.

    Parameters
    ----------
    prior : ImagePrior
        Any network, in one, two or three dimensions.
    samples : int
        Initialisations.
    seed, first, codes
        As of `draw_images`: sample ``i`` is the ``i``-th of ``prior.sample(n, seed)``. With a fixed
        code of few channels a network isn't stationary even at infinite width: draw codes, too.
    progress : bool
        Show a bar.
    **options
        As of `covariance_of`: centre, boundary, max_lag, channels, period, full, tests,
        memory_budget.

    Returns
    -------
    xarray.Dataset
        As of `covariance_of`.

    Raises
    ------
    InvalidInputError
        If an option is invalid or doesn't fit the image.
    DivergenceError
        If an image isn't finite.

    Notes
    -----
    Costs a draw of the parameters and a forward pass a sample; the FFTs add little. Where the last
    layer's weights are random, make the prior with many channels (as many as its width, say) and
    leave ``channels="average"``: 30 to 300 times fewer samples in ``benchmarks/covariance.py``.
    To go on, call again with ``first`` raised, and `pool_covariances` the results.

    Examples
    --------
    >>> from dipkernels import networks
    >>> prior = networks.create("conv", image_size=16, channels=1, width=8, output="none")
    >>> found = covariance(prior, samples=64, max_lag=4)
    >>> found.kernel.dims, found.sizes["lag_x"]
    (('lag_y', 'lag_x'), 9)
    """
    batches = draw_images(prior, samples, seed=seed, first=first, codes=codes)
    with Progress(samples, f"covariance of {prior.name}", enabled=progress) as bar:
        dataset = covariance_of(_watched(batches, bar), samples, prior.shape, **options)
    named = codes if isinstance(codes, str) else "drawn"
    return dataset.assign_attrs(
        **describe_prior(prior), **provenance(prior.device), seed=seed, first=first, codes=named
    )


@checked
def covariance_of(
    batches: Iterable[Tensor],
    samples: int,
    shape: Sequence[int],
    *,
    centre: str = "none",
    boundary: str = "linear",
    max_lag: int | None = None,
    channels: str = "average",
    period: int = 1,
    full: bool = False,
    tests: bool = True,
    memory_budget: int = DEFAULT_BUDGET,
) -> xr.Dataset:
    """Estimate the covariance of any random images, in one pass.

    Parameters
    ----------
    batches : iterable of Tensor
        Independent images ``(batch, channels, *spatial)``, in batches of any sizes.
    samples, shape : int, sequence of int
        How many there are in all; of one, ``(channels, *spatial)``.
    centre : {"none", "image", "ensemble"}
        ``"none"``: the uncentred second moment, which is what the theory's recursions are about.
        ``"image"``: each image less its own mean over pixels, channel by channel. ``"ensemble"``:
        the covariance proper, unbiased, from the deviations within groups of 8 samples; its error
        is 7 % larger than with the true mean. `samples` must be a multiple of 8.
    boundary, max_lag, channels
        As of `LaggedProducts`: by default all pairs of pixels within the image, lags up to half a
        side, averaged over the channels.
    period : int
        Above 1, also the kernel for each phase of that period: for networks that upsample.
    full, tests : bool
        Also the covariance of all pairs of outputs; the tests of stationarity, isotropy (2D) and
        Gaussianity.
    memory_budget : int
        Bytes that the full covariance may take.

    Returns
    -------
    xarray.Dataset
        Over the lags and pixels of images; of signals ``x`` alone, of volumes ``z`` too:
        ``kernel(lag_y, lag_x)``, with axes ``channel`` and ``other_channel`` in front where asked
        for; ``mean(channel, y, x)`` and ``second_moment(channel, y, x)`` (about 0, or about the
        centre); ``phase_kernel(phase_y, phase_x, lag_y, lag_x)``;
        ``full_kernel(output, other_output)`` over the flattened image. Each has a standard error
        over samples under its name with ``_standard_error``. Tests: ``p_value``, ``z`` (its
        normal score) over ``test``; attributes ``variance_spread`` (relative standard deviation
        of the variance over position), ``excess_kurtosis`` and ``skewness`` with errors.

    Raises
    ------
    InvalidInputError
        If an option is invalid, doesn't fit the images, or the full covariance the memory.
    DivergenceError
        If an image isn't finite.

    Notes
    -----
    Nothing grows with the number of samples. Every standard error is over samples alone, since
    pixels of one image depend on each other: what varies between networks as a whole, such as
    their scale, averages only over samples.
    """
    channels_count, size = int(shape[0]), tuple(int(n) for n in shape[1:])
    _check(samples, size, centre)
    lagged: dict[str, Any] = {"boundary": boundary, "max_lag": max_lag}
    products = functools.partial(LaggedProducts, size, channels=channels, **lagged)
    estimators = {"kernel": _Estimator(products()), "second_moment": _Estimator(torch.square)}
    if period != 1:
        estimators["phase_kernel"] = _Estimator(products(period=period))
    matrix = _FullMatrix(channels_count, size, centre, memory_budget) if full else None
    checks = _Checks(samples, size, lagged) if tests else None
    mean = RunningMoments()
    for batch in _regrouped(batches, samples, (channels_count, *size), centre):
        mean.update(batch)
        images, group = _centred(batch, centre)
        for estimator in estimators.values():
            estimator.update(images, group)
        if matrix is not None:
            matrix.update(images)
        if checks is not None:
            checks.update(batch, images, group)
    settings = {"boundary": boundary, "centre": centre, "channels": channels, "period": period}
    return _dataset(estimators, mean, matrix, checks, size).assign_attrs(
        samples=samples, rows=estimators["kernel"].moments.count, **settings
    )


class _Estimator:
    """The mean over samples of a function of an image."""

    def __init__(self, function: Any) -> None:
        self.function, self.moments = function, RunningMoments()

    def update(self, images: Tensor, group: int) -> None:
        rows = self.function(images)
        self.moments.update(rows.unflatten(0, (-1, group)).mean(dim=1))


class _FullMatrix:
    """Second moments of all pairs of outputs, and of their products: two matrices."""

    def __init__(self, channels: int, size: tuple[int, ...], centre: str, budget: int) -> None:
        n = channels * int(np.prod(size))
        needed = 3 * 8 * n**2  # both sums, and one more while the result is made
        if needed > budget:
            raise InvalidInputError(
                f"the full covariance of {n} outputs takes {readable_bytes(needed)}, more than "
                f"memory_budget, {readable_bytes(budget)}: raise it, take smaller images or one "
                "channel, or do with kernel and phase_kernel, full=False"
            )
        # Within a group, deviations of GROUP samples have one degree of freedom less.
        self._freedom = (GROUP - 1) / GROUP if centre == "ensemble" else 1.0
        self._count = 0
        self._products = torch.zeros(n, n, dtype=torch.float64)
        self._squares = torch.zeros(n, n, dtype=torch.float64)

    def update(self, images: Tensor) -> None:
        flat = images.flatten(1).cpu()
        self._count += len(flat)
        self._products.addmm_(flat.T, flat)
        self._squares.addmm_(flat.square().T, flat.square())

    def result(self) -> tuple[Tensor, Tensor]:
        mean = self._products / self._count
        variance = (self._squares / self._count - mean.square()).clamp_(min=0)
        return mean, (variance / max(self._count * self._freedom - 1, 1)).sqrt()


class _Checks:
    """The tests, with their names."""

    def __init__(self, samples: int, size: tuple[int, ...], lagged: dict[str, Any]) -> None:
        contrasts = {"stationary variance": hypotheses.variance_contrasts(size)}
        if min(size) > 2:
            contrasts["stationary neighbours"] = hypotheses.neighbour_contrasts(size)
        products = LaggedProducts(size, **lagged)
        if len(size) == 2 and min(map(len, products.lags)) > 2:
            contrasts["symmetry of axes"] = hypotheses.symmetry_contrasts(products)
            rotations = hypotheses.rotation_contrasts(products)
            if rotations is not None:
                contrasts["symmetry of rotations"] = rotations
        self._tests = {key: hypotheses.MeanIsZero(value) for key, value in contrasts.items()}
        self._gaussian = hypotheses.Gaussianity(samples)
        self._spread = hypotheses.VarianceSpread()

    def update(self, raw: Tensor, images: Tensor, group: int) -> None:
        for test in self._tests.values():
            test.update(images, group)
        self._gaussian.update(raw)
        self._spread.update(images, group)

    def add_to(self, dataset: xr.Dataset) -> xr.Dataset:
        verdicts = {key: test.verdict() for key, test in self._tests.items()}
        shape = self._gaussian.result()
        verdicts |= {f"zero {key}": verdict for key, (_, _, verdict) in shape.items()}
        dataset = dataset.assign_coords(test=list(verdicts))
        dataset["p_value"] = ("test", [v.p_value for v in verdicts.values()])
        dataset["z"] = ("test", [v.z for v in verdicts.values()])
        return dataset.assign_attrs(
            variance_spread=self._spread.value(),
            skewness=shape["skewness"][0],
            skewness_standard_error=shape["skewness"][1],
            excess_kurtosis=shape["kurtosis"][0],
            excess_kurtosis_standard_error=shape["kurtosis"][1],
        )


def _check(samples: int, size: tuple[int, ...], centre: str) -> None:
    require_choice("centre", centre, CENTRES)
    least = 2 * GROUP if centre == "ensemble" else 2
    if samples < least:
        raise InvalidInputError(
            f"at least {least} samples are needed for a standard error, got {samples}"
        )
    if centre == "ensemble" and samples % GROUP:
        raise InvalidInputError(
            f"centre='ensemble' takes samples in groups of {GROUP}: choose a multiple of it, "
            f"not {samples}"
        )
    require_spatial((1, *size), "an image whose covariance is estimated")


# Batches in float64, of whole groups where samples are grouped.
def _regrouped(
    batches: Iterable[Tensor], samples: int, shape: tuple[int, ...], centre: str
) -> Iterator[Tensor]:
    group = GROUP if centre == "ensemble" else 1
    waiting: list[Tensor] = []
    seen = 0
    for batch in batches:
        if tuple(batch.shape[1:]) != shape:
            raise InvalidInputError(
                f"expected batches of images of shape {shape}, got {tuple(batch.shape)}"
            )
        if not batch.isfinite().all():
            raise DivergenceError(f"one of the images {seen} to {seen + len(batch)} isn't finite")
        seen += len(batch)
        waiting.append(batch.double())
        available = sum(len(part) for part in waiting)
        if available >= group:
            whole = torch.cat(waiting)
            cut = available - available % group
            waiting = [whole[cut:]]
            yield whole[:cut]
    if seen != samples:
        raise InvalidInputError(f"expected {samples} images in all, got {seen}")


def _centred(batch: Tensor, centre: str) -> tuple[Float[Tensor, "batch channels *spatial"], int]:
    if centre == "none":
        return batch, 1
    if centre == "image":
        means = batch.flatten(2).mean(dim=2)
        return batch - means.reshape(*means.shape, *[1] * (batch.dim() - 2)), 1
    groups = batch.unflatten(0, (-1, GROUP))
    deviations = groups - groups.mean(dim=1, keepdim=True)
    return deviations.flatten(0, 1) * (GROUP / (GROUP - 1)) ** 0.5, GROUP


def _dataset(
    estimators: dict[str, _Estimator],
    mean: RunningMoments,
    matrix: _FullMatrix | None,
    checks: _Checks | None,
    size: tuple[int, ...],
) -> xr.Dataset:
    axes, kernel = AXES[len(size)], estimators["kernel"].function
    before = {"average": (), "each": ("channel",), "cross": ("channel", "other_channel")}
    lead, lags = before[kernel.channels], tuple(f"lag_{axis}" for axis in axes)
    dims = {
        "kernel": (*lead, *lags),
        "second_moment": ("channel", *axes),
        "phase_kernel": (*lead, *(f"phase_{axis}" for axis in axes), *lags),
    }
    units = {"units": "pixels"}
    coords = {n: (n, lag.numpy(), units) for n, lag in zip(lags, kernel.lags, strict=True)}
    dataset = xr.Dataset(coords=coords)
    moments = {key: each.moments for key, each in estimators.items()} | {"mean": mean}
    for key, each in moments.items():
        where = dims.get(key, dims["second_moment"])
        dataset[key] = (where, each.mean.cpu().numpy())
        dataset[f"{key}_standard_error"] = (where, each.standard_error.cpu().numpy())
    if matrix is not None:
        for key, values in zip(("", "_standard_error"), matrix.result(), strict=True):
            dataset[f"full_kernel{key}"] = (("output", "other_output"), values.numpy())
    return dataset if checks is None else checks.add_to(dataset)


def _watched(batches: Iterable[Tensor], bar: Progress) -> Iterator[Tensor]:
    for batch in batches:
        yield batch
        bar.advance(len(batch))
