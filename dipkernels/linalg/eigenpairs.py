"""Leading eigenpairs by Rayleigh-Ritz over Krylov spaces, with residuals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.progress import Progress
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.block_krylov import BlockKrylov
from dipkernels.linalg.lanczos import KrylovSpace
from dipkernels.linalg.operator import SymmetricOperator, identity_of
from dipkernels.storage.checkpoints import Saver


@checked(nan=True)
@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Leading eigenpairs of a symmetric operator.

    Attributes
    ----------
    values : Tensor, float64, shape (k,)
        Descending.
    vectors : Tensor, float64, shape (n, k)
        Orthonormal columns.
    residuals : Tensor, float64, shape (k,)
        ``|A v - value v|``: some eigenvalue lies within this distance of each value, up to the
        rounding of the products.
    matvecs : int
        Spent.
    """

    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "n k"]
    residuals: Float[Tensor, " k"]
    matvecs: int


@checked
def ritz_pairs(spaces: Sequence[KrylovSpace], k: int) -> Eigenpairs:
    """Best approximations of the leading eigenpairs from the union of Krylov spaces.

    Costs no product: every space already holds those of its basis. Several spaces from
    independent starts also find eigenvalues of that multiplicity, which one can't.

    Parameters
    ----------
    spaces : sequence of KrylovSpace
        Of one operator.
    k : int
        How many pairs; fewer are returned if the union is smaller.

    Returns
    -------
    Eigenpairs
        With residuals, from which judge how many have converged.

    Raises
    ------
    InvalidInputError
        If the spaces hold no products.
    """
    if any(len(space.products) < len(space.alpha) for space in spaces):
        raise InvalidInputError(
            "these Krylov spaces were made without their products: run Lanczos with keep_products"
        )
    basis = torch.cat([space.basis for space in spaces]).T
    images = torch.cat([space.products for space in spaces]).T
    left, sizes, right = torch.linalg.svd(basis, full_matrices=False)
    keep = sizes > _least_size(basis, images) * sizes[0]
    mixing = right[keep].T / sizes[keep]
    orthonormal, mapped = left[:, keep], images @ mixing
    small = orthonormal.T @ mapped
    values, coefficients = torch.linalg.eigh((small + small.T) / 2)
    top = torch.arange(len(values) - 1, max(len(values) - 1 - k, -1), -1, device=values.device)
    values, coefficients = values[top], coefficients[:, top]
    vectors = orthonormal @ coefficients
    residuals = (mapped @ coefficients - vectors * values).norm(dim=0)
    return Eigenpairs(values, vectors, residuals, sum(len(s.alpha) for s in spaces))


def _least_size(basis: Tensor, images: Tensor) -> float:
    # Directions of the union that all its vectors nearly miss, which there are once the spaces
    # share converged vectors, must be dropped: scaling one of size s up to length 1 scales up the
    # rounding d of its image, by d / s, while dropping it costs an eigenvalue s^2. Those balance at
    # s = d^(1/3): 1e-5 in float64, 3e-3 in float32. The asymmetry of the projected operator is d.
    projected = basis.T @ images
    rounding = (projected - projected.T).norm() / projected.norm().clamp_min(1e-300)
    return math.cbrt(max(1e-16, float(rounding)))


@checked
def top_eigenpairs(
    operator: SymmetricOperator,
    k: int,
    *,
    tolerance: float = 1e-4,
    max_matvecs: int = 400,
    starts: int = 2,
    basis: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
) -> Eigenpairs:
    """Compute the leading eigenpairs by block Lanczos from random starts, with thick restarts.

    Parameters
    ----------
    operator : SymmetricOperator
        Positive semi-definite, of size n.
    k : int
        How many.
    tolerance : float
        Stop when every residual is below this times the largest eigenvalue.
    max_matvecs : int
        Never spend more.
    starts : int
        Independent start vectors: eigenvalues of higher multiplicity are found that often.
    basis : int, optional
        Vectors that are held, at least ``k + 2 starts``; by default the larger of ``3 k`` and
        ``k + 40``. With fewer, more products are needed.
    seed : int
        Of the starts.
    checkpoint : str or Path, optional
        As of `krylov_probes`; another tolerance and number of products may be asked for.
    progress : Progress, optional
        Advanced by one a step of all starts.

    Returns
    -------
    Eigenpairs
        Check ``residuals``: ``max_matvecs`` may have been too few; below k pairs are missing.

    Raises
    ------
    InvalidInputError
        If k isn't between 1 and n, ``max_matvecs`` or ``starts`` is less than 1, or the basis is
        too small.
    NotSymmetricError
        If the products show that the operator isn't symmetric positive semi-definite;
        `AccuracyWarning` is given if it's so to fewer digits than its type has.
    OutputError
        If the checkpoint can't be written, or is of another operator or computation.

    Notes
    -----
    Memory: the basis, and once the k vectors, of n numbers of 8 bytes each, whatever the number of
    products; the basis once more while a checkpoint is read. Source: Wu & Simon 2000.

    Examples
    --------
    >>> from dipkernels.linalg import DenseOperator
    >>> matrix = torch.diag(torch.arange(1.0, 31.0, dtype=torch.float64))
    >>> top_eigenpairs(DenseOperator(matrix), 2).values.round().tolist()
    [30.0, 29.0]
    """
    n = operator.shape[0]
    if not 1 <= k <= n:
        raise InvalidInputError(f"the number of eigenpairs must be between 1 and {n}, got {k}")
    if max_matvecs < 1 or starts < 1:
        raise InvalidInputError(
            f"max_matvecs and starts must be at least 1, got {max_matvecs} and {starts}"
        )
    starts = min(starts, n, max_matvecs)
    capacity = max(3 * k, k + 40) if basis is None else basis
    if capacity < k + 2 * starts:
        raise InvalidInputError(
            f"a basis of {capacity} vectors is too small for {k} pairs from {starts} starts: give "
            f"at least {k + 2 * starts}"
        )
    # Normal and not signs: a vector of signs can be orthogonal to an eigenvector such as (1, -1).
    draws = torch.randn(starts, n, generator=generator("starts", seed), dtype=torch.float64)
    # No more rows than can ever be filled, and half of what is free for new directions.
    keep = k + (capacity - k - 2 * starts) // 3
    space = BlockKrylov(operator, draws.T, min(capacity, max_matvecs + starts), keep)
    saver = None
    if checkpoint is not None:
        identity = identity_of(operator, k=k, starts=starts, basis=capacity, seed=seed)
        saver = Saver(Path(checkpoint), identity, "search for eigenpairs")
        state = saver.load()
        if state is not None:
            space.load(state)
    return _converge(space, k, tolerance, max_matvecs, saver, progress)


def _converge(
    space: BlockKrylov,
    k: int,
    tolerance: float,
    max_matvecs: int,
    saver: Saver | None,
    progress: Progress | None,
) -> Eigenpairs:
    interval = max(1, k // 16)  # steps between two looks: they cost the cube of the basis
    while True:
        exhausted = space.width == 0 or space.matvecs + space.width > max_matvecs
        if exhausted or (space.steps and space.steps % interval == 0):
            values, coefficients, residuals = space.ritz(k)
            enough = len(values) == k and residuals.max() <= tolerance * values[0]
            if exhausted or enough:
                break
        space.step()
        if saver is not None:
            saver.save_if_due(space.state)
        if progress is not None:
            progress.advance()
    if saver is not None:
        saver.save(space.state())
    space.symmetry().judge(space.dtype)
    device = space.device
    return Eigenpairs(
        values.to(device), space.combine(coefficients), residuals.to(device), space.matvecs
    )
