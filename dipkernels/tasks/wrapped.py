"""Operators that torch doesn't see into: functions with an adjoint, matrices, other libraries."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.tasks.inputs import is_rehearsal
from dipkernels.tasks.operators import Operator, Shape

ROUNDINGS = 100  # of the tests of linearity and of adjoints, times the rounding of the type

Call = Callable[[Any], Any]


class ByAdjoint(torch.autograd.Function):
    """A linear map whose derivatives, in both modes, are the map and its adjoint."""

    @staticmethod
    def forward(x: Tensor, call: Call, back: Call) -> Tensor:
        """Call it."""
        found: Tensor = call(x.detach())
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep both."""
        _, ctx.call, ctx.back = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Apply the adjoint, which can be differentiated again."""
        return ByAdjoint.apply(gradient, ctx.back, ctx.call), None, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Any:
        """Apply the map."""
        return ByAdjoint.apply(tangent, ctx.call, ctx.back)

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, call: Call, back: Call) -> Any:
        """Take the mapped axis for one of the batch."""
        return ByAdjoint.apply(x.movedim(in_dims[0], 0), call, back), 0


class Wrapped(Operator):
    """An operator by two calls on ``(batch, *shape)``, in one type if it knows only that."""

    precision: torch.dtype | None = None  # None: that of what it gets

    def _forward(self, image: Tensor) -> Tensor:
        found: Tensor = ByAdjoint.apply(image, self._measure, self._spread)
        return found

    def _adjoint(self, measurement: Tensor) -> Tensor:
        found: Tensor = ByAdjoint.apply(measurement, self._spread, self._measure)
        return found

    def _measure(self, image: Tensor) -> Tensor:
        return self._through(self._project, image, self.image_shape, self.measurement_shape)

    def _spread(self, measurement: Tensor) -> Tensor:
        return self._through(
            self._back_project, measurement, self.measurement_shape, self.image_shape
        )

    def _through(self, call: Call, x: Tensor, before: Shape, after: Shape) -> Tensor:
        batch = x.shape[: x.dim() - len(before)]
        rows = x.reshape(-1, *before).contiguous().to(self.precision or x.dtype)
        try:
            found: Tensor = call(rows)
        except Exception:
            if not is_rehearsal(x):
                raise
            return x.new_empty(*batch, *after)
        return found.to(x).reshape(*batch, *after)

    def _project(self, images: Tensor) -> Tensor:
        """Measure ``(batch, *image_shape)``."""
        raise NotImplementedError

    def _back_project(self, measured: Tensor) -> Tensor:
        """Apply the adjoint to ``(batch, *measurement_shape)``."""
        raise NotImplementedError


class Physics(Wrapped):
    """An object with deepinv's methods ``A(x)`` and ``A_adjoint(y)`` on ``(batch, *shape)``."""

    def __init__(self, physics: Any, image_shape: Shape, measurement_shape: Shape) -> None:
        super().__init__(image_shape, measurement_shape)
        self.physics = physics
        self.name = f"{type(physics).__name__} (an external physics)"

    def _project(self, images: Tensor) -> Tensor:
        """Call ``A``."""
        with torch.no_grad():
            found: Tensor = self.physics.A(images)
        return found

    def _back_project(self, measured: Tensor) -> Tensor:
        """Call ``A_adjoint``."""
        with torch.no_grad():
            found: Tensor = self.physics.A_adjoint(measured)
        return found

    def _move(self, device: str | torch.device | None, dtype: torch.dtype | None) -> None:
        if hasattr(self.physics, "to"):
            self.physics = copy.deepcopy(self.physics)  # modules move in place
            dtype = dtype if self.precision is None else self.precision
            moved = self.physics.to(device=device, dtype=dtype)
            self.physics = self.physics if moved is None else moved


