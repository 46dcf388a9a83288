"""`measure`: a task of any operator."""

import torch
from jaxtyping import Float, Num
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.inputs import (
    draw_noise,
    require_clean,
    require_finite,
    require_image,
    require_noise,
    require_unused,
)
from dipkernels.tasks.operators import Operator
from dipkernels.tasks.task import Task


@checked
def measure(
    operator: Operator,
    clean: Float[Tensor, "channels *spatial"] | None = None,
    *,
    measurement: Num[Tensor, "..."] | None = None,
    noise_sigma: float = 0.0,
    seed: int = 0,
    name: str = "measure",
) -> Task:
    """Make a task of what any linear operator measures, with white Gaussian noise.

    Parameters
    ----------
    operator : Operator
        `Blur`, `Radon`, `Fourier`, `RandomSensing`, or what `as_operator` makes.
    clean : Tensor, floating point, shape ``(channels, *spatial)``, optional
        In [0, 1].
    measurement : Tensor, shape ``operator.measurement_shape``, optional
        What was measured: nothing is simulated, and ``clean`` is only scored against. A complex
        one, without the leading axis of 2, is stacked.
    noise_sigma : float
        Standard deviation of noise on every number of the measurement, in its units: added, or
        known to be in ``measurement``.
    seed : int
        Of the noise.
    name : str
        Of the task.

    Returns
    -------
    Task
        On the device and in the type of the image.

    Raises
    ------
    InvalidInputError
        If the noise level is negative or not finite, neither image is given, or an option would
        have no effect.
    ImageError
        If an image isn't finite, or of another shape than the operator's.

    Examples
    --------
    >>> from dipkernels import images
    >>> from dipkernels.tasks import Radon
    >>> clean = images.load("camera", size=16)
    >>> measure(Radon(clean.shape, angles=12), clean, noise_sigma=0.01)
    Task(measure, 1x16x16 from 1x12x24, Radon transform at 12 angles, noise sigma 0.01, scored \
over whole)
    """
    if clean is not None:
        found = tuple(require_image(clean).shape)
        if found != operator.image_shape:
            raise ImageError(
                f"the operator is for images of shape {operator.image_shape}, the clean image has "
                f"{found}"
            )
    if measurement is None:
        clean = require_clean(clean)
        operator = operator.to(device=clean.device, dtype=clean.dtype)
        exact = operator.forward(clean)
        sigma = require_noise(noise_sigma, exact)
        measurement = exact + sigma * draw_noise(exact, seed)
        if operator.mask is not None:  # entries that aren't measured stay 0
            measurement = measurement * operator.mask
    else:
        require_unused(seed=seed != 0)
        measurement = _real(measurement, operator)
        require_finite(measurement, "measurement")
        sigma = require_noise(noise_sigma, measurement)
        operator = operator.to(device=measurement.device, dtype=measurement.dtype)
    return Task(name, measurement, operator, sigma, clean)


def _real(measurement: Tensor, operator: Operator) -> Tensor:
    if measurement.is_complex():
        measurement = torch.stack([measurement.real, measurement.imag])
    if tuple(measurement.shape) != operator.measurement_shape:
        raise ImageError(
            f"{operator.name} measures shape {operator.measurement_shape}, the measurement has "
            f"{tuple(measurement.shape)}"
        )
    if not measurement.is_floating_point():
        raise InvalidInputError(f"the measurement must be floating point, got {measurement.dtype}")
    return measurement
