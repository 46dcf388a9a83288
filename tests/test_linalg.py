"""Operators, Lanczos, quadrature and eigenpairs, each against a dense computation."""

import random
from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.linalg import (
    Deflation,
    DenseOperator,
    Estimate,
    KrylovSpace,
    Lanczos,
    SymmetricOperator,
    gauss,
    gauss_radau,
    ritz_pairs,
    top_eigenpairs,
)
from dipkernels.progress import Progress


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_size(seed: int, low: int = 20, high: int = 50) -> int:
    return random.Random(seed).randrange(low, high)


def with_spectrum(eigenvalues: Tensor, seed: int) -> Tensor:
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    vectors, _ = torch.linalg.qr(draw(len(eigenvalues), len(eigenvalues), seed=seed))
    matrix = (vectors * eigenvalues) @ vectors.T
    return (matrix + matrix.T) / 2


def random_psd(n: int, seed: int) -> Tensor:
    """Eigenvalues log-uniform over four decades below 1."""
    return with_spectrum(
        10 ** (-4 * torch.rand(n, generator=torch.Generator().manual_seed(seed)).double()), seed
    )


def close(actual: object, expected: object, tolerance: float) -> None:
    """Absolute: the matrices here have norm about 1."""
    np.testing.assert_allclose(np.asarray(actual), np.asarray(expected), rtol=0, atol=tolerance)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As for a user: annotations are not checked, so that the package's own validation is met."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# Operators


@pytest.mark.parametrize("seed", range(3))
def test_products_are_those_of_the_matrix(seed: int) -> None:
    n = draw_size(seed)
    matrix, block = random_psd(n, seed), draw(n, 3, seed=seed + 50)
    operator = DenseOperator(matrix)
    # 1e-14: sums of at most 50 terms below 1
    close(operator @ block, matrix.numpy() @ block.numpy(), 1e-14)
    close(operator @ block[:, 0], matrix.numpy() @ block[:, 0].numpy(), 1e-14)
    close(operator.to_dense(), matrix, 1e-15)
    assert operator.T is operator


def test_product_with_an_empty_block_is_empty() -> None:
    assert (DenseOperator(random_psd(23, 0)) @ torch.empty(23, 0, dtype=torch.float64)).shape == (
        23,
        0,
    )


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        (np.ones(7), r"expected a torch.Tensor, got ndarray"),
        (torch.ones(8, dtype=torch.float64), r"expected shape \(7,\) or \(7, k\), got \(8,\)"),
        (torch.ones(1, 7, dtype=torch.float64), r"expected shape .* got \(1, 7\)"),
        (torch.ones(7, 2, 1, dtype=torch.float64), r"expected shape .* got \(7, 2, 1\)"),
        (torch.tensor(1.0, dtype=torch.float64), r"expected shape .* got \(\)"),
        (torch.ones(7), r"expected torch.float64 on cpu, got torch.float32 on cpu: convert"),
        (torch.ones(7, dtype=torch.int64), r"expected torch.float64 on cpu, got torch.int64"),
        (
            torch.ones(7, 2, dtype=torch.float64, device="meta"),
            r"expected torch.float64 on cpu, got torch.float64 on meta",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_products_validate_their_argument(argument: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        DenseOperator(random_psd(7, 0)) @ argument  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(3, 4), (3,), (2, 2, 2)])
@pytest.mark.usefixtures("unchecked")
def test_a_dense_operator_is_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="expected a square matrix, got shape"):
        DenseOperator(torch.ones(shape))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-6)])
def test_scipy_finds_the_same_eigenvalues(dtype: torch.dtype, tolerance: float) -> None:
    matrix = random_psd(37, 1)
    wrapped = DenseOperator(matrix.to(dtype)).to_scipy()
    assert wrapped.dtype == matrix.to(dtype).numpy().dtype
    values = scipy.sparse.linalg.eigsh(wrapped, k=5, return_eigenvectors=False)
    # a few roundings of the operator's type
    close(np.sort(values), np.linalg.eigvalsh(matrix.numpy())[-5:], tolerance)
    # strided, integer and transposed arguments
    block = np.arange(2 * 37 * 3).reshape(3, 74).T[::2]
    close(wrapped.matmat(block), matrix.numpy() @ block, 1e3 * tolerance)
    close(wrapped.rmatvec(block[:, 1]), matrix.numpy() @ block[:, 1], 1e3 * tolerance)


