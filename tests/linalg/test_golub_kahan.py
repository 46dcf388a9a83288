"""Golub-Kahan on a dense factor, against dense eigendecompositions and in single precision."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels.errors import DivergenceError
from dipkernels.linalg import DenseOperator, Lanczos
from dipkernels.linalg.golub_kahan import GolubKahan
from helpers.priors import draw


class DenseFactor:
    """A matrix from parameters to images."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.dtype, self.device = matrix, matrix.dtype, matrix.device

    def transposed(self, images: Tensor) -> Tensor:
        return images.T @ self.matrix

    def forward(self, rows: Tensor) -> Tensor:
        return self.matrix @ rows.T


def decaying(n: int, parameters: int, least: float, seed: int = 0) -> Tensor:
    """A factor whose singular values fall from 1, evenly in their logarithm."""
    left = torch.linalg.qr(draw(n, n, seed=seed))[0]
    right = torch.linalg.qr(draw(parameters, n, seed=seed + 1))[0]
    values = torch.logspace(0, np.log10(least), n, dtype=torch.float64)
    return (left * values) @ right.T


def dense_form(kernel: Tensor, v: Tensor, time: float) -> float:
    values, vectors = np.linalg.eigh(kernel.numpy())
    along = vectors.T @ v.numpy()
    return float(np.exp(-time * np.maximum(values, 0)) @ along**2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("starts", [1, 3])
def test_rules_bracket_the_forms_and_meet_in_the_end(masked: bool, starts: int) -> None:
    n = 24
    factor, block = decaying(n, 60, 1e-3), draw(n, starts, seed=9)
    mask = torch.arange(n) % 3 != 1 if masked else torch.ones(n, dtype=torch.bool)
    kernel = (factor * mask[:, None]) @ (factor * mask[:, None]).T
    run = GolubKahan(DenseFactor(factor), block, mask if masked else None)
    widths = []
    for _ in range(3):
        space = run.extend(2).space()
        for i in range(starts):
            for time in (0.5, 20.0, 1e4):
                low, high = (
                    float(rule(lambda x, t=time: np.exp(-t * x)))
                    for rule in (space.gauss(i), space.radau(i))
                )
                truth = dense_form(kernel, block[:, i] * mask, time)
                assert low <= truth * (1 + 1e-10)
                assert truth * (1 - 1e-10) <= high
                widths.append(high - low)
    assert max(widths) > 0.1
    space = run.extend(n).space()
    assert space.complete
    assert space.matvecs == int(mask.sum())
    values = np.sort(space.eigenpairs()[0])
    expected = np.linalg.eigvalsh(kernel.numpy())[-len(values) :]
    # float64: roundings of the largest eigenvalue, 1
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-13)
    for time in (0.5, 20.0, 1e4):
        found = float(space.gauss(0)(lambda x, t=time: np.exp(-t * x)))
        truth = dense_form(kernel, block[:, 0] * mask, time)
        assert found == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("masked", [False, True])
def test_actions_are_those_of_the_dense_function(masked: bool) -> None:
    n = 20
    factor, block = decaying(n, 50, 1e-2), draw(n, 2, seed=3)
    mask = torch.arange(n) % 4 != 1 if masked else torch.ones(n, dtype=torch.bool)
    seen = factor * mask[:, None]
    values, vectors = np.linalg.eigh((seen @ seen.T).numpy())
    run = GolubKahan(DenseFactor(factor), block, mask if masked else None).extend(n)
    space = run.space()
    for i in range(2):
        coefficients, outside = space.action(lambda x: np.exp(-3 * x)[None], i)
        image = torch.from_numpy(coefficients) @ space.images
        within = (vectors * np.exp(-3 * values)) @ vectors.T @ (block[:, i] * mask).numpy()
        expected = (factor @ seen.T).numpy() @ within
        np.testing.assert_allclose(image[0], expected, rtol=0, atol=1e-12)
        assert outside.size == 0


def test_single_precision_keeps_what_lanczos_loses() -> None:
    # singular values down to 1e-5: eigenvalues of 1e-10, below the rounding of the largest
    n, time = 60, 3e8
    factor, start = decaying(n, 200, 1e-5), draw(n, 1, seed=5)
    truth = dense_form(factor @ factor.T, start[:, 0], time)
    single = factor.float()
    space = GolubKahan(DenseFactor(single), start, None).extend(n).space()
    found = float(space.gauss(0)(lambda x: np.exp(-time * x)))
    matrix = (single @ single.T).to(torch.float32)
    (other,) = Lanczos(DenseOperator(matrix), start).extend(n).spaces()
    lanczos = float(other.gauss()(lambda x: np.exp(-time * x)))
    assert found == pytest.approx(truth, rel=0.02)
    assert abs(lanczos / truth - 1) > 0.1
    # and the bounds know how far rounding goes
    up, down = (
        float(np.exp(-time * space.moved(space.gauss(0).nodes, sign)) @ space.gauss(0).weights)
        for sign in (1, -1)
    )
    assert up <= truth <= down


def test_a_factor_of_low_rank_and_dependent_starts_end_early() -> None:
    n = 15
    factor = draw(n, 4, seed=1) @ draw(4, 30, seed=2)
    start = draw(n, 1, seed=3)
    run = GolubKahan(DenseFactor(factor), torch.cat([start, 2 * start], dim=1), None).extend(n)
    space = run.space()
    assert space.invariant
    assert not space.complete
    assert space.matvecs <= 5
    truth = dense_form(factor @ factor.T, start[:, 0], 0.3)
    for i, scale in enumerate((1, 4)):
        assert float(space.radau(i)(lambda x: np.exp(-0.3 * x))) == pytest.approx(
            scale * truth, rel=1e-10
        )


def test_a_product_that_is_not_finite_is_an_error() -> None:
    factor = draw(6, 9)
    factor[2, 3] = float("nan")
    with pytest.raises(DivergenceError, match="transposed Jacobian is NaN"):
        GolubKahan(DenseFactor(factor), draw(6, 1), None).extend(2)
