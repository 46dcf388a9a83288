"""Operators handed to other libraries: to curvlinops, and to linear_operator, which GPyTorch uses.

Each is an extra, ``curvlinops`` and ``gpytorch``; SciPy needs no bridge, see
`dipkernels.linalg.LinearOperator.to_scipy`.
"""

import functools
import importlib
from typing import Any

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import MissingExtraError, install_command
from dipkernels.kernels import GaussNewton, Kernel
from dipkernels.kernels.factor import JacobianFactor
from dipkernels.linalg import LinearOperator, SymmetricOperator

__all__ = ["to_curvlinops", "to_linear_operator"]

Shapes = list[tuple[int, ...]]
_COLUMNS = 64  # of products, to pick entries


@checked
def to_curvlinops(operator: LinearOperator) -> Any:
    """Wrap an operator as curvlinops' ``PyTorchLinearOperator``.

    Parameters
    ----------
    operator : LinearOperator
        Any. The spaces of kernels are images, ``image_shape``, those of Gauss-Newton matrices the
        network's parameters, for curvlinops' products of lists of tensors.

    Returns
    -------
    curvlinops.PyTorchLinearOperator
        With the operator's products, adjoint, dtype and device. Symmetric ones know that they are.

    Raises
    ------
    MissingExtraError
        If curvlinops isn't there, or doesn't import.
    InvalidInputError
        If it isn't an operator.

    Notes
    -----
    For curvlinops' estimators (``xdiag``, ``hutchpp_trace``) and inverses. A tangent kernel has no
    smallest eigenvalue that is clearly positive: invert ``ntk + s * DiagonalOperator(ones)``.

    Examples
    --------
    >>> from dipkernels.linalg import DenseOperator
    >>> to_curvlinops(DenseOperator(torch.eye(3))) @ torch.ones(3)  # doctest: +SKIP
    tensor([1., 1., 1.])
    """
    wrapped: Any = _curvlinops_class()(operator)
    return wrapped


@checked
def to_linear_operator(operator: LinearOperator) -> Any:
    """Wrap an operator as a ``linear_operator.LinearOperator``, as GPyTorch takes them.

    Parameters
    ----------
    operator : LinearOperator
        Any.

    Returns
    -------
    linear_operator.operators.LinearOperator
        Of shape ``(m, n)``, without a batch axis; right-hand sides may have some. A constant:
        gradients flow through it to what it multiplies, none to the network's parameters.

    Raises
    ------
    MissingExtraError
        If linear_operator isn't there, or doesn't import.
    InvalidInputError
        If it isn't an operator.

    Notes
    -----
    ``linear_operator`` forms matrices of up to 800 rows for a Cholesky decomposition; its setting
    ``max_cholesky_size`` changes that.

    Examples
    --------
    >>> from dipkernels.linalg import DenseOperator
    >>> kernel = to_linear_operator(DenseOperator(torch.eye(3)))  # doctest: +SKIP
    >>> kernel.add_jitter(1.0).solve(torch.ones(3))  # doctest: +SKIP
    tensor([0.5000, 0.5000, 0.5000])
    """
    wrapped: Any = _linear_operator_class()(operator=operator)
    return wrapped


@functools.cache
def _curvlinops_class() -> Any:
    base: Any = _imported("curvlinops.inverse", "curvlinops").PyTorchLinearOperator

    class Wrapped(base):  # type: ignore[misc]
        """An operator of dipkernels."""

        def __init__(self, operator: LinearOperator) -> None:
            columns, rows = _spaces(operator)
            super().__init__(columns, rows)
            self.operator = operator
            self.SELF_ADJOINT = isinstance(operator, SymmetricOperator)
            self.sizes = [torch.Size(shape).numel() for shape in rows]
            self.rows = rows

        @property
        def dtype(self) -> torch.dtype:
            return self.operator.dtype

        @property
        def device(self) -> torch.device:
            return self.operator.device

        def _matmat(self, X: list[Tensor]) -> list[Tensor]:
            product = self.operator @ torch.cat([x.flatten(end_dim=-2) for x in X])
            parts = zip(product.split(self.sizes), self.rows, strict=True)
            return [part.reshape(*shape, -1) for part, shape in parts]

        def _adjoint(self) -> Any:
            return Wrapped(self.operator.adjoint())

    return Wrapped


@functools.cache
def _linear_operator_class() -> Any:
    base: Any = _imported("linear_operator.operators", "gpytorch").LinearOperator

    class Wrapped(base):  # type: ignore[misc]
        """An operator of dipkernels."""

        def __init__(self, operator: LinearOperator) -> None:
            super().__init__(operator=operator)
            self.operator = operator

        @property
        def dtype(self) -> torch.dtype:
            return self.operator.dtype

        @property
        def device(self) -> torch.device:
            return self.operator.device

        def _size(self) -> torch.Size:
            return torch.Size(self.operator.shape)

        def _transpose_nonbatch(self) -> Any:
            return Wrapped(operator=self.operator.adjoint())

        def _matmul(self, rhs: Tensor) -> Tensor:
            if rhs.dim() <= 2:
                return self.operator @ rhs.detach()
            columns = rhs.detach().movedim(-2, 0)
            product = self.operator @ columns.flatten(1)
            batch: Tensor = product.unflatten(1, columns.shape[1:]).movedim(0, -2)
            return batch

        def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch: Tensor) -> Tensor:
            row_index, col_index = torch.broadcast_tensors(row_index, col_index)
            columns, place = col_index.unique(return_inverse=True)
            found = torch.empty(row_index.shape, dtype=self.dtype, device=self.device)
            for start in range(0, len(columns), _COLUMNS):
                chosen = columns[start : start + _COLUMNS]
                units = torch.zeros(self.operator.shape[1], len(chosen)).to(found)
                units[chosen, torch.arange(len(chosen))] = 1
                here = (place >= start) & (place < start + _COLUMNS)
                found[here] = (self.operator @ units)[row_index[here], place[here] - start]
            return found

        def _diagonal(self) -> Tensor:
            if isinstance(self.operator, SymmetricOperator):
                return self.operator.diagonal(None).value
            every = torch.arange(min(self.operator.shape), device=self.device)
            return self._get_indices(every, every)

        def to_dense(self) -> Tensor:
            return self.operator.to_dense()

    return Wrapped


# Shapes of the columns' and the rows' spaces.
def _spaces(operator: LinearOperator) -> tuple[Shapes, Shapes]:
    if isinstance(operator, Kernel):
        return [operator.image_shape], [operator.image_shape]
    factor = operator.factor if isinstance(operator, GaussNewton) else operator
    if isinstance(factor, JacobianFactor):
        parameters = [tuple(shape) for shape in factor.parameter_shapes.values()]
        images = [factor.image_shape]
        return parameters, parameters if factor is not operator else images
    return [(operator.shape[1],)], [(operator.shape[0],)]


def _imported(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except Exception as error:  # what it needs may be missing, or of another version
        why = f"{type(error).__name__}: {error}"
        raise MissingExtraError(
            f"{module} can't be imported ({why}): {install_command(extra)}"
        ) from error