@pytest.mark.parametrize("n", [63, 64, 131])
def test_exact_diagonal_and_trace(n: int) -> None:
    matrix = random_psd(n, n)
    diagonal, trace = DenseOperator(matrix).diagonal(None), DenseOperator(matrix).trace(None)
    # picks entries, rounds nothing
    close(diagonal.value, matrix.diagonal(), 1e-15)
    assert trace.value == pytest.approx(np.trace(matrix.numpy()), rel=1e-14)
    assert (diagonal.standard_error == 0).all()
    assert trace.standard_error == 0
    assert diagonal.products == trace.products == n


def test_trace_estimates_err_as_they_say() -> None:
    probes, seeds = 24, 400
    matrix = random_psd(31, 2)
    estimates = [DenseOperator(matrix).trace(probes, seed=seed) for seed in range(seeds)]
    errors = np.array([e.value for e in estimates]) - np.trace(matrix.numpy())
    scores = errors / np.array([e.standard_error for e in estimates])
    # Student's t with 23 degrees of freedom spreads by 1.05; 400 draws know it to 4 %.
    assert abs(scores.mean()) < 4 / np.sqrt(seeds)
    assert 0.88 < scores.std() < 1.22
    off = matrix - matrix.diagonal().diag()
    # the exact deviation of Hutchinson's estimate with signs, and the documented bound
    assert errors.std() == pytest.approx(np.sqrt(2 / probes) * float(off.norm()), rel=0.16)
    assert errors.std() < np.sqrt(2 / probes) * float(matrix.norm())
    assert estimates[0].products == probes


def test_diagonal_estimates_err_as_they_say() -> None:
    probes, seeds = 24, 300
    matrix = random_psd(29, 3)
    estimates = [DenseOperator(matrix).diagonal(probes, seed=seed) for seed in range(seeds)]
    errors = torch.stack([e.value for e in estimates]) - matrix.diagonal()
    scores = errors / torch.stack([e.standard_error for e in estimates])
    # over 8700 scores, of which those of one seed hang together
    assert abs(float(scores.mean())) < 4 / np.sqrt(seeds)
    assert 0.9 < float(scores.std()) < 1.2
    expected = ((matrix**2).sum(dim=1) - matrix.diagonal() ** 2).sqrt() / probes**0.5
    # 300 draws know a deviation to 4 %; the worst of 29 is within four times that
    np.testing.assert_allclose(errors.std(dim=0), expected, rtol=0.16)
    assert estimates[0].products == probes


def test_estimates_of_a_diagonal_matrix_are_exact() -> None:
    values = torch.rand(19, generator=torch.Generator().manual_seed(4)).double()
    operator = DenseOperator(values.diag())
    # v_i^2 is exactly 1
    close(operator.diagonal(3).value, values, 1e-15)
    close(operator.diagonal(3).standard_error, torch.zeros(19), 1e-15)
    assert operator.trace(3).standard_error == pytest.approx(0, abs=1e-15)


def test_one_probe_has_no_error_bar_and_none_is_an_error() -> None:
    operator = DenseOperator(random_psd(21, 5))
    assert np.isnan(operator.trace(1).standard_error)
    assert operator.diagonal(1).standard_error.isnan().all()
    with pytest.raises(InvalidInputError, match="at least 1 probe is needed, got 0"):
        operator.trace(0)


