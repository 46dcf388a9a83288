"""Conjugate gradients against dense solutions, and their error against the true one."""

import pytest
import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.errors import AccuracyWarning, InvalidInputError, NotSymmetricError
from dipkernels.linalg import conjugate_gradients


def random_matrix(n: int, condition: float) -> Tensor:
    """A symmetric matrix with a logarithmic spectrum from 1 / condition to 1."""
    normal = torch.randn(n, n, dtype=torch.float64, generator=generator("matrix", n))
    vectors = torch.linalg.qr(normal).Q
    values = torch.logspace(-torch.tensor(condition).log10().item(), 0, n, dtype=torch.float64)
    return (vectors * values) @ vectors.T


def random_rows(k: int, n: int) -> Tensor:
    return torch.randn(k, n, dtype=torch.float64, generator=generator("right", k))


def test_several_systems_are_solved_and_the_zero_one_is_zero() -> None:
    matrix, right = random_matrix(41, 1e3), random_rows(4, 41)
    right[2] = 0
    found = conjugate_gradients(lambda x: x @ matrix, right, tolerance=1e-12)
    exact = torch.linalg.solve(matrix, right.T).T
    assert found.converged
    # 1e-12 in the norm of the matrix is at most sqrt(condition) times that in the plain one
    assert (found.x - exact).norm() < 1e-10 * exact.norm()
    assert (found.x[2] == 0).all()
    assert found.residual[2] == 0


@pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
@pytest.mark.parametrize("condition", [10.0, 1e4])
def test_estimated_error_is_the_true_one_within_a_few_times(
    tolerance: float, condition: float
) -> None:
    matrix, right = random_matrix(150, condition), random_rows(3, 150)
    found = conjugate_gradients(lambda x: x @ matrix, right, tolerance=tolerance)
    exact = torch.linalg.solve(matrix, right.T).T

    def norm(rows: Tensor) -> Tensor:
        return ((rows @ matrix) * rows).sum(dim=1).sqrt()

    true = norm(found.x - exact) / norm(exact)
    assert (found.error <= tolerance).all()
    # an extrapolation: at a condition of 1e4 convergence comes in fits, and it was 2 times too low
    assert (true <= 3 * found.error).all()
    # of 5 steps ago: each takes off a factor of 2 at a condition of 10
    assert (true > 1e-4 * found.error).all()
    residual = (right - found.x @ matrix).norm(dim=1) / right.norm(dim=1)
    torch.testing.assert_close(found.residual, residual)


def test_preconditioner_changes_the_way_but_not_the_solution() -> None:
    scales = torch.logspace(0, 4, 90, dtype=torch.float64)
    matrix = scales[:, None].sqrt() * random_matrix(90, 5.0) * scales.sqrt()
    right = random_rows(2, 90)
    exact = torch.linalg.solve(matrix, right.T).T
    plain = conjugate_gradients(lambda x: x @ matrix, right, tolerance=1e-10)
    helped = conjugate_gradients(
        lambda x: x @ matrix, right, preconditioner=lambda x: x / scales, tolerance=1e-10
    )
    for found in (plain, helped):
        torch.testing.assert_close(found.x, exact, rtol=1e-6, atol=1e-9 * float(exact.abs().max()))
    assert helped.iterations < plain.iterations / 2


def test_small_system_stops_at_rounding() -> None:
    found = conjugate_gradients(lambda x: 3 * x, random_rows(2, 5), tolerance=1e-14)
    torch.testing.assert_close(found.x, random_rows(2, 5) / 3)
    assert found.converged


def test_too_few_iterations_warn_and_bad_systems_are_refused() -> None:
    matrix, right = random_matrix(60, 1e6), random_rows(1, 60)
    with pytest.warns(AccuracyWarning, match="NOT converged in 7 iterations"):
        found = conjugate_gradients(lambda x: x @ matrix, right, max_iterations=7)
    assert not found.converged
    with pytest.raises(NotSymmetricError, match="matrix is not positive definite"):
        conjugate_gradients(lambda x: -x, right)
    with pytest.raises(NotSymmetricError, match="preconditioner"):
        conjugate_gradients(lambda x: x @ matrix, right, preconditioner=lambda x: -x)
    with pytest.raises(InvalidInputError, match="tolerance must be in"):
        conjugate_gradients(lambda x: x, right, tolerance=0.0)
