"""`as_operator`: an operator out of functions, matrices and other libraries' objects."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.operators import Masking, Operator, Shape
from dipkernels.tasks.physics import wrap_physics
from dipkernels.tasks.wrapped import Function, require_adjoint, require_linear

TYPES = (torch.float64, torch.float32)  # in which a function is tried, in order


@checked
def as_operator(
    given: Any,
    image_shape: Sequence[int],
    *,
    adjoint: Callable[[Any], Any] | None = None,
    batched: bool = False,
    name: str | None = None,
) -> Operator:
    """Make a linear operator out of whatever knows how to measure an image.

    Parameters
    ----------
    given : callable, matrix, Tensor of bool, or object
        A function of an image ``(channels, *spatial)``, of torch or of NumPy, that returns numbers
        of any shape, real or complex; a matrix on flattened images (an array or tensor of two axes,
        a sparse one, a SciPy LinearOperator, any object with ``shape``, ``matvec`` and
        ``rmatvec``); a mask, True where an entry of the image is measured; an object with deepinv's
        ``A`` and ``A_adjoint``; or an Operator, which is returned.
    image_shape : ``(channels, *spatial)``
        Of the image that is sought.
    adjoint : callable, optional
        Of a function: from what it returns to images. Where it isn't given it is derived from the
        function, which torch must then be able to differentiate.
    batched : bool
        Of a function: it takes (and its adjoint too) a leading axis of any length.
    name : str, optional
        Of a function, for messages; by default its own.

    Returns
    -------
    Operator
        For `measure`. Of complex numbers the real parts come first, then the imaginary ones, along
        a new first axis of length 2. Gradients of any order go through the adjoint. It computes in
        the type that it gets; a function that fails in float64, or returns another type, is called
        in float32 throughout.

    Raises
    ------
    InvalidInputError
        If it's none of these, fails, isn't linear, or the adjoint isn't one: a function that torch
        can differentiate in part alone is found by that.

    Notes
    -----
    Linearity and the adjoint are tested once, with random numbers: some calls of both. Functions
    of NumPy are called on the CPU, image by image unless `batched`.

    Examples
    --------
    >>> sums = as_operator(lambda image: image.cumsum(-1)[..., 1:], (1, 2, 4))
    >>> sums.adjoint(torch.ones(1, 2, 3))[0, 0]
    tensor([3., 3., 2., 1.])
    """
    shape = tuple(image_shape)
    if isinstance(given, Operator):
        found: Operator = given
    elif isinstance(given, Tensor) and given.dtype == torch.bool:
        found = Masking(shape, _fitting_mask(given, shape))
    elif hasattr(given, "A") and hasattr(given, "A_adjoint"):
        return wrap_physics(given, shape, torch.zeros((), dtype=_type_of(given)))
    elif _is_matrix(given):
        return _probed(_of_matrix(given, shape), ("the matrix", "its transpose"))
    elif callable(given):
        named = str(name or getattr(given, "__name__", type(given).__name__))
        return _of_function(given, adjoint, shape, batched, named)
    else:
        raise InvalidInputError(
            "an operator is made of a function, a matrix, a SciPy LinearOperator, a boolean mask "
            f"or an object with A and A_adjoint, got a {type(given).__name__}"
        )
    if adjoint is not None:
        raise InvalidInputError("adjoint has no effect but on a function: leave it out")
    if found.image_shape != shape:
        raise InvalidInputError(
            f"the operator is for images of shape {found.image_shape}, not {shape}"
        )
    return found


def _of_function(
    forward: Callable[[Any], Any],
    adjoint: Callable[[Any], Any] | None,
    shape: Shape,
    batched: bool,
    name: str,
) -> Operator:
    found, dtype, arrays = _tried(forward, adjoint, shape, batched)
    if arrays and adjoint is None:
        raise InvalidInputError(
            f"{name} returns NumPy's arrays, of which no adjoint can be derived: give adjoint=, or "
            "write it in torch"
        )
    is_complex = found.is_complex()
    if batched and (not found.dim() or len(found) != 1):
        raise InvalidInputError(
            f"{name} is said to be batched, but returns shape {tuple(found.shape)} for a batch of 1"
        )
    measured = tuple(found.shape[1:] if batched else found.shape)
    operator = Function(
        forward,
        adjoint,
        shape,
        (2, *measured) if is_complex else measured or (1,),
        batched=batched,
        arrays=arrays,
        is_complex=is_complex,
        name=name,
    )
    if dtype != torch.float64:
        operator.precision = dtype
    return _probed(operator, (name, "adjoint" if adjoint else f"the derivative of {name}"))


# What a function returns for an image, the type in which it works, and whether it's NumPy's.
def _tried(
    forward: Callable[[Any], Any],
    adjoint: Callable[[Any], Any] | None,
    shape: Shape,
    batched: bool,
) -> tuple[Tensor, torch.dtype, bool]:
    image = torch.randn(shape, generator=generator("physics", 0)).double()
    image = image[None] if batched else image
    errors = []
    for dtype in TYPES:
        for arrays in (False, True):
            x = image.to(dtype)
            try:
                with torch.no_grad():
                    out = forward(x.numpy() if arrays else x)
                    if adjoint is not None:  # NumPy's functions take some of torch's tensors
                        adjoint(out)
                is_array = not isinstance(out, Tensor)
                found = torch.from_numpy(np.array(out)) if is_array else out.detach()
                if found.numel() and found.dtype != torch.bool:
                    real = found.real.dtype
                    if real != dtype and dtype != TYPES[-1]:
                        break  # it may take float32 alone without a word
                    if found.is_floating_point() or found.is_complex():
                        return found, dtype, is_array
            except Exception as error:  # whatever the function raises
                errors.append(f"{type(error).__name__}: {error}")
    said = f": {errors[0]}" if errors else ": it must return floating-point numbers"
    raise InvalidInputError(
        f"the function failed on an image of shape {shape}, or its adjoint{said}"
    )


def _is_matrix(given: Any) -> bool:
    if isinstance(given, Tensor | np.ndarray):
        return True
    return hasattr(given, "shape") and (scipy.sparse.issparse(given) or hasattr(given, "matvec"))


def _of_matrix(given: Any, shape: Shape) -> Operator:
    n = math.prod(shape)
    size = tuple(given.shape)
    if len(size) != 2 or size[1] != n:
        raise InvalidInputError(
            f"a matrix on images of shape {shape} has {n} columns, this has shape {size}"
        )
    if isinstance(given, Tensor):
        given = given.detach().cpu().numpy()
    # in double precision, whatever a moved task computes in
    matrix = scipy.sparse.linalg.aslinearoperator(given)
    is_complex = np.issubdtype(matrix.dtype, np.complexfloating)

    def forward(images: np.ndarray) -> np.ndarray:
        return np.asarray(matrix.matmat(images.reshape(len(images), -1).T)).T

    def adjoint(measured: np.ndarray) -> np.ndarray:
        return np.asarray(matrix.rmatmat(measured.reshape(len(measured), -1).T)).T

    measured = (2, size[0]) if is_complex else (size[0],)
    return Function(
        forward,
        adjoint,
        shape,
        measured,
        batched=True,
        arrays=True,
        is_complex=is_complex,
        name=f"matrix ({size[0]}x{size[1]})",
    )


def _fitting_mask(mask: Tensor, shape: Shape) -> Tensor:
    if tuple(mask.shape) not in (shape, shape[1:]) or not bool(mask.any()):
        raise InvalidInputError(
            f"a mask of images of shape {shape} has that shape, or {shape[1:]} for all channels, "
            f"and is True somewhere: got shape {tuple(mask.shape)}"
        )
    return mask


def _probed(operator: Operator, said: tuple[str, str]) -> Operator:
    like = torch.zeros((), dtype=getattr(operator, "precision", None) or torch.float64)
    try:
        require_linear(operator, like, said[0])
        require_adjoint(operator, like, said)
    except InvalidInputError:
        raise
    except Exception as error:  # whatever a function raises
        raise InvalidInputError(
            f"{said[0]} and its adjoint don't fit together on images of shape "
            f"{operator.image_shape} and measurements of {operator.measurement_shape}: {error}"
        ) from error
    return operator


# Of a module's first floating-point tensor; else that of most of torch.
def _type_of(physics: Any) -> torch.dtype:
    for tensors in ("parameters", "buffers"):
        for each in getattr(physics, tensors, lambda: ())():
            if isinstance(each, Tensor) and each.dtype in TYPES:
                return each.dtype
    return torch.float32
