"""The Gauss-Newton matrix: the tangent kernel's other side, on parameters."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.kernels.factor import JacobianFactor
from dipkernels.linalg.operator import SymmetricOperator
from dipkernels.priors.stateless import Parameters

_ROWS = 64  # of the Jacobian, that are formed at a time


@checked
class GaussNewton(SymmetricOperator):
    """The Gauss-Newton matrix ``B^T W B`` of squared errors, on flattened parameters.

    ``B = J M^(1/2)`` is the factor of an `NTK`, whose nonzero eigenvalues this has where W is the
    identity. Without a metric it is the Hessian of ``|f - y|_W^2 / 2`` less what the network's
    curvature adds to it. `NTK.gauss_newton` makes it. A product is a tangent and a backward pass,
    as one with the kernel; a quadratic form the tangent pass alone.

    Parameters
    ----------
    factor : JacobianFactor
        Of a tangent kernel, of shape (n, P).
    weights : Tensor, optional
        The diagonal W, not negative: a mask of what is measured, or one over the noise's variance.
        Of the shape of the images, or ``(*spatial)`` for all channels alike.

    Attributes
    ----------
    shape : (int, int)
        ``(P, P)``, in the order of the kernel's parameters.

    Raises
    ------
    InvalidInputError
        If the weights have another shape, or one is negative or not finite.

    Examples
    --------
    >>> from dipkernels.kernels import NTK
    >>> from dipkernels.networks import ImagePrior
    >>> prior = ImagePrior(lambda: torch.nn.Conv2d(2, 1, 3), torch.rand(1, 2, 8, 12))
    >>> hessian = NTK(prior, prior.init(seed=0)).gauss_newton()
    >>> hessian.shape, hessian.as_parameters(hessian @ torch.ones(19))["weight"].shape
    ((19, 19), torch.Size([1, 2, 3, 3]))
    """

    def __init__(self, factor: JacobianFactor, weights: Tensor | None = None) -> None:
        self.factor = factor
        self._weighted = weights is not None
        self._weights = _column(weights, factor)
        self.shape = (factor.shape[1], factor.shape[1])
        self.dtype, self.device = factor.dtype, factor.device

    def as_parameters(self, vector: Tensor) -> Parameters:
        """Cut a vector into parameters.

        Parameters
        ----------
        vector : Tensor, shape (P,) or (P, k)
            Flattened parameters, one set a column.

        Returns
        -------
        dict of str to Tensor
            Of the parameters' shapes; of several columns ``(k, ...)``, as `NTK.jvp` takes them.

        Raises
        ------
        InvalidInputError
            If it has another length.
        """
        if vector.dim() not in (1, 2) or len(vector) != self.shape[0]:
            raise InvalidInputError(
                f"expected shape ({self.shape[0]},) or ({self.shape[0]}, k), got "
                f"{tuple(vector.shape)}"
            )
        return self.factor.unflattened(vector.T if vector.dim() == 2 else vector)

    def to_dense(self) -> Tensor:
        """Form the matrix, ``P**2`` numbers, from the Jacobian's n rows where they are fewer."""
        if self.shape[0] < self.factor.shape[0]:
            return super().to_dense()
        dense = self._zeros(*self.shape)
        for rows, weights in self._rows():
            dense += rows.T @ (rows * weights)
        return dense

    def _exact_diagonal(self, block: int = 64) -> Tensor:
        diagonal = self._zeros(self.shape[0])
        for rows, weights in self._rows():
            diagonal += (rows.square() * weights).sum(dim=0)
        return diagonal

    # Rows of the factor, (k, P), and the weight of each, (k, 1).
    def _rows(self) -> Iterator[tuple[Tensor, Tensor]]:
        n = self.factor.shape[0]
        for chosen in torch.arange(n, device=self.device).split(_ROWS):
            units = self._zeros(n, len(chosen))
            units[chosen, torch.arange(len(chosen), device=self.device)] = 1
            yield self.factor.transposed(units), self._weights[chosen]

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _matmat(self, block: Tensor) -> Tensor:
        return self.factor._rmatmat(self._weights * self.factor._matmat(block))

    def _forms(self, block: Tensor) -> Tensor:
        return (self._weights * self.factor._matmat(block).square()).sum(dim=0)

    def __repr__(self) -> str:
        return f"GaussNewton({self.factor!r}{', weighted' * self._weighted})"


def _column(weights: Tensor | None, factor: JacobianFactor) -> Tensor:
    shape = factor.image_shape
    weights = torch.ones(shape) if weights is None else weights
    if tuple(weights.shape) not in (shape, shape[1:]):
        raise InvalidInputError(
            f"weights must have shape {shape} or {shape[1:]}, got {tuple(weights.shape)}"
        )
    if weights.is_complex() or not weights.isfinite().all() or (weights < 0).any():
        raise InvalidInputError("weights must be finite and not negative")
    column = weights.expand(shape).flatten()[:, None]
    return column.to(factor.device, factor.dtype)
