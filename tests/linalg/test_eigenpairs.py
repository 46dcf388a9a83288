"""Eigenpairs against dense solvers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels.errors import InvalidInputError
from dipkernels.linalg import (
    DenseOperator,
    Lanczos,
    ritz_pairs,
    top_eigenpairs,
)
from helpers.matrices import (
    close,
    draw,
    draw_size,
    random_psd,
    spectrum_of,
    with_spectrum,
)


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
    assert pairs.matvecs == run.matvecs == 24
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
        DenseOperator(matrix.float()), 8, tolerance=1e-5, max_matvecs=150, starts=starts
    )
    assert (pairs.residuals <= 1e-5).all()
    assert pairs.matvecs < 100
    check_pairs(pairs, matrix, tolerance=1e-6)
    close(pairs.values, torch.linalg.eigvalsh(matrix).flip(0)[:8], 1e-6)


@pytest.mark.parametrize(
    ("k", "starts", "budget"), [(1, 1, 1), (1, 1, 5), (3, 2, 7), (10, 2, 13), (4, 3, 2), (6, 4, 40)]
)
def test_no_more_products_than_allowed(k: int, starts: int, budget: int) -> None:
    matrix = with_spectrum(torch.linspace(0.01, 1, 300, dtype=torch.float64), 27)
    run = {"tolerance": 1e-14, "max_matvecs": budget, "starts": starts}
    pairs = top_eigenpairs(DenseOperator(matrix), k, **run)
    assert budget - starts < pairs.matvecs <= budget
    check_pairs(pairs, matrix)
    assert (pairs.residuals > 1e-3).all()  # says that it stopped early
    assert len(pairs.values) == min(k, pairs.matvecs)


def test_it_stops_once_the_tolerance_is_met() -> None:
    matrix = with_spectrum(2.0 ** -torch.arange(60, dtype=torch.float64), 28)
    loose = top_eigenpairs(DenseOperator(matrix), 3, tolerance=1e-2)
    tight = top_eigenpairs(DenseOperator(matrix), 3, tolerance=1e-10)
    assert loose.residuals.max() <= 1e-2
    assert tight.residuals.max() <= 1e-10
    assert loose.matvecs < tight.matvecs < 60


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
        ({"k": 1, "max_matvecs": 0}, "at least 1, got 0 and 2"),
        ({"k": 1, "starts": 0}, "at least 1, got 400 and 0"),
    ],
)
def test_top_eigenpairs_validates_its_settings(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        top_eigenpairs(DenseOperator(random_psd(8, 30)), **settings)
