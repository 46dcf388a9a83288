"""Tests of what theory says of a random field: stationary, isotropic, Gaussian.

Each is a statistic whose law under its hypothesis is known when the samples are many. Samples are
independent, pixels of one sample are not: so every test first reduces a sample to a few numbers,
and only then looks at their scatter over samples.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.statistics import RunningCovariance, RunningMoments, jackknife_error
from dipkernels.kernels.covariances.lagged import LaggedProducts

# Pairs of lags of the same length that no symmetry of the square lattice exchanges.
EQUAL_RADII = (((0, 5), (3, 4)), ((1, 7), (5, 5)), ((1, 8), (4, 7)))
MOST_POSITIONS = 4096

Lags = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class TestResult:
    """Result of a test."""

    statistic: float
    p_value: float

    @property
    def z(self) -> float:
        """Normal score of the p-value: above 3 is no accident."""
        return float(scipy.stats.norm.isf(self.p_value))


class MeanIsZero:
    """Hotelling's test that contrasts, a short vector for each sample, have mean zero.

    ``T^2 = n m^T C^-1 m``, which ``(n - k) / (k (n - 1))`` turns into an F(k, n - k) variable for
    Gaussian contrasts, and nearly for others when n is large. Directions that don't vary are
    left out. Source: Hotelling 1931.
    """

    def __init__(self, contrasts: Callable[[Tensor], Tensor]) -> None:
        self._contrasts = contrasts
        self._moments = RunningCovariance()

    def update(self, images: Float[Tensor, "batch channels *spatial"], group: int) -> None:
        """Take in images, of which every ``group`` in a row are averaged to one sample."""
        rows = self._contrasts(images)
        self._moments.update(rows.unflatten(0, (-1, group)).mean(dim=1).cpu())

    def verdict(self) -> TestResult:
        """Test whether the mean is zero."""
        n = self._moments.count
        if n < 2:
            return TestResult(math.nan, math.nan)
        scale = self._moments.covariance.diagonal().sqrt()
        used = scale > 1e-12 * scale.max()
        mean = (self._moments.mean / scale)[used]
        matrix = (self._moments.covariance / torch.outer(scale, scale))[used][:, used]
        values, vectors = torch.linalg.eigh(matrix)
        kept = values > 1e-10 * max(1.0, len(mean))
        k = int(kept.sum())
        if k == 0 or n <= k + 1:
            return TestResult(math.nan, math.nan)
        parts = (vectors[:, kept].T @ mean).square() / values[kept]
        f = float(n * parts.sum()) * (n - k) / (k * (n - 1))
        return TestResult(f, float(scipy.stats.f.sf(f, k, n - k)))


def variance_contrasts(size: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Contrasts of ``f(p)^2`` over positions, zero in the mean if all pixels vary alike."""
    patterns = _patterns(size, slow=2, frame=True)

    def contrasts(images: Tensor) -> Tensor:
        squares = images.square().mean(dim=1).flatten(1)
        return squares @ patterns.to(squares.device)

    return contrasts


