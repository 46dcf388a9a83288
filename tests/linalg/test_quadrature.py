"""Gauss and Gauss-Radau rules against eigendecompositions."""

import numpy as np
import pytest
import torch

from dipkernels.linalg import (
    DenseOperator,
    Lanczos,
)
from dipkernels.linalg.quadrature import gauss, gauss_radau
from helpers.matrices import (
    close,
    draw,
    draw_size,
    random_psd,
    spectrum_of,
    tridiagonal,
    with_spectrum,
)


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
