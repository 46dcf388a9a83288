"""Sums, products and adjoints of operators, arrays and complex vectors, against dense matrices."""

import operator as arithmetic
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from dipkernels.errors import DivergenceError, InvalidInputError, NotSymmetricError
from dipkernels.linalg import (
    DenseOperator,
    DiagonalOperator,
    Lanczos,
    LinearOperator,
    SymmetricOperator,
    conjugate_gradients,
    krylov_probes,
    spectral_density,
    top_eigenpairs,
)
from helpers.matrices import close, draw, random_psd

N, M = 11, 7


class Rectangular(LinearOperator):
    """A matrix (7, 11) that is known by its products, one column at a time."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.shape = (matrix.shape[0], matrix.shape[1])
        self.dtype, self.device = matrix.dtype, matrix.device

    def _matmat(self, block: Tensor) -> Tensor:
        return torch.stack([self.matrix @ column for column in block.T], dim=1)

    def _rmatmat(self, block: Tensor) -> Tensor:
        return torch.stack([self.matrix.T @ column for column in block.T], dim=1)


K, L, S = random_psd(N, 1), random_psd(N, 2), random_psd(M, 3)
B, D = draw(M, N, seed=4) / 4, draw(N, seed=5)
k, l, s = DenseOperator(K), DenseOperator(L), DenseOperator(S)  # noqa: E741
b, d = Rectangular(B), DiagonalOperator(D)
I = DiagonalOperator(torch.ones(N, dtype=torch.float64))  # noqa: E741

# What is made, the same densely, and whether it is known to be symmetric.
CASES: dict[str, tuple[LinearOperator, Tensor, bool]] = {
    "sum": (k + l, K + L, True),
    "difference": (k - l, K - L, True),
    "multiples": (2 * k - l * 3 + k / 4 - -k, 3.25 * K - 3 * L, True),
    "numbers of other libraries": (np.float32(2) * k * torch.tensor(0.5), K, True),
    "of a list": (sum([k, l, d]) / 3, (K + L + D.diag()) / 3, True),
    "number less": (0 - k, -K, True),
    "identity": (
        k + 0.1 * DiagonalOperator(torch.ones(N).double()),
        K + 0.1 * torch.eye(N).double(),
        True,
    ),
    "rectangular": (b, B, False),
    "adjoint": (b.adjoint(), B.T, False),
    "sum of rectangular ones": (b - 2 * b.T.T, -B, False),
    "adjoint of a sum": ((b + s @ b).T, (B + S @ B).T, False),
    "product": (k @ l, K @ L, False),
    "adjoint of a product": ((b @ k).H, (B @ K).T, False),
    "square": (k @ k, K @ K, True),
    "cube": (k @ k @ k, K @ K @ K, True),
    "gram": (b @ b.T, B @ B.T, True),
    "other gram": (b.T @ b, B.T @ B, True),
    "scaled gram": ((2 * b) @ (b.T / 4), B @ B.T / 2, True),
    "sandwich": (b @ k @ b.T, B @ K @ B.T, True),
    "sandwich by parts": (b @ (k @ b.T), B @ K @ B.T, True),
    "sandwich of a sum": (d @ (k - l) @ d, D[:, None] * (K - L) * D, True),
    "like a sandwich": (b @ k @ l @ b.T, B @ K @ L @ B.T, False),
    "nested": (2 * (b @ (k + d) @ b.T) - s, 2 * B @ (K + D.diag()) @ B.T - S, True),
}


@pytest.mark.parametrize("name", CASES)
def test_composed_operators_are_the_composed_matrices(name: str) -> None:
    made, dense, symmetric = CASES[name]
    rows, columns = dense.shape
    assert made.shape == (rows, columns)
    assert isinstance(made, SymmetricOperator) == symmetric
    # 1e-14: sums of at most 11 terms of order 1, some of them nested
    close(made.to_dense(), dense, 1e-14)
    close(made @ draw(columns, 3, seed=6), dense @ draw(columns, 3, seed=6), 1e-14)
    close(made @ draw(columns, seed=6), dense @ draw(columns, seed=6), 1e-14)
    close(made.T @ draw(rows, 2, seed=7), dense.T @ draw(rows, 2, seed=7), 1e-14)
    close(draw(rows, seed=7) @ made, draw(rows, seed=7) @ dense, 1e-14)
    close(draw(2, rows, seed=7).numpy() @ made, draw(2, rows, seed=7) @ dense, 1e-14)
    assert (made @ torch.empty(columns, 0, dtype=torch.float64)).shape == (rows, 0)
    if isinstance(made, SymmetricOperator):
        assert made.T is made
        block = draw(columns, 3, seed=8)
        close(made.quadratic_form(block), ((dense @ block) * block).sum(dim=0), 2e-14)
        close(made.diagonal(None).value, dense.diagonal(), 1e-14)
        assert made.trace(None).value == pytest.approx(float(dense.trace()), abs=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_complex_vectors_keep_their_imaginary_part(name: str) -> None:
    made, dense, symmetric = CASES[name]
    x = torch.complex(draw(dense.shape[1], 2, seed=1), draw(dense.shape[1], 2, seed=2))
    expected = dense.to(x.dtype) @ x
    close(made @ x, expected, 2e-14)
    close(made @ x.conj()[:, 0], expected[:, 0].conj().resolve_conj(), 2e-14)
    close(made @ x.numpy(), expected, 2e-14)
    close(made.to_scipy() @ x.numpy(), expected, 2e-14)
    close(made.to_scipy().H @ expected.numpy(), dense.T.to(x.dtype) @ expected, 1e-13)
    if symmetric and isinstance(made, SymmetricOperator):
        forms = (x.conj() * expected).sum(dim=0)
        close(made.quadratic_form(x), forms.real, 2e-14)
        assert not made.quadratic_form(x).is_complex()
        assert made.quadratic_form(x[:, 0]).shape == ()
        close(made.quadratic_form(x.numpy()), forms.real, 2e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, bool, np.longdouble, ">f8"])
def test_arrays_are_converted(dtype: Any) -> None:
    array = (np.arange(3 * N).reshape(3, N).T % 5).astype(dtype)
    plain = array.astype(np.float64)
    for made, dense, accuracy in ((k, K, 1e-13), (DenseOperator(K.float()), K, 1e-4)):
        found = made @ array
        assert isinstance(found, np.ndarray)
        assert found.dtype == (np.float64 if made.dtype == torch.float64 else np.float32)
        close(found, dense.numpy() @ plain, accuracy)  # in float32 sums of numbers of order 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_speaks_to_numpy_in_single(dtype: torch.dtype) -> None:
    made, x = DenseOperator(K.to(dtype)), np.exp(2j * np.pi * np.arange(N) / N)
    for found in (made.to_scipy() @ x, made @ x, scipy.sparse.linalg.aslinearoperator(made) @ x):
        assert found.dtype == np.complex64
        # two roundings of 2^-8 or 2^-11 of numbers below 1, 11 of them summed
        close(found, K.numpy() @ x, 20 * torch.finfo(dtype).eps)
    assert (made @ torch.ones(N, dtype=dtype)).dtype == dtype
    assert made.to_scipy().dtype == np.float32
    assert made.dtype == dtype


def test_scipy_takes_operators_themselves() -> None:
    wrapped = scipy.sparse.linalg.aslinearoperator(k)
    assert (wrapped.dtype, k.dtype) == (np.float64, torch.float64)
    block = draw(N, 3, seed=1).numpy()
    close(wrapped @ block, K.numpy() @ block, 1e-14)
    # iterative methods of SciPy to their default, some roundings
    close(scipy.sparse.linalg.eigsh(k, 3, which="LA")[0], torch.linalg.eigvalsh(K)[-3:], 1e-12)
    found = scipy.sparse.linalg.svds(b, 2, return_singular_vectors=False)
    close(np.sort(found), torch.linalg.svdvals(B)[:2].flip(0), 1e-12)
    x, _ = scipy.sparse.linalg.cg(k + d @ d, block[:, 0], rtol=1e-10)
    close(x, np.linalg.solve((K + (D**2).diag()).numpy(), block[:, 0]), 1e-7)
    expected = np.linalg.lstsq(B.numpy(), np.ones(M))[0]
    close(scipy.sparse.linalg.lsmr(b, np.ones(M), atol=1e-12, btol=1e-12)[0], expected, 1e-9)


def test_the_same_operator_twice_is_multiplied_once() -> None:
    calls: list[int] = []

    class Counting(DenseOperator):
        def _matmat(self, block: Tensor) -> Tensor:
            calls.append(block.shape[1])
            return super()._matmat(block)

    made = Counting(K)
    close((made + 2 * made - made / 2) @ D, 2.5 * K @ D, 1e-14)
    assert calls == [1]
    close((l + made - made) @ D, L @ D, 1e-14)
    assert calls == [1]
    assert (l + made) - made is l


def test_estimates_of_sums_are_unbiased() -> None:
    made, dense = k - 2 * l, K - 2 * L
    off = dense - dense.diagonal().diag()
    found = made.trace(400, seed=1)
    # probes are shared, so that the error is that of the sum: sqrt(2 / m) |off|
    assert found.standard_error == pytest.approx(float(off.norm()) * (2 / 400) ** 0.5, rel=0.25)
    assert abs(found.value - float(dense.trace())) < 5 * found.standard_error


# --- Everything spectral takes them ------------------------------------------------------------


def test_krylov_methods_take_composed_operators() -> None:
    made, dense, _ = CASES["sandwich"]
    values = torch.linalg.eigvalsh(dense).flip(0)
    close(top_eigenpairs(made, 3, tolerance=1e-12).values, values[:3], 1e-12)
    nodes = Lanczos(made, torch.ones(M, 1).double()).extend(M).spaces()[0].gauss().nodes
    close(np.sort(nodes)[::-1], values, 1e-12)
    density = spectral_density(krylov_probes(k + l, 4, N))
    samples = (k + l).quadratic_form((k + l).rademacher(4, 0))
    assert density.attrs["trace"] == pytest.approx(float(samples.mean()), rel=1e-12)
    regularised = k + 0.1 * I
    right = draw(2, N, seed=3)
    solution = conjugate_gradients(regularised, right, preconditioner=2 * I)
    close(solution.x.T, torch.linalg.solve(K + 0.1 * torch.eye(N).double(), right.T), 1e-7)


def test_what_is_not_positive_or_not_symmetric_is_refused_by_name() -> None:
    with pytest.raises(NotSymmetricError, match="it isn't symmetric positive semi-definite"):
        top_eigenpairs(k - 2 * k, 2)
    with pytest.raises(NotSymmetricError, match="least eigenvalue"):
        krylov_probes(k - 3 * l, 2, 8)
    with pytest.raises(InvalidInputError, match="operator must be a SymmetricOperator, got"):
        top_eigenpairs(k @ l, 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="operator must be a SymmetricOperator, got"):
        krylov_probes(b, 2, 2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="conjugate gradients take symmetric operators"):
        conjugate_gradients(k @ l, torch.ones(1, N).double())
    broken = k * 1.0 + DiagonalOperator(torch.full((N,), float("nan")).double())
    with pytest.raises(DivergenceError, match="a product with the operator is NaN"):
        broken.symmetry()  # type: ignore[attr-defined]


SINGLE, HERE = DenseOperator(K.float()), DenseOperator(K)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: k + 1, r"added to another, got a int: .* take s \* DiagonalOperator"),
        (lambda: K + k, "added to another, got a Tensor: of a matrix take DenseOperator"),
        (lambda: 2 - k, "added to another, got a int"),
        (lambda: k - "a", "added to another, got a str"),
        (lambda: k * l, "finite real numbers, got a DenseOperator; .* are multiplied with @"),
        (lambda: k * D, "finite real numbers, got a Tensor"),
        (lambda: D.numpy() * k, "finite real numbers, got a ndarray"),
        (lambda: 1j * k, "finite real numbers, got 1j"),
        (lambda: k * float("inf"), "finite real numbers, got inf"),
        (lambda: True * k, "finite real numbers, got True"),
        (lambda: k / 0, "can't be divided by 0"),
        (lambda: k + s, r"operators of shapes \(11, 11\) and \(7, 7\) can't be added"),
        (lambda: k + b, r"operators of shapes \(11, 11\) and \(7, 11\) can't be added"),
        (lambda: k @ b, r"operators of shapes \(11, 11\) and \(7, 11\) can't be multiplied"),
        (lambda: k + SINGLE, "operators of torch.float32 on cpu and torch.float64 on cpu can't"),
        (lambda: SINGLE @ b.T, "torch.float64 on cpu can't be multiplied: make them of one dtype"),
        (lambda: b.T @ D, r"expected shape \(7,\) or \(7, k\), got \(11,\)"),
        (lambda: torch.ones(2, 7, 1).double() @ b, r"expected shape .* got \(2, 7, 1\)"),
        (lambda: D @ b, r"expected shape \(7,\) or \(7, k\), got \(11,\)"),
        (lambda: (k + l) @ D.float(), "expected torch.float64 on cpu, got torch.float32 on cpu"),
        (lambda: k.quadratic_form(D.float()), "expected torch.float64 on cpu, got torch.float32"),
        (lambda: DenseOperator(K.to(torch.complex128)), "a complex matrix is no operator here"),
        (lambda: DiagonalOperator(torch.arange(3)), "real floating-point numbers, got .*int64"),
        (lambda: DiagonalOperator(K), r"a vector, the diagonal, got shape \(11, 11\)"),
    ],
)
def test_what_does_not_fit_is_said_in_one_sentence(what: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        what()


@pytest.mark.parametrize("operation", [arithmetic.pow, arithmetic.mod])
def test_other_arithmetic_is_refused_by_python(operation: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        operation(k, 2)


def test_composed_operators_say_what_they_are() -> None:
    assert repr(2 * k) == f"(2.0 * {k!r})"
    assert repr(b.T @ s) == f"(Adjoint({b!r}) @ {s!r})"