def neighbour_contrasts(size: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """Contrasts of ``f(p) f(p + 1)`` along each axis over positions."""
    dims = len(size)
    shapes = [tuple(n - (a == axis) for a, n in enumerate(size)) for axis in range(dims)]
    patterns = [_patterns(shape, slow=1, frame=False) for shape in shapes]

    def contrasts(images: Tensor) -> Tensor:
        rows = []
        for axis in range(dims):
            n = images.shape[2 + axis]
            products = images.narrow(2 + axis, 0, n - 1) * images.narrow(2 + axis, 1, n - 1)
            flat = products.mean(dim=1).flatten(1)
            rows.append(flat @ patterns[axis].to(flat.device))
        return torch.cat(rows, dim=1)

    return contrasts


def symmetry_contrasts(products: LaggedProducts) -> Callable[[Tensor], Tensor]:
    """Contrasts of ``K(r)`` between lags that reflections of the lattice exchange; 2D."""
    near = range(1, min(3, _reach(products)) + 1)
    pairs: list[tuple[Lags, Lags]] = [(((0, r),), ((r, 0),)) for r in near]
    pairs += [(((r, r),), ((r, -r),)) for r in near]
    return _lag_contrasts(products, pairs)


def rotation_contrasts(products: LaggedProducts) -> Callable[[Tensor], Tensor] | None:
    """Contrasts of ``K(r)`` between lags of equal length that only rotations exchange; 2D."""
    reach = _reach(products)
    pairs = [
        (_orbit(one), _orbit(other)) for one, other in EQUAL_RADII if max(*one, *other) <= reach
    ]
    return _lag_contrasts(products, pairs) if pairs else None


class Gaussianity:
    """Skewness and excess kurtosis of single pixels, pooled over positions, with their errors.

    Moments about each pixel's own mean, over samples, so that neither a mean nor a variance that
    depends on position counts as non-Gaussian. The estimates are exactly unbiased for Gaussian
    pixels (``E b2 = 3 (n - 1)/(n + 1)`` is divided out), and their errors come from the jackknife
    over groups of samples. Every marginal can be Gaussian without the field being so.
    """

    def __init__(self, samples: int, groups: int = 24) -> None:
        self.groups = max(2, min(groups, samples // 4))
        self._per_group = -(-samples // self.groups)
        self._seen = 0
        self._sums: list[Tensor] = []
        self._counts: list[int] = []
        self._origin: Tensor | None = None

    def update(self, images: Float[Tensor, "batch channels *spatial"]) -> None:
        """Take in a batch of samples."""
        flat = images.flatten(2)
        step = max(1, -(-flat.shape[2] // MOST_POSITIONS))
        flat = flat[:, :, ::step].flatten(1)
        if self._origin is None:
            self._origin = flat[0].clone()  # a shift: powers of large means would lose digits
        flat = flat - self._origin
        for sample in flat:
            if self._seen % self._per_group == 0:
                self._sums.append(torch.zeros(4, len(sample), dtype=sample.dtype).to(sample.device))
                self._counts.append(0)
            square = sample * sample
            self._sums[-1] += torch.stack([sample, square, square * sample, square * square])
            self._counts[-1] += 1
            self._seen += 1

    def result(self) -> dict[str, tuple[float, float, TestResult]]:
        """Estimate skewness and excess kurtosis, and test both."""
        sums, counts = torch.stack(self._sums), torch.tensor(self._counts, dtype=torch.float64)
        total, g = sums.sum(dim=0), len(counts)
        whole = _shape_moments(total, float(counts.sum()))
        if g < 3 or float(counts.sum() - counts.max()) < 4:
            nothing = TestResult(math.nan, math.nan)
            return {k: (v, math.nan, nothing) for k, v in whole.items()}
        left_out = [
            _shape_moments(total - s, float(counts.sum() - c))
            for s, c in zip(sums, counts, strict=True)
        ]
        result = {}
        for key, value in whole.items():
            others = np.array([each[key] for each in left_out])
            error = float(jackknife_error(others))
            t = value / error if error > 0 else math.nan
            p = float(2 * scipy.stats.t.sf(abs(t), g - 1))
            result[key] = (value, error, TestResult(t, p))
        return result


class VarianceSpread:
    """Spread of the pixels' variances over positions, with the sampling error removed."""

    def __init__(self) -> None:
        self._deviations = RunningMoments()
        self._level = RunningMoments()

    def update(self, images: Float[Tensor, "batch channels *spatial"], group: int) -> None:
        """Take in images, of which every ``group`` in a row are averaged to one sample."""
        squares = images.square().unflatten(0, (-1, group)).mean(dim=(1, 2)).flatten(1)
        self._level.update(squares.mean(dim=1))
        self._deviations.update(squares - squares.mean(dim=1, keepdim=True))

    def value(self) -> float:
        """Estimate the spread."""
        spread = self._deviations.mean.square() - self._deviations.standard_error.square()
        return float(spread.mean().clamp(min=0).sqrt() / self._level.mean)


def _shape_moments(sums: Tensor, n: float) -> dict[str, float]:
    m1, m2, m3, m4 = sums / n
    variance = m2 - m1**2
    used = variance > 1e-12 * variance.max()
    m1, m2, m3, m4, variance = (m[used] for m in (m1, m2, m3, m4, variance))
    third = m3 - 3 * m1 * m2 + 2 * m1**3
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    kurtosis = (fourth / variance**2).mean() * (n + 1) / (n - 1) - 3
    return {"skewness": float((third / variance**1.5).mean()), "kurtosis": float(kurtosis)}


# Zero-mean functions of position, one a column, scaled as means.
def _patterns(size: tuple[int, ...], *, slow: int, frame: bool) -> Tensor:
    dims, columns = len(size), []
    lines = [(torch.arange(n, dtype=torch.float64) + 0.5) * (math.pi / n) for n in size]
    grids = torch.meshgrid(*lines, indexing="ij")
    parities = torch.meshgrid(*(torch.arange(n) % 2 for n in size), indexing="ij")
    for grid, parity in zip(grids, parities, strict=True):
        columns += [(order * grid).cos() for order in range(1, slow + 1)] + [parity.double()]
    if dims > 1 and slow > 1:
        columns.append(grids[0].cos() * grids[1].cos())
    if frame and min(size) > 2:
        border = torch.ones(size, dtype=torch.float64)
        border[(slice(1, -1),) * dims] = 0
        columns.append(border)
    matrix = torch.stack([column.flatten() for column in columns], dim=1)
    return (matrix - matrix.mean(dim=0)) / len(matrix)


def _reach(products: LaggedProducts) -> int:
    return min(int(lag.max()) for lag in products.lags)


def _orbit(lag: tuple[int, int]) -> Lags:
    y, x = lag
    return tuple({(y, x), (x, y), (-y, x), (-x, y)})


def _lag_contrasts(
    products: LaggedProducts, pairs: list[tuple[Lags, Lags]]
) -> Callable[[Tensor], Tensor]:
    zero = [int((lag == 0).nonzero()) for lag in products.lags]

    def mean(kernel: Tensor, lags: Lags) -> Tensor:
        return torch.stack([kernel[:, zero[0] + y, zero[1] + x] for y, x in lags]).mean(dim=0)

    def contrasts(images: Tensor) -> Tensor:
        kernel = products(images)
        return torch.stack([mean(kernel, one) - mean(kernel, other) for one, other in pairs], dim=1)

    return contrasts
