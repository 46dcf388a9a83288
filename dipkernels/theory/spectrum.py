"""Exact predictions, from a kernel's full eigendecomposition."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.priors.memory import parameter_bytes
from dipkernels.theory.dynamics import Dynamics
from dipkernels.theory.expansion import Errors, Expansion, Noise

# Times in units of one over the largest eigenvalue. What rounding makes of eigenvalues that are 0
# is learned after the last.
FIRST, DECADE_POINTS = 1e-1, 20
LAST, UNTIL_ROUNDING = (1e9, 1e13), 1e-3
ROWS_BUDGET = 4 * 2**30
COLUMNS_AT_ONCE = 2**15


@checked(nan=True)
@dataclass(frozen=True, eq=False)
class KernelSpectrum:
    """All eigenvalues and eigenvectors of a kernel over n outputs.

    Attributes
    ----------
    values : ndarray, shape (n,)
        Ascending, not negative; 0 where they can't be told from it.
    vectors : ndarray, shape (n, n)
        Orthonormal columns.
    rounding : float
        Norm of the error that the matrix is taken to have.
    """

    values: np.ndarray
    vectors: np.ndarray
    rounding: float

    @classmethod
    @checked
    def of_matrix(cls, matrix: np.ndarray, *, rounding: float | None = None) -> "KernelSpectrum":
        """Decompose a symmetric positive semi-definite matrix.

        Parameters
        ----------
        matrix : ndarray, shape (n, n)
            Its symmetric part counts.
        rounding : float, optional
            Norm of its error; by default, and at least, 2n roundings of float64, relative to the
            largest eigenvalue, for what the decomposition itself makes.

        Returns
        -------
        KernelSpectrum
            Costs ``9 n**3`` operations in float64.

        Raises
        ------
        InvalidInputError
            If it isn't square, real and finite, or is 0.
        """
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.size:
            raise InvalidInputError(f"expected a square matrix, got shape {matrix.shape}")
        if np.iscomplexobj(matrix):
            raise InvalidInputError("expected a real matrix, got a complex one")
        matrix = matrix.astype(np.float64)
        if not np.isfinite(matrix).all():
            raise InvalidInputError("the kernel's matrix holds NaN or infinity")
        values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
        if not values[-1] > 0:
            raise InvalidInputError("the kernel has no positive eigenvalue: nothing is learned")
        # What rounding alone makes of 0 would be learned at late times: it is 0, by at most twice.
        own = len(values) * float(np.finfo(np.float64).eps) * float(values[-1])
        return cls(np.where(values > own, values, 0.0), vectors, max(2 * own, rounding or 0.0))

    @checked
    def expand(
        self, residual: np.ndarray, noise_sigma: float, *, noise: np.ndarray | None = None
    ) -> "ExactExpansion":
        """Say what the kernel knows about a fully measured image.

        Parameters
        ----------
        residual : ndarray, shape (n,)
            ``clean - f``, f the image at which the kernel was taken.
        noise_sigma : float
            Of the measurement; without effect, and to be 0, where `noise` is given.
        noise : ndarray, shape (n,), optional
            This very noise in place of its expectation: the error is then that of one fit,
            ``|E r - (I - E) noise|^2``. It must be given where the residual depends on the noise,
            as after some steps of a fit: the expectation holds for independent ones alone.

        Returns
        -------
        Expansion
            For `learning_curve` and every dynamics; the band is the matrix's rounding. Costs
            ``2 n**2`` operations.

        Raises
        ------
        InvalidInputError
            If the vectors don't fit, a number isn't finite, the level is negative, or both a level
            and noise are given.
        """
        n = len(self.values)
        for name, vector in (("residual", residual), ("noise", noise)):
            if vector is not None and vector.shape != (n,):
                raise InvalidInputError(f"the {name} must have shape ({n},), got {vector.shape}")
            if vector is not None and not np.isfinite(vector).all():
                raise InvalidInputError(f"the {name} holds NaN or infinity")
        if not 0 <= noise_sigma < np.inf:
            raise InvalidInputError(
                f"noise_sigma must be finite and not negative, got {noise_sigma}"
            )
        if noise is not None and noise_sigma != 0:
            raise InvalidInputError("noise_sigma has no effect with the noise given: pass 0")
        along = self.vectors.T @ residual
        noisy = None if noise is None else self.vectors.T @ noise
        return ExactExpansion(self.values, self.rounding, along, noisy, noise_sigma)


@checked
@dataclass(frozen=True, eq=False)
class ExactExpansion(Expansion):
    """What all eigenvectors of a kernel tell about a fully measured image.

    Its errors have as bounds what the matrix's rounding, of norm d, leaves open: ``|E r|`` moves
    by at most ``phi(0) d |r|``, phi being ``(1 - E) / x`` and t for the flow (Duhamel's formula),
    the eigenvalues in the variance by at most d (Weyl's inequality). For dynamics that aren't
    `Dynamics.monotone` these are estimates.
    """

    values: np.ndarray
    rounding: float
    along: np.ndarray  # coefficients of the residual
    noisy: np.ndarray | None  # those of the noise, if it is realised
    noise_sigma: float  # its level, if it is expected
    score_region = "whole"
    matvecs = 0
    exact = True

    @property
    def noise(self) -> Noise:  # type: ignore[override]
        """Of one if it is known."""
        return "expected" if self.noisy is None else "realised"

    @property
    def regions(self) -> dict[str, object]:  # type: ignore[override]
        """Know the whole image alone."""
        return {"whole": None}

    @property
    def largest(self) -> float:  # type: ignore[override]
        """Take the last."""
        return float(self.values[-1])

    @property
    def outputs(self) -> int:
        """Count them."""
        return len(self.along)

    @property
    def times(self) -> np.ndarray:
        """From before anything is learned until rounding is, over ten decades and more."""
        # no eigenvalue is known better
        least = self.outputs * float(np.finfo(np.float64).eps) * self.largest
        last = float(np.clip(UNTIL_ROUNDING * self.largest / max(self.rounding, least), *LAST))
        points = int(DECADE_POINTS * np.log10(last / FIRST)) + 1
        return np.geomspace(FIRST, last, points) / self.largest

    def errors(self, dynamics: Dynamics) -> Errors:
        """Sum over eigenvectors."""
        n, learned = self.outputs, dynamics.learned
        error = dynamics.decay(self.values) * self.along
        reach = float(np.linalg.norm(self.along))
        if self.noisy is not None:
            error = error - learned(self.values) * self.noisy
            reach += float(np.linalg.norm(self.noisy))
        root = np.linalg.norm(error, axis=1)
        moved = np.minimum(dynamics.accumulated(np.zeros(1))[:, 0] * self.rounding, 1.0) * reach
        shifted = [
            np.square(learned(np.maximum(self.values + shift, 0.0))).sum(axis=1)
            for shift in (-self.rounding, 0.0, self.rounding)
        ]
        noise, middle = self.noise_sigma**2, shifted[1]
        low = np.maximum(root - moved, 0) ** 2 + noise * np.min(shifted, axis=0)
        high = (root + moved) ** 2 + noise * np.max(shifted, axis=0)
        parts = {}
        if self.noisy is None:
            parts = {"bias": root[:, None] ** 2 / n, "variance": noise * middle[:, None] / n}
        whole = root**2 + noise * middle
        return Errors(low[:, None] / n, whole[:, None] / n, high[:, None] / n, parts)

    def degrees_of_freedom(self, dynamics: Dynamics) -> np.ndarray:
        """Sum over eigenvalues."""
        return np.asarray(dynamics.learned(self.values).sum(axis=1))


@checked
def kernel_spectrum(ntk: SymmetricOperator) -> KernelSpectrum:
    """Form a kernel and decompose it.

    Parameters
    ----------
    ntk : NTK or another SymmetricOperator
        Of up to a few thousand outputs. In float64: peaks lie at times of 1e6 to 1e8 over the
        largest eigenvalue, so that eigenvalues 1e-8 as large count.

    Returns
    -------
    KernelSpectrum
        With the rounding of the operator's type.

    Raises
    ------
    InvalidInputError
        If it isn't a symmetric operator, isn't finite, or is 0.

    Notes
    -----
    Of an `NTK` it costs n backward passes, ``n**2`` times the parameters in multiplications, and
    ``9 n**3`` operations; memory n times the parameters. Where that exceeds 4 GiB, and of other
    operators, it costs what ``to_dense`` does, and ``n**2`` numbers.
    """
    if isinstance(ntk, NTK) and ntk.shape[0] * parameter_bytes(ntk.parameters) <= ROWS_BUDGET:
        metric, matrix = ntk.metric or {}, np.zeros(ntk.shape)
        for key, rows in ntk.jacobian().items():
            matrix += gram_of(rows, metric.get(key))
    else:
        matrix = ntk.to_dense().cpu().double().numpy()
    found = KernelSpectrum.of_matrix(matrix)
    relative = 2 * ntk.shape[0] * torch.finfo(ntk.dtype).eps
    return KernelSpectrum(found.values, found.vectors, relative * float(found.values[-1]))


def gram_of(rows: Tensor, metric: Tensor | None = None) -> np.ndarray:
    """Multiply a part of a Jacobian, of one parameter, by its transpose."""
    # In float64 whatever the type of the rows: small singular values survive in a float32 Jacobian,
    # and not in a float32 sum of squares.
    gram = np.zeros((rows.shape[0], rows.shape[0]))
    weights = None if metric is None else metric.flatten().double().sqrt()
    for start in range(0, rows.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        block = rows[:, columns].double()
        exact = (block if weights is None else block * weights[columns]).cpu().numpy()
        gram += exact @ exact.T  # which NumPy knows to be symmetric: half of the work
    return gram
