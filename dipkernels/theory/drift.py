"""How far a kernel has moved: relative change, alignment, and its response to frequencies."""

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.statistics import jackknife
from dipkernels.errors import InvalidInputError
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.spectra import frequency_response
from dipkernels.spectra.bins import bin_edges
from dipkernels.spectra.modes import QuadraticForms

_COLUMNS = 16  # of a block of products


@checked
def kernel_drift(
    initial: SymmetricOperator,
    later: SymmetricOperator,
    *,
    probes: int = 8,
    known: Float[Tensor, "n k"] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Compare two kernels in the Frobenius norm, by products alone.

    Parameters
    ----------
    initial, later : SymmetricOperator
        ``A`` and ``B``, both of size n.
    probes : int
        Random signs, at least 2.
    known : Tensor, shape (n, k), optional
        Orthonormal columns, such as the leading eigenvectors of A: their share is computed exactly
        and the probes estimate the rest, which errs far less where few eigenvalues dominate.
    seed : int
        Of the probes.

    Returns
    -------
    xarray.Dataset
        Numbers, each with its ``_standard_error``: ``relative_change``, ``|B - A| / |A|``;
        ``alignment``, ``<A, B> / (|A| |B|)``, at most 1, which a change of scale leaves as it is;
        ``norm_ratio``, ``|B| / |A|``. Attribute: ``matvecs``, of both kernels together.

    Raises
    ------
    InvalidInputError
        If the kernels differ in size, there are fewer than 2 probes, the known vectors aren't
        orthonormal, or the first kernel is zero.

    Notes
    -----
    With ``P`` the projection orthogonal to the known ``U`` and random signs ``v``,
    ``|C|^2 = |C U|^2 + E |C P v|^2`` without bias, for every symmetric C; both kernels see the same
    probes, so that their errors cancel in the quotients. Quotients and roots of means have a bias
    of the order of one over the probes; standard errors are the jackknife's. Costs
    ``2 (k + probes)`` products. Source: Hutchinson 1990; Meyer et al. 2021 for the known part.
    """
    n = initial.shape[0]
    if initial.shape != later.shape:
        raise InvalidInputError(f"kernels of sizes {n} and {later.shape[0]} can't be compared")
    if probes < 2:
        raise InvalidInputError(f"at least 2 probes are needed for an error bar, got {probes}")
    signs = initial.rademacher(probes, seed).double()
    exact = torch.zeros(4, dtype=torch.float64)
    if known is not None:
        known = _orthonormal(known.to(signs), n)
        exact = _moments(initial, later, known).sum(dim=1)
        signs = signs - known @ (known.T @ signs)
    samples = exact[:, None] + _moments(initial, later, signs)
    if not float(samples[0].mean()) > 0:
        raise InvalidInputError("the first kernel is zero: nothing can be compared with it")
    found: dict[str, float] = {}
    for name, function in _QUOTIENTS.items():
        value, error = jackknife(samples.numpy().T, function)
        found[name], found[f"{name}_standard_error"] = float(value), float(error)
    columns = probes + (0 if known is None else known.shape[1])
    return xr.Dataset(found, attrs={"matvecs": 2 * columns})


@checked
def response_drift(
    kernels: dict[int, QuadraticForms],
    image_shape: tuple[int, ...],
    *,
    rings: int = 8,
    probes: int = 4,
    seed: int = 0,
) -> xr.Dataset:
    """Measure the frequency responses of a kernel at several iterations, with the same probes.

    Parameters
    ----------
    kernels : dict of int to kernel
        By iteration.
    image_shape : (channels, height, width) or (channels, length)
        Of the images.
    rings : int
        About so many, as `dipkernels.spectra.bin_edges` lays them out.
    probes, seed
        As of `dipkernels.spectra.frequency_response`, which raises what is wrong with them.

    Returns
    -------
    xarray.Dataset
        ``response`` and ``response_standard_error`` over ``(check, frequency)``, at the cost of
        `dipkernels.spectra.frequency_response` for each kernel.
    """
    edges = bin_edges(image_shape[1:], rings)
    responses = [
        frequency_response(kernel, image_shape, edges=edges, probes=probes, seed=seed)
        for kernel in kernels.values()
    ]
    found = xr.concat(responses, "check", combine_attrs="drop", data_vars="all", coords="minimal")
    found = found.rename(standard_error="response_standard_error")
    return found[["response", "response_standard_error"]].assign_coords(check=list(kernels))


# |A v|^2, |B v|^2, <A v, B v> and |(B - A) v|^2 of every column: shape (4, columns). The last one
# by itself, since the difference of the others would cancel where the kernels are alike.
def _moments(initial: SymmetricOperator, later: SymmetricOperator, block: Tensor) -> Tensor:
    parts = []
    for columns in block.split(_COLUMNS, dim=1):
        a, b = ((kernel @ columns.to(kernel.dtype)).double() for kernel in (initial, later))
        squares = [a.square(), b.square(), a * b, (b - a).square()]
        parts.append(torch.stack([square.sum(dim=0) for square in squares]).cpu())
    return torch.cat(parts, dim=1)


def _orthonormal(known: Tensor, n: int) -> Tensor:
    if known.dim() != 2 or known.shape[0] != n:
        raise InvalidInputError(f"known vectors must be of shape ({n}, k), got {known.shape}")
    unit = torch.eye(known.shape[1], dtype=known.dtype, device=known.device)
    if not torch.allclose(known.T @ known, unit, atol=1e-6):
        raise InvalidInputError("the known vectors aren't orthonormal: take those of Eigenpairs")
    return known


# Of the means of the four moments.
_QUOTIENTS: dict[str, Callable[[np.ndarray], float]] = {
    "relative_change": lambda m: float(np.sqrt(m[3] / m[0])),
    "alignment": lambda m: float(m[2] / np.sqrt(m[0] * m[1])) if m[1] > 0 else 0.0,
    "norm_ratio": lambda m: float(np.sqrt(m[1] / m[0])),
}
