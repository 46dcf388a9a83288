"""Any linear measurement, given as an object with deepinv's methods."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.inputs import require_finite, require_image, require_noise
from dipkernels.tasks.task import Task
from dipkernels.tasks.wrapped import Physics, require_adjoint, require_linear


@checked
def from_physics(
    physics: Any,
    measurement: Float[Tensor, "..."],
    shape: Sequence[int],
    *,
    clean: Float[Tensor, "channels *spatial"] | None = None,
    noise_sigma: float = 0.0,
) -> Task:
    """Make a task of a measurement and of the physics that made it, such as deepinv's.

    Parameters
    ----------
    physics : object
        With ``A(x)`` and ``A_adjoint(y)`` on real tensors with one batch axis, linear and adjoint
        to each other: a ``deepinv.physics.LinearPhysics`` serves as it is. If it has ``to(device=,
        dtype=)``, a copy of it moves with the task; otherwise it must take tensors of any device
        and dtype itself. One that fails in float64 is called in its own type throughout.
    measurement : Tensor, shape ``measured`` or ``(1, *measured)``
        Real; what was measured, as ``physics(x)`` returns it.
    shape : ``(channels, *spatial)``
        Of the image that is sought.
    clean : Tensor, shape ``shape``, optional
        Ground truth, to score against.
    noise_sigma : float
        Standard deviation of the measurement's noise, if known.

    Returns
    -------
    Task
        Which calls ``A`` on images with one batch axis. Gradients go through ``A_adjoint``.

    Raises
    ------
    InvalidInputError
        If a method is missing or fails, shapes disagree, or ``A_adjoint`` isn't the adjoint of
        ``A``, as it isn't for a nonlinear ``A``.
    ImageError
        If the clean image or the measurement is not finite, or of another shape.

    Notes
    -----
    Costs a few calls of both methods, for the checks with random numbers.
    """
    if not measurement.is_floating_point():
        raise ImageError(
            f"the measurement must be real floating point, got {measurement.dtype}: view complex "
            "numbers as two channels (torch.view_as_real)"
        )
    require_finite(measurement, "measurement")
    if clean is not None and tuple(require_image(clean).shape) != tuple(shape):
        raise ImageError(f"the clean image has shape {tuple(clean.shape)}, not {tuple(shape)}")
    sigma = require_noise(noise_sigma, measurement)
    operator = wrap_physics(physics, shape, measurement)
    expected = operator.measurement_shape
    if tuple(measurement.shape) not in (expected, (1, *expected)):
        raise InvalidInputError(
            f"A maps images of shape {tuple(shape)} to measurements of shape {expected}, but the "
            f"measurement has shape {tuple(measurement.shape)}"
        )
    return Task("physics", measurement.reshape(expected), operator, sigma, clean)


def wrap_physics(physics: Any, shape: Sequence[int], like: Tensor) -> Physics:
    """Make an operator of a physics, probed in the type and on the device of a tensor."""
    for method in ("A", "A_adjoint"):
        if not callable(getattr(physics, method, None)):
            raise InvalidInputError(
                f"{type(physics).__name__} has no method {method}(): a physics needs A(x) and "
                "A_adjoint(y), as deepinv.physics.LinearPhysics has"
            )
    image = torch.randn((1, *shape), generator=generator("physics", 0)).to(like)
    measured = _call(physics, "A", image)
    other = torch.randn(measured.shape, generator=generator("physics", 1)).to(measured)
    back = _call(physics, "A_adjoint", other)
    if back.shape != image.shape:
        raise InvalidInputError(
            f"A_adjoint returns shape {tuple(back.shape)} for a measurement of shape "
            f"{tuple(measured.shape)}; expected the image's, {tuple(image.shape)}"
        )
    operator = Physics(physics, tuple(shape), tuple(measured.shape[1:]))
    require_adjoint(operator, like, ("A", "A_adjoint"))
    require_linear(operator, like, f"{type(physics).__name__}.A")
    if like.dtype != torch.float64 and not _takes(operator, like.to(torch.float64)):
        operator.precision = like.dtype
    return operator


# Whether both calls work in another type, once the physics has moved there.
def _takes(operator: Physics, like: Tensor) -> bool:
    with contextlib.suppress(Exception):  # whatever the physics raises
        moved: Any = operator.to(dtype=like.dtype)
        image = moved._back_project(like.new_zeros(1, *operator.measurement_shape))
        return bool(image.dtype == like.dtype == moved._project(image).dtype)
    return False


def _call(physics: Any, method: str, x: Tensor) -> Tensor:
    try:
        with torch.no_grad():
            out = getattr(physics, method)(x)
    except Exception as error:  # whatever the physics raises
        raise InvalidInputError(
            f"{type(physics).__name__}.{method} failed on a tensor of shape {tuple(x.shape)}, "
            f"{x.dtype}, on {x.device}: {error}"
        ) from error
    if not isinstance(out, Tensor) or not out.is_floating_point() or out.shape[:1] != (1,):
        found = f"{out.dtype} of shape {tuple(out.shape)}" if isinstance(out, Tensor) else type(out)
        raise InvalidInputError(
            f"{type(physics).__name__}.{method} must return a real tensor with a batch axis of 1, "
            f"got {found}"
        )
    return out
