"""The calculus on a lag grid against dense matrices."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    activation,
    added,
    average_pool,
    batch_norm,
    convolve,
    mixed,
    stride,
    upsample,
)
from dipkernels.kernels.stationary.kernel import with_period
from dipkernels.kernels.stationary.maps import filtered, shifted
from dipkernels.kernels.stationary.normalisation import centred

SIZES = [(12,), (6, 4)]
# Products of small matrices with entries of order 1, in float64.
EXACT = {"rtol": 0, "atol": 1e-12}


def random_kernel(size: tuple[int, ...], period: tuple[int, ...], seed: int) -> StationaryKernel:
    """Covariance and tangent kernel that are positive, from random roots of the right symmetry."""
    random = np.random.default_rng(seed)
    n = math.prod(size)
    tables = []
    for _ in range(2):
        root = random.standard_normal((n, n))
        dense = (root @ root.T / n).reshape(*size, *size)
        turned = np.zeros_like(dense)
        axes = tuple(range(2 * len(size)))
        counts = [s // t for s, t in zip(size, period, strict=True)]
        for steps in np.ndindex(*counts):
            shift = [k * t for k, t in zip(steps, period, strict=True)]
            turned += np.roll(dense, shift + shift, axes) / math.prod(counts)
        tables.append(table_of(torch.tensor(turned), period))
    mean = torch.tensor(random.standard_normal(period))
    return StationaryKernel(tables[0], tables[1], mean, scale_weight=0.0)


def table_of(dense: Tensor, period: tuple[int, ...]) -> Tensor:
    """Read the table off a dense matrix (*size, *size), entry by entry."""
    size = dense.shape[: len(period)]
    table = torch.zeros(*period, *size, dtype=torch.float64)
    for p in np.ndindex(*period):
        for r in np.ndindex(*size):
            there = tuple((a + b) % n for a, b, n in zip(p, r, size, strict=True))
            table[(*p, *r)] = dense[(*p, *there)]
    return table


def kron(matrices: list[np.ndarray]) -> Tensor:
    product = matrices[0]
    for matrix in matrices[1:]:
        product = np.kron(product, matrix)
    return torch.tensor(product)


def interpolation(n: int, factor: int, mode: str) -> np.ndarray:
    """The matrix of one axis of a torus, from the definition of each mode."""
    matrix = np.zeros((factor * n, n))
    for i in range(factor * n):
        if mode == "nearest":
            matrix[i, i // factor] = 1
        elif mode == "zero":
            matrix[i, i // factor] = i % factor == 0
        elif mode == "bilinear":
            position = (i + 0.5) / factor - 0.5
            low = math.floor(position)
            matrix[i, low % n] += 1 - (position - low)
            matrix[i, (low + 1) % n] += position - low
        else:
            for m in range(n):
                x = i / factor - m
                frequencies = np.arange(-(n - 1) // 2 if n % 2 else 1 - n // 2, (n + 1) // 2)
                matrix[i, m] = np.cos(2 * np.pi * frequencies * x / n).sum() / n
                if n % 2 == 0:
                    matrix[i, m] += np.cos(np.pi * m) * np.cos(np.pi * i / factor) / n
    return matrix


def check(kernel: StationaryKernel, dense: Tensor, tangent: Tensor) -> None:
    torch.testing.assert_close(kernel.to_dense(), dense, **EXACT)
    torch.testing.assert_close(kernel.to_dense("ntk"), tangent, **EXACT)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "zero", "sinc"])
@pytest.mark.parametrize("factor", [2, 3])
def test_upsampling_is_the_dense_product(size: tuple[int, ...], mode: str, factor: int) -> None:
    period = (1,) * len(size) if mode == "sinc" else (3, 2)[: len(size)]
    kernel = random_kernel(size, period, seed=factor)
    fine = upsample(kernel, factor, mode)
    u = kron([interpolation(n, factor, mode) for n in size])
    check(fine, u @ kernel.to_dense() @ u.T, u @ kernel.to_dense("ntk") @ u.T)
    spread = kernel.mean.repeat(*(n // t for n, t in zip(size, period, strict=True))).flatten()
    repeats = [n // t for n, t in zip(fine.size, fine.period, strict=True)]
    torch.testing.assert_close(fine.mean.repeat(*repeats).flatten(), u @ spread, **EXACT)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "zero"])
def test_a_shorter_period_is_the_average_of_the_exact_table(mode: str) -> None:
    kernel = random_kernel((12,), (3,), seed=5)
    exact = upsample(kernel, 2, mode)
    for most, kept in ((1, 1), (3, 3), (5, 3)):
        short = upsample(kernel, 2, mode, max_period=most)
        assert short.period == (kept,)
        table = exact.covariance_table.reshape(-1, kept, 24).mean(dim=0)
        torch.testing.assert_close(short.covariance_table, table, **EXACT)
    torch.testing.assert_close(
        with_period(exact, (3,)).ntk_table[1], exact.ntk_table[[1, 4]].mean(0)
    )


def test_closure_of_bilinear_doubling_is_the_known_filter() -> None:
    closed = upsample(StationaryKernel.white((8,)), 2, "bilinear", max_period=1)
    expected = torch.tensor([20, 15, 6, 1, *[0] * 9, 1, 6, 15], dtype=torch.float64) / 32
    torch.testing.assert_close(closed.covariance, expected, **EXACT)
    white = upsample(StationaryKernel.white((8,)), 2, "nearest").covariance_table
    assert white[0, 1] == 1 and white[1, 1] == 0


def test_sinc_stretches_the_kernel_where_nothing_is_at_the_highest_frequency() -> None:
    kernel = random_kernel((9,), (1,), seed=2)
    fine = upsample(kernel, 2, "sinc")
    assert fine.period == (1,)
    torch.testing.assert_close(fine.covariance[::2], kernel.covariance, **EXACT)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_random_convolution_averages_over_equal_taps(size: tuple[int, ...]) -> None:
    dims = len(size)
    kernel = random_kernel(size, (3, 2)[:dims], seed=3)
    weights = Weights.standard(0.6, 0.05, fan_in=45)
    out = convolve(kernel, (3, 2)[:dims], weights, dilation=(2, 1)[:dims])
    expected = [torch.zeros_like(kernel.to_dense()) for _ in range(2)]
    taps = [(-2, 0, 2), (0, 1)][:dims]
    for at in np.array(np.meshgrid(*taps)).reshape(dims, -1).T:
        shift = kron([np.roll(np.eye(n), int(-o), 0) for n, o in zip(size, at, strict=True)])
        for total, which in zip(expected, ("covariance", "ntk"), strict=True):
            total += shift.T @ kernel.to_dense(which) @ shift / math.prod(map(len, taps))
    # The expectation of sum_u w_u x(p + u) sum_v w_v x(p' + v), entry by entry of the shifts.
    mean, tangent = expected
    if dims == 1:
        roll = lambda a, o: torch.roll(a, (-o, -o), (0, 1))  # noqa: E731
        dense = kernel.to_dense()
        torch.testing.assert_close(sum(roll(dense, o) for o in (-2, 0, 2)) / 3, mean, **EXACT)
    check(out, 0.6 * mean + 0.05, 45 * mean + 1 + 0.6 * tangent)
    assert float(out.mean.abs().max()) == 0
    ntk = convolve(kernel, 1, Weights.ntk(0.6, 0.05))
    torch.testing.assert_close(
        ntk.ntk_table, ntk.covariance_table + 0.6 * kernel.ntk_table, **EXACT
    )


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_filter_stride_pooling_and_shift_are_dense_products(size: tuple[int, ...]) -> None:
    dims = len(size)
    kernel = random_kernel(size, (3, 2)[:dims], seed=4)
    dense = {which: kernel.to_dense(which) for which in ("covariance", "ntk")}
    taps = torch.tensor(np.random.default_rng(0).standard_normal((4, 3)[:dims]))
    matrix = torch.zeros(math.prod(size), math.prod(size), dtype=torch.float64)
    for j in np.ndindex(*taps.shape):
        offsets = [i - b for i, b in zip(j, (2, 1), strict=False)]
        shift = kron([np.roll(np.eye(n), -o, 0).T for n, o in zip(size, offsets, strict=True)])
        matrix += taps[j] * shift.T
    pick = kron([np.eye(n)[::2] for n in size])
    start = kron([np.roll(np.eye(n), -1, 0) for n in size])
    block = kron([np.kron(np.eye(n // 2), np.full((1, 2), 0.5)) for n in size])
    for out, a in (
        (filtered(kernel, taps), matrix),
        (stride(kernel, 2), pick),
        (stride(kernel, 2, start=1), pick @ start),
        (shifted(kernel, (1,) * dims), start),
        (average_pool(kernel, 2), block),
    ):
        check(out, a @ dense["covariance"] @ a.T, a @ dense["ntk"] @ a.T)
    with pytest.raises(InvalidInputError, match="multiples"):
        stride(kernel, 5)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_activation_uses_the_variances_of_both_pixels(size: tuple[int, ...]) -> None:
    kernel = random_kernel(size, (3, 2)[: len(size)], seed=6)
    dense, q = kernel.to_dense(), kernel.to_dense().diagonal()
    for name in ("relu", "gelu"):
        dual = activation(name)
        args = (q[:, None], q[None, :], dense)
        check(
            activate(kernel, name),
            dual.covariance(*args),
            dual.derivative(*args) * kernel.to_dense("ntk"),
        )


def test_derivative_of_channel_scales_goes_through_an_activation() -> None:
    kernel = batch_norm(random_kernel((12,), (2,), seed=9), scale=1.4)
    dual, q = activation("tanh"), kernel.variances
    out = activate(kernel, "tanh")
    bare = kernel.ntk_table - kernel.covariance_table / 1.4**2
    p, r = 1, 5
    there = q[(p + r) % 2]
    k = kernel.covariance_table[p, r]
    expected = dual.derivative(q[p], there, k) * bare[p, r] + dual.scale(q[p], there, k) / 1.4**2
    assert abs(float(out.ntk_table[p, r] - expected)) < 1e-12


def test_concatenation_and_sums() -> None:
    one, two = random_kernel((12,), (2,), 1), random_kernel((12,), (3,), 2)
    both = mixed([one, two], [3, 1])
    check(
        both,
        0.75 * one.to_dense() + 0.25 * two.to_dense(),
        0.75 * one.to_dense("ntk") + 0.25 * two.to_dense("ntk"),
    )
    total = added(one, two)
    m1, m2 = one.mean.repeat(6), two.mean.repeat(4)
    cross = torch.outer(m1, m2) + torch.outer(m2, m1)
    check(
        total,
        one.to_dense() + two.to_dense() + cross,
        one.to_dense("ntk") + two.to_dense("ntk"),
    )
    with pytest.raises(InvalidInputError, match="different sizes"):
        mixed([one, StationaryKernel.white((8,))], [1, 1])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_centring_and_large_image_normalisation(size: tuple[int, ...]) -> None:
    kernel = random_kernel(size, (3, 2)[: len(size)], seed=8)
    n = math.prod(size)
    project = torch.eye(n, dtype=torch.float64) - 1 / n
    dense, tangent = (project @ kernel.to_dense(w) @ project for w in ("covariance", "ntk"))
    check(centred(kernel, learned_bias=True), dense, tangent + 1)
    variance = dense.diagonal().mean() + 0.01
    normal = batch_norm(kernel, epsilon=0.01, scale=2.0)
    check(normal, 4 * dense / variance, 4 * tangent / variance + dense / variance + 1)
    again = batch_norm(normal, epsilon=0.0, learned=False)
    bare = project @ (4 * tangent / variance + 1) @ project
    scale = (4 * dense / variance).diagonal().mean()
    torch.testing.assert_close(again.to_dense("ntk"), bare / scale, **EXACT)


@pytest.mark.parametrize(("size", "period"), [((12,), (3,)), ((6, 4), (3, 2)), ((6, 4), (1, 1))])
def test_block_transform_spectrum_and_draws(size: tuple[int, ...], period: tuple[int, ...]) -> None:
    kernel = random_kernel(size, period, seed=10)
    dense = kernel.to_dense()
    torch.testing.assert_close(kernel.eigenvalues(), torch.linalg.eigvalsh(dense), **EXACT)
    stationary = kernel.phase_averaged()
    torch.testing.assert_close(
        stationary.spectrum().flatten().sort().values,
        torch.linalg.eigvalsh(stationary.to_dense()),
        **EXACT,
    )
    count = 40000
    drawn = kernel.sample(count, seed=1).flatten(1)
    deviation = ((dense.diagonal()[:, None] * dense.diagonal() + dense.square()) / count).sqrt()
    scores = (drawn.T @ drawn / count - dense) / deviation
    # Correlated standard scores: the largest of 576 is below 5, their square is 1 on average.
    assert scores.abs().max() < 5
    assert 0.6 < float(scores.square().mean()) < 1.5
    assert torch.equal(kernel.sample(2, seed=1), kernel.sample(2, seed=1))


def test_an_indefinite_kernel_has_no_draws() -> None:
    kernel = StationaryKernel.from_lags(torch.tensor([1.0, 0.9, -0.8, 0.9]))
    with pytest.raises(InvalidInputError, match="positive semi-definite"):
        kernel.sample(1)


def test_wrong_tables_are_refused() -> None:
    table = torch.ones(2, 6, dtype=torch.float64)
    with pytest.raises(InvalidInputError, match="float64"):
        StationaryKernel(table.float(), table, torch.zeros(2, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="divide"):
        StationaryKernel(table[:, :5], table[:, :5], torch.zeros(2, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="mean"):
        StationaryKernel(table, table, torch.zeros(3, dtype=torch.float64))
    kernel = StationaryKernel.white((4, 4))
    for wrong in (
        lambda: upsample(kernel, 2, "cubic"),
        lambda: upsample(kernel, 1, "nearest"),
        lambda: upsample(kernel, 2, "nearest", max_period=0),
        lambda: upsample(upsample(kernel, 2, "nearest"), 2, "sinc"),
        lambda: convolve(kernel, 0, Weights.ntk(1.0)),
        lambda: batch_norm(kernel, method="small"),
        lambda: kernel.spectrum("both"),
        lambda: kernel.sample(0),
        lambda: batch_norm(StationaryKernel.from_lags(torch.ones(8)), epsilon=0.0),
    ):
        with pytest.raises(InvalidInputError):
            wrong()
