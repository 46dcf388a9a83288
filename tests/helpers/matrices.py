"""Matrices with known spectra, and comparisons of the tests of linear algebra."""

import random

import numpy as np
import torch
from torch import Tensor

from dipkernels.linalg import KrylovSpace


def draw(*shape: int, seed: int) -> Tensor:
    """Draw normal numbers in float64."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw_size(seed: int, low: int = 20, high: int = 50) -> int:
    """Draw a size."""
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


def tridiagonal(space: KrylovSpace) -> np.ndarray:
    """Form Lanczos' tridiagonal matrix."""
    off = space.beta[:-1]
    return np.diag(space.alpha) + np.diag(off, 1) + np.diag(off, -1)


def spectrum_of(kind: str, n: int) -> Tensor:
    """Make eigenvalues in (0, 1] of some decay."""
    index = torch.arange(n, dtype=torch.float64)
    return {
        "power": (1 + index) ** -2,
        "geometric": 10 ** (-index / 4),
        "singular": torch.where(index < n // 2, 1 / (1 + index), 0.0),
        "uniform": (1 + index) / n,
    }[kind]
