"""Matrix-free linear algebra: symmetric operators, Lanczos, quadrature, estimates with errors."""

from dipkernels.base.statistics import Estimate
from dipkernels.linalg.accuracy import Symmetry
from dipkernels.linalg.density import effective_rank, spectral_density
from dipkernels.linalg.eigenpairs import Eigenpairs, ritz_pairs, top_eigenpairs
from dipkernels.linalg.lanczos import KrylovSpace, Lanczos
from dipkernels.linalg.operator import DenseOperator, SymmetricOperator
from dipkernels.linalg.probing import krylov_probes
from dipkernels.linalg.quadrature import Quadrature
from dipkernels.linalg.solver import Solution, conjugate_gradients

__all__ = [
    "DenseOperator",
    "Eigenpairs",
    "Estimate",
    "KrylovSpace",
    "Lanczos",
    "Quadrature",
    "Solution",
    "SymmetricOperator",
    "Symmetry",
    "conjugate_gradients",
    "effective_rank",
    "krylov_probes",
    "ritz_pairs",
    "spectral_density",
    "top_eigenpairs",
]
