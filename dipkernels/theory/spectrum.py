"""The peak of a predicted curve from a kernel's full eigendecomposition."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dipkernels.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.ntk import NTK
from dipkernels.memory import parameter_bytes

# Times in units of one over the largest eigenvalue. What rounding makes of eigenvalues that are 0
# is learned after the last.
FIRST, DECADE_POINTS = 1e-1, 20
LAST, UNTIL_ROUNDING = (1e9, 1e13), 1e-3
ROWS_BUDGET = 4 * 2**30
COLUMNS_AT_ONCE = 2**15


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


@dataclass(frozen=True)
class PredictedPeak:
    """The best moment of a predicted fit.

    Attributes
    ----------
    psnr : float
        Of the expected (or, with given noise, the very) mean squared error at its least, in dB.
    lower, upper : float
        What the kernel's rounding leaves open.
    time : float
        Of gradient flow on ``|f - y|^2 / 2``.
    freedom : float
        ``tr (I - E)``: how many of the n directions have been learned by then.
    """

    psnr: float
    lower: float
    upper: float
    time: float
    freedom: float


def kernel_spectrum(ntk: NTK) -> KernelSpectrum:
    """Form a tangent kernel and decompose it.

    Parameters
    ----------
    ntk : NTK
        Of up to a few thousand outputs. In float64: peaks lie at times of 1e6 to 1e8 over the
        largest eigenvalue, so that eigenvalues 1e-8 as large count.

    Returns
    -------
    KernelSpectrum
        With the rounding of the network's type.

    Notes
    -----
    Costs n backward passes, ``n**2`` times the parameters in multiplications, and ``9 n**3``
    operations; memory n times the parameters. Where that exceeds 4 GiB, n products and ``n**2``
    numbers.
    """
    if ntk.shape[0] * parameter_bytes(ntk.parameters) <= ROWS_BUDGET:
        matrix = _gram(ntk)
    else:
        matrix = ntk.to_dense().cpu().double().numpy()
    found = KernelSpectrum.of_matrix(matrix)
    relative = 2 * ntk.shape[0] * torch.finfo(ntk.dtype).eps
    return KernelSpectrum(found.values, found.vectors, relative * float(found.values[-1]))


def _gram(ntk: NTK) -> np.ndarray:
    n = ntk.shape[0]
    gram = np.zeros((n, n))
    for key, rows in jacobian(ntk).items():
        gram += gram_of(rows, None if ntk.metric is None else ntk.metric[key])
    return gram


def jacobian(ntk: NTK) -> dict[str, Tensor]:
    """Form the Jacobian, without the metric.

    Parameters
    ----------
    ntk : NTK
        Of n outputs.

    Returns
    -------
    dict of str to Tensor, shape (n, entries)
        By parameter. Costs n backward passes, and memory n times the parameters.
    """
    n = ntk.shape[0]
    rows: dict[str, Tensor] = {}
    for indices in torch.arange(n).split(ntk.chunk):
        for key, value in ntk.vjp(ntk.unit_images(indices)).items():
            flat = value.flatten(1)
            rows.setdefault(key, flat.new_empty(n, flat.shape[1]))[indices] = flat
    return rows


def gram_of(rows: Tensor, metric: Tensor | None = None) -> np.ndarray:
    """Multiply a part of a Jacobian by its transpose.

    Parameters
    ----------
    rows : Tensor, shape (n, entries)
        Of one parameter.
    metric : Tensor, optional
        Of this parameter, in its shape.

    Returns
    -------
    ndarray, float64, shape (n, n)
        Summed in float64 whatever the type of the rows: small singular values survive in a float32
        Jacobian, and not in a float32 sum of squares.
    """
    gram = np.zeros((rows.shape[0], rows.shape[0]))
    weights = None if metric is None else metric.flatten().double().sqrt()
    for start in range(0, rows.shape[1], COLUMNS_AT_ONCE):
        columns = slice(start, start + COLUMNS_AT_ONCE)
        block = rows[:, columns].double()
        exact = (block if weights is None else block * weights[columns]).cpu().numpy()
        gram += exact @ exact.T  # which NumPy knows to be symmetric: half of the work
    return gram


@checked
def predicted_peak(
    spectrum: KernelSpectrum,
    residual: np.ndarray,
    noise_sigma: float,
    *,
    noise: np.ndarray | None = None,
) -> PredictedPeak:
    """Find the peak of the curve that a kernel predicts for a fully measured image.

    Parameters
    ----------
    spectrum : KernelSpectrum
        Of the kernel over n outputs.
    residual : ndarray, shape (n,)
        ``clean - f``, f the image from which the kernel's flow starts.
    noise_sigma : float
        Of the measurement; without effect, and to be 0, where `noise` is given.
    noise : ndarray, shape (n,), optional
        This very noise in place of its expectation: the curve is then of one fit,
        ``|E r - (I - E) noise|^2``. It must be given where the residual depends on the noise, as
        after some steps of a fit: the expectation holds for independent ones alone.

    Returns
    -------
    PredictedPeak
        The least error over ten decades of time and more, refined between their points.

    Raises
    ------
    InvalidInputError
        If the vectors don't fit, a number isn't finite, the level is negative, or both a level
        and noise are given.

    Notes
    -----
    Cost: 300 n operations after the ``2 n**2`` of the projections. Band, with a kernel's error of
    norm d: ``|E r|`` moves by at most ``t d |r|`` (Duhamel's formula), the eigenvalues in the
    variance by at most d (Weyl's inequality).
    """
    n = len(spectrum.values)
    for name, vector in (("residual", residual), ("noise", noise)):
        if vector is not None and vector.shape != (n,):
            raise InvalidInputError(f"the {name} must have shape ({n},), got {vector.shape}")
        if vector is not None and not np.isfinite(vector).all():
            raise InvalidInputError(f"the {name} holds NaN or infinity")
    if not 0 <= noise_sigma < np.inf:
        raise InvalidInputError(f"noise_sigma must be finite and not negative, got {noise_sigma}")
    if noise is not None and noise_sigma != 0:
        raise InvalidInputError("noise_sigma has no effect with the noise given: pass 0")
    largest = float(spectrum.values[-1])
    least = n * float(np.finfo(np.float64).eps) * largest  # no matrix is known better
    last = float(np.clip(UNTIL_ROUNDING * largest / max(spectrum.rounding, least), *LAST))
    points = int(DECADE_POINTS * np.log10(last / FIRST)) + 1
    times = np.geomspace(FIRST, last, points) / largest
    low, middle, high = _errors(spectrum, residual, noise_sigma, noise)(times)
    best = int(np.argmin(middle))
    around = np.log(times[[max(best - 1, 0), min(best + 1, points - 1)]])
    curve = _errors(spectrum, residual, noise_sigma, noise)
    refined = minimize_scalar(
        lambda x: float(curve(np.exp(np.array([x])))[1][0]), bounds=tuple(around), method="bounded"
    )
    time = float(times[best])
    if refined.fun < middle[best]:
        time = float(np.exp(refined.x))
        bounds = curve(np.array([time]))
        low, middle, high = (
            np.append(a, b) for a, b in zip((low, middle, high), bounds, strict=True)
        )
    freedom = float(-np.expm1(-time * spectrum.values).sum())
    return PredictedPeak(_psnr(middle), _psnr(high), _psnr(low), time, freedom)


Curve = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


# Mean squared error against time: lower, middle, upper.
def _errors(
    spectrum: KernelSpectrum, residual: np.ndarray, sigma: float, noise: np.ndarray | None
) -> Curve:
    n, values, slack = len(residual), spectrum.values, spectrum.rounding
    along = spectrum.vectors.T @ residual
    noisy = None if noise is None else spectrum.vectors.T @ noise
    reach = float(np.linalg.norm(along)) + (0.0 if noisy is None else float(np.linalg.norm(noisy)))

    def curve(times: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        error = np.exp(-np.outer(times, values)) * along
        if noisy is not None:
            error = error + np.expm1(-np.outer(times, values)) * noisy
        root = np.linalg.norm(error, axis=1)
        moved = np.minimum(times * slack, 1.0) * reach
        low, middle, high = np.maximum(root - moved, 0) ** 2, root**2, (root + moved) ** 2
        for total, shift in ((low, -slack), (middle, 0.0), (high, slack)):
            shifted = np.maximum(values + shift, 0.0)
            total += sigma**2 * np.square(np.expm1(-np.outer(times, shifted))).sum(axis=1)
        return low / n, middle / n, high / n

    return curve


# Of the least of them.
def _psnr(mse: np.ndarray) -> float:
    with np.errstate(divide="ignore"):
        return float(-10 * np.log10(mse.min()))