class Function(Wrapped):
    """A function of one image, or of a batch, of torch's tensors or NumPy's arrays."""

    def __init__(
        self,
        forward: Call,
        adjoint: Call | None,
        image_shape: Shape,
        measurement_shape: Shape,
        *,
        batched: bool,
        arrays: bool,
        is_complex: bool,
        name: str,
    ) -> None:
        super().__init__(image_shape, measurement_shape)
        self.function, self.transposed = forward, adjoint
        self.batched, self.arrays, self.is_complex, self.name = batched, arrays, is_complex, name

    def _project(self, images: Tensor) -> Tensor:
        """Call the function, and stack the parts of complex numbers."""
        with torch.no_grad():
            found = self._each(self.function, images)
        if self.is_complex:
            found = torch.stack([found.real, found.imag], dim=1)
        return found.reshape(len(images), *self.measurement_shape)

    def _back_project(self, measured: Tensor) -> Tensor:
        """Call the adjoint, or derive it by reverse mode."""
        rows = torch.complex(measured[:, 0], measured[:, 1]) if self.is_complex else measured
        if self.transposed is None:
            return self._derived(rows)
        with torch.no_grad():
            found = self._each(self.transposed, rows)
        found = found.real if found.is_complex() else found
        return found.reshape(len(measured), *self.image_shape)

    def _each(self, call: Call, rows: Tensor) -> Tensor:
        if self.batched:
            return _tensor(call(_given(rows, self.arrays)), rows)
        return torch.stack([_tensor(call(_given(row, self.arrays)), row) for row in rows])

    # A linear function has the same derivative everywhere: that at 0.
    def _derived(self, rows: Tensor) -> Tensor:
        real = rows.real if self.is_complex else rows
        with torch.enable_grad():
            zero = real.new_zeros(len(rows), *self.image_shape).requires_grad_()
            out = self._each(self.function, zero)
            found = torch.autograd.grad(out, zero, rows.reshape(out.shape), allow_unused=True)[0]
        return torch.zeros_like(zero) if found is None else found.detach()


def _given(rows: Tensor, arrays: bool) -> Any:
    return rows.detach().cpu().numpy() if arrays else rows


def _tensor(found: Any, like: Tensor) -> Tensor:
    if isinstance(found, Tensor):
        return found
    return torch.from_numpy(np.ascontiguousarray(found)).to(like.device)


def require_linear(operator: Operator, like: Tensor, said: str) -> None:
    """Check with random numbers that an operator is additive and homogeneous."""
    draws = generator("physics", 2)
    one, other = (torch.randn(operator.image_shape, generator=draws).to(like) for _ in range(2))
    alone = operator.forward(torch.stack([one, other, 2 * one - 3 * other]))
    wrong = float((alone[2] - 2 * alone[0] + 3 * alone[1]).double().norm())
    scale = float(alone.double().norm())
    if not wrong <= ROUNDINGS * _eps(operator, like) * scale:
        raise InvalidInputError(
            f"{said} isn't linear: A(2 x - 3 z) differs from 2 A(x) - 3 A(z) by {wrong:.2g}, of "
            f"{scale:.2g}, for random x and z; of an affine map take off A(0), from the "
            "measurement too"
        )


def require_adjoint(operator: Operator, like: Tensor, said: tuple[str, str]) -> None:
    """Check with random numbers that the adjoint is one."""
    image = torch.randn(operator.image_shape, generator=generator("physics", 0)).to(like)
    other = torch.randn(operator.measurement_shape, generator=generator("physics", 1)).to(like)
    measured, back = operator.forward(image), operator.adjoint(other)
    left, right = float((measured * other).double().sum()), float((image * back).double().sum())
    scale = float(measured.double().norm() * other.double().norm())
    if not abs(left - right) <= ROUNDINGS * _eps(operator, like) * scale:
        raise InvalidInputError(
            f"{said[1]} is not the adjoint of {said[0]}: <A x, y> = {left:g}, but <x, "
            f"A_adjoint y> = {right:g} for random x and y"
        )


def _eps(operator: Operator, like: Tensor) -> float:
    known = getattr(operator, "precision", None) or like.dtype
    return max(torch.finfo(known).eps, torch.finfo(like.dtype).eps)
