"""Lanczos and deflation against dense computations."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels.base.progress import Progress
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.linalg import (
    DenseOperator,
    KrylovSpace,
    Lanczos,
    SymmetricOperator,
)
from helpers.matrices import (
    close,
    draw,
    draw_size,
    random_psd,
    tridiagonal,
    with_spectrum,
)


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
    assert run.matvecs == steps * starts
    for space, start in zip(run.spaces(), block.T, strict=True):
        assert len(space.alpha) == len(space.beta) == steps
        check_space(space, matrix, start, torch.ones(n))


def test_extending_twice_is_extending_once() -> None:
    matrix, block = random_psd(44, 6), draw(44, 3, seed=7)
    once = Lanczos(DenseOperator(matrix), block).extend(25)
    twice = Lanczos(DenseOperator(matrix), block)
    early = twice.extend(9).spaces()
    late = twice.extend(16).spaces()
    assert once.matvecs == twice.matvecs == 75
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
    assert run.matvecs == 2 * distinct
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
    assert run.matvecs == 4


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (draw(8, 2, seed=0), r"starts must have shape \(9, k\), got \(8, 2\)"),
        (torch.eye(9, 2).double() * torch.tensor([1, 0]), "zero or not finite"),
        (torch.full((9, 1), torch.nan).double(), "zero or not finite"),
        (torch.full((9, 1), torch.inf).double(), "zero or not finite"),
    ],
)
def test_lanczos_validates_its_arguments(starts: Tensor, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Lanczos(DenseOperator(random_psd(9, 0)), starts)


def test_progress_advances_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    advanced = []
    monkeypatch.setattr(Progress, "advance", lambda self, steps=1: advanced.append(steps))
    with Progress(0, "test", enabled=False) as bar:
        Lanczos(DenseOperator(random_psd(8, 31)), draw(8, 3, seed=32)).extend(5, progress=bar)
    assert sum(advanced) == 5
