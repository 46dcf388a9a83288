"""Matrix-free linear algebra: operators that compose, Lanczos, quadrature, estimates."""

from dipkernels.base.statistics import Estimate
from dipkernels.linalg import composites  # noqa: F401, what sums and products are
from dipkernels.linalg.density import effective_rank, spectral_density
from dipkernels.linalg.eigenpairs import Eigenpairs, ritz_pairs, top_eigenpairs
from dipkernels.linalg.lanczos import KrylovSpace, Lanczos
from dipkernels.linalg.linear import LinearOperator
from dipkernels.linalg.matrices import DenseOperator, DiagonalOperator
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.linalg.probing import krylov_probes
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.linalg.solver import Solution, conjugate_gradients

__all__ = [
    "DenseOperator",
    "DiagonalOperator",
    "Eigenpairs",
    "Estimate",
    "KrylovSpace",
    "Lanczos",
    "LinearOperator",
    "Quadrature",
    "Solution",
    "SymmetricOperator",
    "conjugate_gradients",
    "effective_rank",
    "krylov_probes",
    "ritz_pairs",
    "spectral_density",
    "top_eigenpairs",
]
