"""Linear operators that are known by their products alone, and compose."""

import functools
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, ClassVar, overload

import numpy as np
import scipy.sparse.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base import displays
from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError


class _Dtype:
    """The type of an operator's numbers: torch's; to SciPy, that of NumPy in which it gets them."""

    # `scipy.sparse.linalg.aslinearoperator`, through which all of its solvers go, reads this very
    # attribute and gives it to `numpy.dtype`, which knows no type of torch's: hence the look at who
    # asks. Without annotations, since a check of them would be what asks.
    def __get__(self, operator, owner=None):  # type: ignore[no-untyped-def]
        if operator is None:
            return self
        try:
            found = vars(operator)["_dtype"]
        except KeyError:
            raise AttributeError("this operator has set no dtype") from None
        asks = sys._getframe(1).f_globals.get("__name__") or ""
        return array_type(found) if asks.startswith("scipy.sparse.linalg.") else found

    def __set__(self, operator, dtype):  # type: ignore[no-untyped-def]
        vars(operator)["_dtype"] = dtype


def array_type(dtype: torch.dtype) -> np.dtype:
    """Say in which type NumPy holds an operator's products: bfloat16 and float16 in float32."""
    return np.dtype(np.float64 if dtype == torch.float64 else np.float32)


@checked
class LinearOperator(ABC):
    """A real matrix ``A`` of size ``(m, n)``, of which only products are ever formed.

    Operators are added, multiplied by numbers and by each other, ``2 * A - B @ C.T``; they stay
    symmetric where that shows, as in ``B @ A @ B.T``. A subclass sets ``shape``, ``dtype`` and
    ``device`` and writes `_matmat` and `_rmatmat`; arguments are validated here, once.

    Attributes
    ----------
    shape : (int, int)
        ``(m, n)``.
    dtype, device
        Of the products.

    Examples
    --------
    >>> from dipkernels.linalg import DenseOperator, DiagonalOperator
    >>> A, mask = DenseOperator(torch.ones(3, 3)), DiagonalOperator(torch.tensor([1.0, 0.0, 1.0]))
    >>> (A + 0.5 * mask) @ torch.ones(3)
    tensor([3.5000, 3.0000, 3.5000])
    >>> mask @ A @ mask @ np.array([1, 1, 1j])
    array([1.+1.j, 0.+0.j, 1.+1.j], dtype=complex64)
    """

    shape: tuple[int, int]
    device: torch.device
    dtype: torch.dtype = _Dtype()  # type: ignore[assignment]
    __array_ufunc__: ClassVar[None] = None  # so that NumPy leaves `array @ operator` to us
    # Of operators with coefficients, and of factors; set by the file that defines what they make.
    _sum_of: ClassVar[Callable[..., "LinearOperator"]]
    _product_of: ClassVar[Callable[..., "LinearOperator"]]
    _adjoint_of: ClassVar[Callable[..., "LinearOperator"]]

    def _repr_html_(self) -> str:
        return displays.of_operator(self)

    @abstractmethod
    def _matmat(self, block: Tensor) -> Tensor:
        """Multiply a validated block ``(n, k)``; k is at least 1."""

    @abstractmethod
    def _rmatmat(self, block: Tensor) -> Tensor:
        """Multiply a validated block ``(m, k)`` by the transpose."""

    @overload
    def __matmul__(self, x: "LinearOperator") -> "LinearOperator": ...
    @overload
    def __matmul__(self, x: Tensor) -> Tensor: ...
    @overload
    def __matmul__(self, x: np.ndarray) -> np.ndarray: ...
    def __matmul__(self, x: Any) -> Any:
        """Multiply a vector ``(n,)``, a block ``(n, k)`` or an operator.

        A tensor is of the operator's dtype and device, or complex of that precision: its real and
        imaginary parts are multiplied as two columns. An array of NumPy is converted, and gives an
        array in the operator's precision, of bfloat16 and float16 in float32.
        """  # noqa: DOC201
        if isinstance(x, LinearOperator):
            return type(self)._product_of(self, x)
        return self._through(lambda block: self._product(block), x, self.shape[1])

    def __rmatmul__(self, x: Any) -> Any:
        """Multiply a vector ``(m,)`` or a block ``(k, m)`` from the left."""
        if not isinstance(x, Tensor | np.ndarray):
            return NotImplemented
        product = self.adjoint() @ (x.T if x.ndim == 2 else x)
        return product.T if x.ndim == 2 else product

    def _product(self, block: Tensor) -> Tensor:
        return self._matmat(block) if block.shape[1] else block.new_zeros(self.shape[0], 0)

    # Applies what takes real blocks to what was given: a vector or a block, an array, complex.
    def _through(
        self,
        function: Callable[[Tensor], Tensor],
        given: Any,
        length: int,
        joined: Callable[[Tensor, Tensor], Tensor] = torch.complex,
    ) -> Any:
        is_array = isinstance(given, np.ndarray)
        x = self._from_array(given) if is_array else given
        if not isinstance(x, Tensor):
            raise InvalidInputError(
                "expected a torch.Tensor, a NumPy array or an operator, got a "
                f"{type(given).__name__}"
            )
        require_length(x, length)
        if not is_array:
            self._check_type(x)
        block = x[:, None] if x.dim() == 1 else x
        if block.is_complex():
            block = torch.cat([block.real, block.imag], dim=1)
        found = function(block.to(self.device, self.dtype))
        if (is_array or x.is_complex()) and found.dtype in (torch.bfloat16, torch.float16):
            found = found.float()
        if x.is_complex():
            found = joined(*found.tensor_split(2, dim=-1))
        found = found[..., 0] if x.dim() == 1 else found
        return found.cpu().numpy() if is_array else found

    def _check_type(self, x: Tensor) -> None:
        wanted = self.dtype.to_complex() if x.is_complex() else self.dtype
        if x.dtype != wanted or x.device != self.device:
            raise InvalidInputError(
                f"expected {wanted} on {self.device}, got {x.dtype} on {x.device}: convert "
                f"with x.to(operator.device, {wanted})"
            )
        if x.layout != torch.strided:
            raise InvalidInputError(f"expected a dense tensor, got {x.layout}: x.to_dense() is one")

    def _from_array(self, x: np.ndarray) -> Tensor:
        if x.dtype.kind not in "biufc":
            raise InvalidInputError(f"expected an array of numbers, got one of {x.dtype}")
        wanted = array_type(self.dtype)
        wanted = np.result_type(wanted, np.complex64) if x.dtype.kind == "c" else wanted
        return torch.from_numpy(np.array(x, dtype=wanted))

    def __add__(self, other: Any) -> "LinearOperator":
        if isinstance(other, Real) and other == 0:  # where `sum` begins
            return self
        return type(self)._sum_of((1.0, self), (1.0, _operator(other)))

    __radd__ = __add__

    def __sub__(self, other: Any) -> "LinearOperator":
        return type(self)._sum_of((1.0, self), (-1.0, _operator(other)))

    def __rsub__(self, other: Any) -> "LinearOperator":
        return (-self).__add__(other)

    def __neg__(self) -> "LinearOperator":
        return self * -1.0

    def __mul__(self, number: Any) -> "LinearOperator":
        return type(self)._sum_of((_number(number), self))

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> "LinearOperator":
        divisor = _number(number)
        if divisor == 0:
            raise InvalidInputError("an operator can't be divided by 0")
        return type(self)._sum_of((1 / divisor, self))

    def adjoint(self) -> "LinearOperator":
        """Give the transpose, which of a real matrix is the adjoint.

        Returns
        -------
        LinearOperator
            Of shape ``(n, m)``.
        """
        return type(self)._adjoint_of(self)

    @property
    def T(self) -> "LinearOperator":  # noqa: N802, the name of the transpose everywhere
        """The transpose."""
        return self.adjoint()

    @property
    def H(self) -> "LinearOperator":  # noqa: N802
        """The adjoint, which of a real matrix is the transpose."""
        return self.adjoint()

    def to_dense(self) -> Float[Tensor, "m n"]:
        """Form the matrix.

        Returns
        -------
        Tensor, shape (m, n)
            Costs as many products as its smaller side is long, and ``m n`` numbers of memory; of a
            symmetric operator it is symmetric up to rounding.
        """
        if self.shape[0] < self.shape[1]:
            return self.adjoint().to_dense().T
        return self @ torch.eye(self.shape[1], dtype=self.dtype, device=self.device)

    def to_scipy(self) -> scipy.sparse.linalg.LinearOperator:
        """Wrap as a SciPy operator, for `scipy.sparse.linalg.eigsh` and the like.

        Returns
        -------
        scipy.sparse.linalg.LinearOperator
            Takes and returns NumPy arrays as ``operator @ array`` does; SciPy's own functions also
            take the operator itself, but multiply it by one column at a time.
        """
        return scipy.sparse.linalg.LinearOperator(
            self.shape,
            self.matvec,
            rmatvec=self.rmatvec,
            matmat=self.matvec,
            rmatmat=self.rmatmat,
            dtype=array_type(self.dtype),
        )

    # The names that SciPy asks for.
    matvec = __matmul__

    def rmatvec(self, x: np.ndarray) -> np.ndarray:
        """Multiply an array by the adjoint, by the name that SciPy asks for.

        Parameters
        ----------
        x : ndarray, shape (m,) or (m, k)
            Real or complex.

        Returns
        -------
        ndarray, shape (n,) or (n, k)
            As ``operator.T @ x``.
        """
        return self.adjoint() @ x

    rmatmat = rmatvec

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shape[0]}x{self.shape[1]}, {self.dtype})"


def require_length(x: Tensor, n: int) -> None:
    """Check that a matrix of n columns can multiply a vector or a block."""
    if x.dim() not in (1, 2) or x.shape[0] != n:
        raise InvalidInputError(f"expected shape ({n},) or ({n}, k), got {tuple(x.shape)}")


def summed(terms: Iterable[Tensor]) -> Tensor:
    """Add tensors up."""
    return functools.reduce(torch.add, terms)


def _operator(other: object) -> LinearOperator:
    if not isinstance(other, LinearOperator):
        raise InvalidInputError(
            f"an operator is added to another, got a {type(other).__name__}: of a matrix take "
            "DenseOperator(matrix), of a number s take s * DiagonalOperator(torch.ones(n))"
        )
    return other


def _number(given: Any) -> float:
    if isinstance(given, Tensor | np.ndarray) and given.ndim == 0:
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        given = given if isinstance(given, Real | complex) else f"a {type(given).__name__}"
        raise InvalidInputError(
            f"an operator is multiplied and divided by finite real numbers, got {given}; vectors "
            "and other operators are multiplied with @"
        )
    return float(given)