def test_probes_depend_on_the_seed_and_are_signs() -> None:
    operator = DenseOperator(random_psd(21, 5))
    first, again, other = (operator.rademacher(4, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(first.abs(), torch.ones(21, 4, dtype=torch.float64))


def test_estimates_print_their_error() -> None:
    assert repr(Estimate(1.5, 0.25, 7)) == "Estimate(1.5 +- 0.25, 7 products)"
    assert (
        repr(Estimate(torch.ones(3), torch.ones(3), 7))
        == "Estimate(value of shape (3,), 7 products)"
    )


# Lanczos


def tridiagonal(space: KrylovSpace) -> np.ndarray:
    off = space.beta[:-1]
    return np.diag(space.alpha) + np.diag(off, 1) + np.diag(off, -1)


def check_space(space: KrylovSpace, matrix: Tensor, start: Tensor, projection: Tensor) -> None:
    """All that defines a Lanczos decomposition, of the projected matrix."""
    basis = space.basis
    # 1e-12: full reorthogonalisation keeps these at some roundings of float64
    close(basis @ basis.T, np.eye(len(basis)), 1e-12)
    close(space.products, basis @ matrix, 1e-12)
    projected = projection[:, None] * matrix * projection
    close(basis @ projected @ basis.T, tridiagonal(space), 1e-12)
    begin = start * projection
    assert space.norm == pytest.approx(float(begin.norm()), rel=1e-14)
    close(basis[0] * space.norm, begin, 1e-13)
    # what the tridiagonal leaves over lies along one more vector, of length beta
    rest = projected @ basis.T - basis.T @ torch.from_numpy(tridiagonal(space))
    close(rest[:, :-1], np.zeros(rest[:, :-1].shape), 1e-12)
    assert float(rest[:, -1].norm()) == pytest.approx(space.beta[-1], abs=1e-12)


@pytest.mark.parametrize(
    ("seed", "steps", "starts"), [(0, 1, 1), (1, 9, 3), (2, 17, 2), (3, 40, 2)]
)
def test_lanczos_decomposes_the_matrix(seed: int, steps: int, starts: int) -> None:
    n = draw_size(seed, 41, 60)
    matrix, block = random_psd(n, seed), 3 * draw(n, starts, seed=seed + 50)
    run = Lanczos(DenseOperator(matrix), block).extend(steps)
    assert run.product_count == steps * starts
    for space, start in zip(run.spaces(), block.T, strict=True):
        assert len(space.alpha) == len(space.beta) == steps
        check_space(space, matrix, start, torch.ones(n))


@pytest.mark.parametrize("seed", range(3))
def test_a_mask_means_the_projected_matrix(seed: int) -> None:
    n = draw_size(seed, 30, 45)
    matrix, block = random_psd(n, seed), draw(n, 2, seed=seed + 50)
    mask = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < 0.6
    spaces = Lanczos(DenseOperator(matrix), block, mask=mask).extend(12).spaces()
    small = DenseOperator(matrix[mask][:, mask])
    dense = Lanczos(small, block[mask]).extend(12).spaces()
    for space, expected, start in zip(spaces, dense, block.T, strict=True):
        check_space(space, matrix, start, mask.double())
        close(space.alpha, expected.alpha, 1e-12)
        close(space.beta, expected.beta, 1e-12)
        close(space.basis[:, mask], expected.basis, 1e-11)
        assert (space.basis[:, ~mask] == 0).all()


def test_extending_twice_is_extending_once() -> None:
    matrix, block = random_psd(44, 6), draw(44, 3, seed=7)
    once = Lanczos(DenseOperator(matrix), block).extend(25)
    twice = Lanczos(DenseOperator(matrix), block)
    early = twice.extend(9).spaces()
    late = twice.extend(16).spaces()
    assert once.product_count == twice.product_count == 75
    for a, b, prefix in zip(once.spaces(), late, early, strict=True):
        # the same operations on other memory
        close(a.alpha, b.alpha, 1e-13)
        close(a.beta, b.beta, 1e-13)
        close(a.basis, b.basis, 1e-12)
        close(a.products, b.products, 1e-12)
        # what was handed out before stays as it was
        close(prefix.basis, b.basis[:9], 0)
        close(prefix.alpha, b.alpha[:9], 0)


@pytest.mark.parametrize(
    ("eigenvalues", "distinct"),
    [
        # low rank: the range and one vector of the kernel
        ([0.9, 0.5, 0.2, 0.1, *[0.0] * 28], 5),
        ([1.0] * 11 + [0.4] * 9 + [0.05] * 13, 3),
        ([1.0] * 7 + [0.4] * 12 + [0.0] * 15, 3),
        # the last vector is small
        ([1.0, 1e-8, *[0.0] * 21], 3),
        ([0.7] * 31, 1),
        ([0.0] * 26, 1),
    ],
)
def test_a_run_stops_when_its_space_is_invariant(eigenvalues: list[float], distinct: int) -> None:
    values = torch.tensor(eigenvalues, dtype=torch.float64)
    matrix, block = with_spectrum(values, 8), draw(len(values), 2, seed=9)
    run = Lanczos(DenseOperator(matrix), block).extend(20)
    assert run.product_count == 2 * distinct
    for space, start in zip(run.spaces(), block.T, strict=True):
        assert space.beta[-1] == 0
        check_space(space, matrix, start, torch.ones(len(values)))
        # every quadrature is now exact
        truth = float(start @ torch.linalg.matrix_exp(-3 * matrix) @ start)
        for rule in (space.gauss(), space.gauss_radau()):
            assert float(rule(lambda x: np.exp(-3 * x))) == pytest.approx(truth, rel=1e-12)


def test_runs_of_one_block_stop_each_by_itself() -> None:
    matrix = with_spectrum(torch.linspace(0.1, 1, 33, dtype=torch.float64), 10)
    _, vectors = torch.linalg.eigh(matrix)
    block = torch.stack([vectors[:, 5] + vectors[:, 20], draw(33, seed=11)], dim=1)
    first, second = Lanczos(DenseOperator(matrix), block).extend(14).spaces()
    assert (len(first.alpha), len(second.alpha)) == (2, 14)
    check_space(first, matrix, block[:, 0], torch.ones(33))
    check_space(second, matrix, block[:, 1], torch.ones(33))


@pytest.mark.parametrize("known", [1, 6])
def test_a_masked_run_ends_with_the_mask(known: int) -> None:
    # decaying so fast that the last direction of the mask is near rounding
    matrix = with_spectrum(10.0 ** -torch.arange(0, 13, 0.4, dtype=torch.float64), 12)
    mask = torch.zeros(len(matrix), dtype=torch.bool)
    mask[torch.arange(known) * 5 + 2] = True
    run = Lanczos(DenseOperator(matrix), draw(len(matrix), 1, seed=13), mask=mask).extend(30)
    (space,) = run.spaces()
    assert run.product_count == known
    assert space.beta[-1] == 0
    close(space.basis @ space.basis.T, np.eye(known), 1e-12)


def test_a_float32_operator_costs_only_its_own_rounding() -> None:
    matrix, start = random_psd(48, 14), draw(48, 1, seed=15)
    (space,) = Lanczos(DenseOperator(matrix.float()), start).extend(20).spaces()
    close(space.basis @ space.basis.T, np.eye(20), 1e-12)
    # documented: a matrix about 1e-6 away
    close(space.basis @ matrix @ space.basis.T, tridiagonal(space), 1e-6)
    close(space.products, space.basis @ matrix, 1e-6)
    truth = float(start[:, 0] @ torch.linalg.matrix_exp(-2 * matrix) @ start[:, 0])
    assert float(space.gauss()(lambda x: np.exp(-2 * x))) == pytest.approx(truth, rel=1e-5)


class Broken(SymmetricOperator):
    """Its third product is infinite."""

    def __init__(self) -> None:
        self.shape, self.dtype, self.device = (9, 9), torch.float64, torch.device("cpu")
        self.calls = 0

    def _matmat(self, block: Tensor) -> Tensor:
        self.calls += 1
        return block * torch.arange(9.0, dtype=torch.float64)[:, None] / (self.calls < 3)


def test_an_infinite_product_is_an_error() -> None:
    run = Lanczos(Broken(), draw(9, 2, seed=16)).extend(2)
    with pytest.raises(DivergenceError, match="NaN or infinite"):
        run.extend(1)
    assert run.product_count == 4


@pytest.mark.parametrize(
    ("starts", "mask", "message"),
    [
        (draw(8, 2, seed=0), None, r"starts must have shape \(9, k\), got \(8, 2\)"),
        (torch.eye(9, 2).double() * torch.tensor([1, 0]), None, "zero or not finite"),
        (torch.full((9, 1), torch.nan).double(), None, "zero or not finite"),
        (torch.full((9, 1), torch.inf).double(), None, "zero or not finite"),
        (torch.eye(9, 1).double(), torch.arange(9) > 0, "zero or not finite"),
        (draw(9, 1, seed=0), torch.ones(8, dtype=torch.bool), r"of shape \(9,\), got torch.bool"),
        (draw(9, 1, seed=0), torch.ones(9), r"must be of bool .* got torch.float32"),
    ],
)
def test_lanczos_validates_its_arguments(starts: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Lanczos(DenseOperator(random_psd(9, 0)), starts, mask=mask)


# Deflation


def test_deflation_runs_in_the_complement_of_what_is_known() -> None:
    matrix, start = (
        with_spectrum(0.8 ** torch.arange(35, dtype=torch.float64), 33),
        draw(35, seed=34),
    )
    values, vectors = torch.linalg.eigh(matrix)
    known = Deflation(values[-6:], vectors[:, -6:])
    run = Lanczos(DenseOperator(matrix), start[:, None], deflation=known).extend(9)
    (space,) = run.spaces()
    complement = torch.eye(35, dtype=torch.float64) - known.vectors @ known.vectors.T
    left = complement @ start
    assert space.norm == pytest.approx(float(left.norm()), rel=1e-13)
    close(space.basis @ known.vectors, np.zeros((9, 6)), 1e-13)
    close(space.basis @ space.basis.T, np.eye(9), 1e-12)
    close(space.basis @ matrix @ space.basis.T, tridiagonal(space), 1e-12)
    close(space.products, space.basis @ matrix, 1e-12)
    close(space.deflated.weights, (known.vectors.T @ start) ** 2, 1e-13)
    # the rules bracket the whole form, closer than as many steps without deflation
    (plain,) = Lanczos(DenseOperator(matrix), start[:, None]).extend(9).spaces()
    times = np.array([1.0, 30.0, 200.0])
    truth = np.array([float(start @ torch.linalg.matrix_exp(-t * matrix) @ start) for t in times])

    def decay(x: np.ndarray) -> np.ndarray:
        return np.exp(-np.outer(times, x))

    gaps = []
    for each in (space, plain):
        low, high = each.gauss()(decay), each.gauss_radau()(decay)
        assert (low <= truth * (1 + 1e-12)).all()
        assert (high >= truth * (1 - 1e-12)).all()
        gaps.append(high - low)
    assert (gaps[0][1:] < 0.3 * gaps[1][1:]).all()


@pytest.mark.parametrize("known", [7, 12])
def test_a_deflated_run_ends_with_the_complement(known: int) -> None:
    matrix, start = random_psd(12, 35), draw(12, 2, seed=36)
    values, vectors = torch.linalg.eigh(matrix)
    deflation = Deflation(values[12 - known :], vectors[:, 12 - known :])
    run = Lanczos(DenseOperator(matrix), start, deflation=deflation).extend(20)
    assert run.product_count == 2 * (12 - known)
    for space, column in zip(run.spaces(), start.T, strict=True):
        truth = float(column @ torch.linalg.matrix_exp(-5 * matrix) @ column)
        for rule in (space.gauss(), space.gauss_radau()):
            assert float(rule(lambda x: np.exp(-5 * x))) == pytest.approx(truth, rel=1e-12)


def test_a_start_that_is_known_needs_no_step() -> None:
    matrix = random_psd(20, 37)
    values, vectors = torch.linalg.eigh(matrix)
    start = vectors[:, -3:] @ torch.tensor([2.0, 1.0, -2.0], dtype=torch.float64)
    deflation = Deflation(values[-5:], vectors[:, -5:])
    run = Lanczos(DenseOperator(matrix), start[:, None], deflation=deflation).extend(4)
    assert run.product_count == 0
    (space,) = run.spaces()
    truth = float(start @ matrix @ start)
    assert float(space.gauss_radau()(lambda x: x)) == pytest.approx(truth, rel=1e-13)


def test_only_converged_pairs_are_deflated() -> None:
    matrix = with_spectrum(1.2 ** -torch.arange(60, dtype=torch.float64), 38)
    spaces = Lanczos(DenseOperator(matrix), draw(60, 2, seed=39)).extend(15).spaces()
    pairs = ritz_pairs(spaces, 30)
    residuals = (matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    for tolerance in (1e-1, 1e-3, 1e-6):
        found = pairs.converged(tolerance)
        expected = residuals <= tolerance * pairs.values
        assert 0 < int(expected.sum()) < 30
        assert torch.equal(found.values, pairs.values[expected])
        assert torch.equal(found.vectors, pairs.vectors[:, expected])
    assert len(pairs.converged().values) == len(pairs.converged(1e-3).values)
    # of a relative residual of 1e-3 comes an error of the rules of about that
    start = draw(60, seed=40)
    truth = np.array(
        [float(start @ torch.linalg.matrix_exp(-t * matrix) @ start) for t in (1, 9, 99)]
    )
    run = Lanczos(DenseOperator(matrix), start[:, None], deflation=pairs.converged()).extend(30)
    np.testing.assert_allclose(
        run.spaces()[0].gauss()(lambda x: np.exp(-np.outer([1, 9, 99], x))), truth, rtol=1e-3
    )


def test_a_mask_and_a_deflation_exclude_each_other() -> None:
    known = Deflation(torch.ones(1).double(), torch.eye(9, 1).double())
    with pytest.raises(InvalidInputError, match="can't deflate a masked one"):
        Lanczos(
            DenseOperator(random_psd(9, 0)),
            draw(9, 1, seed=0),
            mask=torch.arange(9) > 3,
            deflation=known,
        )


# Quadrature


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("m", [1, 2, 5, 8])
def test_rules_are_exact_for_polynomials_up_to_their_degree(seed: int, m: int) -> None:
    n = draw_size(seed)
    # evenly spread: no rule is nearly exact before its time
    matrix = with_spectrum(torch.linspace(0, 1, n, dtype=torch.float64), seed)
    start = draw(n, seed=seed + 50)
    (space,) = Lanczos(DenseOperator(matrix), start[:, None]).extend(m).spaces()
    values, vectors = np.linalg.eigh(matrix.numpy())
    weights = (vectors.T @ start.numpy()) ** 2
    for rule, last in ((space.gauss(), 2 * m - 1), (space.gauss_radau(), 2 * m)):
        assert (rule.weights >= 0).all()
        assert (rule.nodes >= 0).all()
        for degree in range(last + 1):
            # Chebyshev polynomials are of size 1 on the spectrum, in [0, 1]
            chebyshev = np.polynomial.Chebyshev.basis(degree, domain=[0, 1])
            # a few roundings of |v|^2, about 50
            assert float(rule(chebyshev)) == pytest.approx(weights @ chebyshev(values), abs=1e-11)
        beyond = np.polynomial.Chebyshev.basis(last + 1, domain=[0, 1])
        assert abs(float(rule(beyond)) - weights @ beyond(values)) > 1e-3
    assert space.gauss_radau().nodes.min() == pytest.approx(0, abs=1e-14)


def spectrum_of(kind: str, n: int) -> Tensor:
    index = torch.arange(n, dtype=torch.float64)
    return {
        "power": (1 + index) ** -2,
        "geometric": 10 ** (-index / 4),
        "singular": torch.where(index < n // 2, 1 / (1 + index), 0.0),
        "uniform": (1 + index) / n,
    }[kind]


@pytest.mark.parametrize("kind", ["power", "geometric", "singular", "uniform"])
def test_rules_bracket_exponentials(kind: str) -> None:
    n = 57
    matrix = with_spectrum(spectrum_of(kind, n), 17)
    start = draw(n, seed=18)
    values, vectors = np.linalg.eigh(matrix.numpy())
    weights = (vectors.T @ start.numpy()) ** 2
    times = np.array([0.1, 1.0, 10.0, 100.0, 1e4, 1e6])

    def decay(x: np.ndarray) -> np.ndarray:
        return np.exp(-np.outer(times, np.maximum(x, 0)))

    truth = decay(values) @ weights
    # of the sums, and of the nodes by some 1e-14
    rounding = (1e-12 + 3e-14 * times) * float(start @ start)
    run = Lanczos(DenseOperator(matrix), start[:, None])
    gaps = []
    for steps in (1, 2, 3, 6, 12):
        (space,) = run.extend(steps).spaces()  # 1, 3, 6, 12, 24 in all
        low, high = space.gauss()(decay), space.gauss_radau()(decay)
        assert low.shape == times.shape
        assert (low <= truth + rounding).all()
        assert (high >= truth - rounding).all()
        gaps.append(high - low)
    gaps = np.array(gaps)
    assert (np.diff(gaps, axis=0) <= rounding).all()
    assert (gaps[0] > 1e-3).all()  # bounds, and not the value itself
    # 24 nodes resolve exp(-t x) up to t = 10: both rules have converged
    np.testing.assert_allclose(low[:3], truth[:3], rtol=1e-10)
    np.testing.assert_allclose(high[:3], truth[:3], rtol=1e-10)


def test_the_functions_take_plain_arrays() -> None:
    alpha, beta = np.array([2.0]), np.array([0.5])
    rule = gauss(alpha, beta, 3.0)
    assert (rule.nodes.tolist(), rule.weights.tolist()) == ([2.0], [9.0])
    # by hand: [[2, .5], [.5, .125]] is singular with trace 2.125
    rule = gauss_radau(alpha, beta, 3.0)
    close(rule.nodes, [0, 2.125], 1e-14)
    close(rule.weights, [9 * 0.125 / 2.125, 9 * 2 / 2.125], 1e-13)


def test_ritz_values_diagonalise_the_tridiagonal() -> None:
    matrix = random_psd(40, 19)
    (space,) = Lanczos(DenseOperator(matrix), draw(40, 1, seed=20)).extend(13).spaces()
    values, vectors = space.ritz()
    assert (np.diff(values) > 0).all()
    close(vectors * values @ vectors.T, tridiagonal(space), 1e-14)


# Eigenpairs


def check_pairs(pairs: object, matrix: Tensor, tolerance: float = 1e-12) -> None:
    """Orthonormal, ordered, with the residuals that they claim, each near an eigenvalue."""
    values, vectors, residuals = pairs.values, pairs.vectors, pairs.residuals  # type: ignore[attr-defined]
    close(vectors.T @ vectors, np.eye(len(values)), 1e-12)
    assert (values.diff() <= 0).all()
    close(residuals, (matrix @ vectors - vectors * values).norm(dim=0), tolerance)
    distance = (values[:, None] - torch.linalg.eigvalsh(matrix)).abs().min(dim=1).values
    assert (distance <= residuals + tolerance).all()


@pytest.mark.parametrize(("seed", "starts"), [(0, 1), (1, 2), (2, 3)])
def test_top_eigenpairs_are_those_of_a_dense_solver(seed: int, starts: int) -> None:
    matrix = with_spectrum(1.3 ** -torch.arange(draw_size(seed, 30, 60), dtype=torch.float64), seed)
    pairs = top_eigenpairs(DenseOperator(matrix), 6, tolerance=1e-9, starts=starts, seed=seed)
    values, vectors = torch.linalg.eigh(matrix)
    check_pairs(pairs, matrix, tolerance=1e-10)
    assert (pairs.residuals <= 1e-9).all()
    # the error of a value is the square of its residual, over the gap
    close(pairs.values, values.flip(0)[:6], 1e-13)
    overlaps = (pairs.vectors * vectors.flip(1)[:, :6]).sum(dim=0).abs()
    close(overlaps, np.ones(6), 1e-12)


def test_ritz_values_approach_from_below_and_report_how_far() -> None:
    matrix = random_psd(52, 21)
    exact = torch.linalg.eigvalsh(matrix).flip(0)
    block = draw(52, 2, seed=22)
    run, last = Lanczos(DenseOperator(matrix), block), torch.zeros(4, dtype=torch.float64)
    for steps in (3, 3, 3, 3):
        pairs = ritz_pairs(run.extend(steps).spaces(), 4)
        check_pairs(pairs, matrix)
        assert (pairs.values <= exact[:4] + 1e-13).all()
        assert (pairs.values >= last - 1e-13).all()
        last = pairs.values
    assert pairs.products == run.product_count == 24
    # the best that the union of both spaces holds, by a dense Rayleigh-Ritz
    powers = torch.cat([torch.linalg.matrix_power(matrix, i) @ block for i in range(3)], dim=1)
    basis, _ = torch.linalg.qr(powers)
    early = ritz_pairs(Lanczos(DenseOperator(matrix), block).extend(3).spaces(), 4)
    close(early.values, torch.linalg.eigvalsh(basis.T @ matrix @ basis).flip(0)[:4], 1e-12)


def test_fewer_pairs_come_from_a_small_space() -> None:
    matrix = random_psd(28, 23)
    pairs = ritz_pairs(Lanczos(DenseOperator(matrix), draw(28, 2, seed=24)).extend(2).spaces(), 9)
    assert len(pairs.values) == 4
    check_pairs(pairs, matrix)


@pytest.mark.parametrize(("starts", "found"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_an_eigenvalue_is_found_as_often_as_there_are_starts(starts: int, found: int) -> None:
    small = 0.5 * 0.8 ** torch.arange(60, dtype=torch.float64)
    matrix = with_spectrum(torch.cat([torch.ones(3, dtype=torch.float64), small]), 25)
    # stops before rounding has brought in directions that the starts don't have
    pairs = top_eigenpairs(DenseOperator(matrix), 4, tolerance=1e-4, starts=starts)
    check_pairs(pairs, matrix)
    assert int((pairs.values > 0.99).sum()) == found


@pytest.mark.parametrize("starts", [2, 4])
@pytest.mark.parametrize("kind", ["power", "geometric"])
def test_several_starts_converge_in_float32(kind: str, starts: int) -> None:
    # Their spaces come to share all leading vectors; the rounding of what is left must not count.
    matrix = with_spectrum(spectrum_of(kind, 150), 26)
    pairs = top_eigenpairs(
        DenseOperator(matrix.float()), 8, tolerance=1e-5, max_products=150, starts=starts
    )
    assert (pairs.residuals <= 1e-5).all()
    assert pairs.products < 100
    check_pairs(pairs, matrix, tolerance=1e-6)
    close(pairs.values, torch.linalg.eigvalsh(matrix).flip(0)[:8], 1e-6)


@pytest.mark.parametrize(
    ("k", "starts", "budget"), [(1, 1, 1), (1, 1, 5), (3, 2, 7), (10, 2, 13), (4, 3, 2), (6, 4, 40)]
)
def test_no_more_products_than_allowed(k: int, starts: int, budget: int) -> None:
    matrix = with_spectrum(torch.linspace(0.01, 1, 300, dtype=torch.float64), 27)
    run = {"tolerance": 1e-14, "max_products": budget, "starts": starts}
    pairs = top_eigenpairs(DenseOperator(matrix), k, **run)
    assert budget - starts < pairs.products <= budget
    check_pairs(pairs, matrix)
    assert (pairs.residuals > 1e-3).all()  # says that it stopped early
    assert len(pairs.values) == min(k, pairs.products)


def test_it_stops_once_the_tolerance_is_met() -> None:
    matrix = with_spectrum(2.0 ** -torch.arange(60, dtype=torch.float64), 28)
    loose = top_eigenpairs(DenseOperator(matrix), 3, tolerance=1e-2)
    tight = top_eigenpairs(DenseOperator(matrix), 3, tolerance=1e-10)
    assert loose.residuals.max() <= 1e-2
    assert tight.residuals.max() <= 1e-10
    assert loose.products < tight.products < 60


@pytest.mark.parametrize("seed", range(6))
def test_no_eigenvector_is_orthogonal_to_the_starts(seed: int) -> None:
    # Eigenvectors (1, -1) and (1, 1): a start of signs would be one of them.
    matrix = torch.tensor([[2.0, -1.0], [-1.0, 2.0]], dtype=torch.float64)
    pairs = top_eigenpairs(DenseOperator(matrix), 1, starts=1, seed=seed)
    close(pairs.values, [3.0], 1e-13)


def test_all_eigenpairs_and_those_of_zero() -> None:
    matrix = random_psd(11, 29)
    pairs = top_eigenpairs(DenseOperator(matrix), 11, tolerance=1e-12)
    close(pairs.values, torch.linalg.eigvalsh(matrix).flip(0), 1e-13)
    nothing = top_eigenpairs(DenseOperator(torch.zeros(5, 5, dtype=torch.float64)), 2)
    close(nothing.values, np.zeros(2), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, "between 1 and 8, got 0"),
        ({"k": 9}, "between 1 and 8, got 9"),
        ({"k": 1, "max_products": 0}, "at least 1, got 0 and 2"),
        ({"k": 1, "starts": 0}, "at least 1, got 400 and 0"),
    ],
)
def test_top_eigenpairs_validates_its_settings(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        top_eigenpairs(DenseOperator(random_psd(8, 30)), **settings)


def test_progress_advances_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    advanced = []
    monkeypatch.setattr(Progress, "advance", lambda self, steps=1: advanced.append(steps))
    with Progress(0, "test", enabled=False) as bar:
        Lanczos(DenseOperator(random_psd(8, 31)), draw(8, 3, seed=32)).extend(5, progress=bar)
    assert sum(advanced) == 5
