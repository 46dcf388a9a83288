"""Operators, their estimates and their errors, against dense matrices."""

from collections.abc import Iterator

import jaxtyping
import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from dipkernels.errors import InvalidInputError
from dipkernels.linalg import (
    DenseOperator,
    Estimate,
)
from helpers.matrices import (
    close,
    draw,
    draw_size,
    random_psd,
)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As for a user: annotations are not checked, so that the package's own validation is met."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


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
        ([1.0] * 7, r"expected a torch.Tensor, a NumPy array or an operator, got a list"),
        (np.array(["a"] * 7), r"expected an array of numbers, got one of <U1"),
        (np.ones(8), r"expected shape \(7,\) or \(7, k\), got \(8,\)"),
        (
            torch.ones(7, dtype=torch.complex64),
            r"expected torch.complex128 on cpu, got .*complex64",
        ),
        (torch.eye(7, dtype=torch.float64).to_sparse(), r"expected a dense tensor, got .*sparse"),
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
    assert diagonal.matvecs == trace.matvecs == n


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
    assert estimates[0].matvecs == probes


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
    assert estimates[0].matvecs == probes


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
