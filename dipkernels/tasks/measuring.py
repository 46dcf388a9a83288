"""`measure`: a task of any operator."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Num
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.base.seeds import generator
from dipkernels.errors import ImageError, InvalidInputError
from dipkernels.tasks.inputs import (
    draw_noise,
    require_clean,
    require_finite,
    require_image,
    require_noise,
    require_unused,
)
from dipkernels.tasks.misfits import Misfit, Weighted, as_misfit
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
    misfit: str | Misfit | Weighted | Callable[[Tensor, Tensor], Any] = "squares",
) -> Task:
    """Make a task of what any linear operator measures, with white Gaussian noise or another.

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
    misfit : {"squares", "l1"}, object of `dipkernels.tasks.misfits`, or callable
        What errors cost, see `Task.with_misfit`. The noise that is simulated has the law whose
        negative log-likelihood it is: Laplace's of deviation ``noise_sigma``, counts of photons,
        Gaussian noise of deviation ``noise_sigma / sqrt(weight)``; of a function, Gaussian.

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
        measurement = _drawn(exact, sigma, seed, misfit)
        if operator.mask is not None:  # entries that aren't measured stay 0
            measurement = measurement * operator.mask
    else:
        require_unused(seed=seed != 0)
        measurement = _real(measurement, operator)
        require_finite(measurement, "measurement")
        sigma = require_noise(noise_sigma, measurement)
        operator = operator.to(device=measurement.device, dtype=measurement.dtype)
    task = Task(name, measurement, operator, sigma, clean)
    return task if misfit == "squares" else task.with_misfit(misfit)


def _drawn(exact: Tensor, sigma: float, seed: int, misfit: Any) -> Tensor:
    if isinstance(misfit, Weighted):
        roots = misfit.roots.to(exact)
        if roots.shape != exact.shape:
            raise InvalidInputError(
                f"weights have the measurement's shape {tuple(exact.shape)}, got "
                f"{tuple(roots.shape)}"
            )
        return exact + sigma / roots * draw_noise(exact, seed)
    return as_misfit(misfit).draw(exact, sigma, generator("noise", seed))


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
