"""Effective ranks against dense spectra and closed forms."""

import numpy as np
import pytest
import torch

from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.linalg import (
    DenseOperator,
    Lanczos,
    effective_rank,
    krylov_probes,
    spectral_density,
)
from dipkernels.networks import ImagePrior
from helpers.matrices import draw, with_spectrum
from helpers.priors import perturbed


def dense_ranks(values: np.ndarray) -> tuple[float, float]:
    shares = values[values > 0] / values.sum()
    return float(1 / (shares**2).sum()), float(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("rank", [1, 7, 30])
def test_equal_eigenvalues_have_that_rank(rank: int) -> None:
    values = torch.zeros(30, dtype=torch.float64)
    values[:rank] = 0.37
    operator = DenseOperator(with_spectrum(values, rank))
    rotation, _ = torch.linalg.qr(draw(30, 30, seed=4))
    # orthogonal probes make traces without noise; what's left is the jackknife, of a ratio of sums
    spaces = Lanczos(operator, 30**0.5 * rotation).extend(3).spaces()
    found = effective_rank(spaces)
    assert float(found.trace) == pytest.approx(0.37 * rank, rel=1e-12)
    assert float(found.frobenius_norm) == pytest.approx(0.37 * rank**0.5, rel=0.05)
    for name in ("participation", "entropy"):
        assert float(found[name]) == pytest.approx(rank, rel=1e-10 if rank == 30 else 0.08)
    assert found.matvecs <= 90


@pytest.mark.slow
def test_estimates_err_as_they_say() -> None:
    values = 1 / (1 + torch.arange(140, dtype=torch.float64)) ** 1.2
    operator = DenseOperator(with_spectrum(values, 1))
    expected = dense_ranks(values.numpy())
    runs = [effective_rank(krylov_probes(operator, 12, 20, seed=seed)) for seed in range(80)]
    truth = {
        "participation": expected[0],
        "entropy": expected[1],
        "trace": float(values.sum()),
        "frobenius_norm": float(values.norm()),
    }
    for name, value in truth.items():
        found = np.array([float(run[name]) for run in runs])
        errors = np.array([float(run[f"{name}_standard_error"]) for run in runs])
        scores = (found - value) / errors
        # 80 scores of about Student's t with 11 degrees of freedom, standard deviation 1.1
        assert abs(scores.mean()) < 0.5
        assert 0.8 < scores.std() < 1.5
        assert errors.mean() < 0.3 * value
    assert runs[0].matvecs == 240


def test_the_kernel_of_a_network_by_its_methods() -> None:
    prior = ImagePrior(lambda: torch.nn.Conv2d(2, 2, 3, padding=1), draw(1, 2, 5, 9, seed=1))
    ntk = NTK(prior, perturbed(prior.init(0), 0))
    values = torch.linalg.eigvalsh(ntk.to_dense()).clamp(min=0).numpy()
    found = ntk.effective_rank(300, 25, seed=1)
    for name, value in zip(("participation", "entropy"), dense_ranks(values), strict=True):
        assert abs(float(found[name]) - value) < 5 * float(found[f"{name}_standard_error"])
        assert float(found[f"{name}_standard_error"]) < 0.05 * value
    density = ntk.spectral_density(6, 25, seed=1)
    expected = spectral_density(krylov_probes(ntk, 6, 25, seed=1))
    np.testing.assert_array_equal(density.density, expected.density)
    pairs = ntk.top_eigenpairs(3, tolerance=1e-9)
    np.testing.assert_allclose(pairs.values, values[::-1][:3], rtol=1e-10)
    part = ntk[:, [3, 50]].T.to_dense()
    np.testing.assert_allclose(part, ntk.to_dense()[[3, 50]], rtol=0, atol=1e-13)


def test_nothing_to_estimate_from() -> None:
    operator = DenseOperator(with_spectrum(torch.ones(9, dtype=torch.float64), 0))
    with pytest.raises(InvalidInputError, match=r"at least 2 probes .* got 1"):
        effective_rank(krylov_probes(operator, 1, 2))
    zero = DenseOperator(torch.zeros(9, 9, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="operator is zero"):
        effective_rank(krylov_probes(zero, 2, 2))
