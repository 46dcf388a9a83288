"""Covariances that are given as functions of distance: RBF, Matern, or any other."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dipkernels.base.checks import checked, require_choice
from dipkernels.base.kinds import Positive
from dipkernels.errors import InvalidInputError

_SMOOTHNESS = (0.5, 1.5, 2.5)


@checked
@dataclass(frozen=True)
class LagKernel:
    """``outputscale * correlation(distance / lengthscale)``, an isotropic covariance.

    For anisotropic functions of the lag, tabulate them: `StationaryKernel.from_lags`.

    Attributes
    ----------
    name : str
        For messages.
    correlation : callable
        From distance in units of the length-scale (float64 Tensor, any shape, at least 0) to the
        correlation, 1 at 0; made of torch's functions if the length-scale is to be differentiated.
    lengthscale, outputscale : float
        In pixels; the variance, in units of the image squared.

    Raises
    ------
    InvalidInputError
        If a scale isn't positive and finite, or the correlation isn't 1 at 0.
    """

    name: str
    correlation: Callable[[Tensor], Tensor]
    lengthscale: Positive
    outputscale: Positive = 1.0

    def __post_init__(self) -> None:
        origin = self.correlation(torch.zeros(1, dtype=torch.float64))
        if not abs(float(origin[0]) - 1) < 1e-12:
            raise InvalidInputError(
                f"the correlation at distance 0 must be 1, got {float(origin[0])}: put the "
                "variance into outputscale"
            )

    def __call__(self, distance: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Evaluate the covariance at distances in pixels."""
        return self.outputscale * self.correlation(distance / self.lengthscale)

    def __repr__(self) -> str:
        return (
            f"LagKernel({self.name}, lengthscale {self.lengthscale:.4g} pixels, outputscale "
            f"{self.outputscale:.4g})"
        )


def log_lengthscale_derivative(kernel: LagKernel, distance: Tensor) -> Tensor:
    """Differentiate a kernel at distances in pixels by the logarithm of its length-scale."""
    relative = (distance / kernel.lengthscale).requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(kernel.correlation(relative).sum(), relative)
    return -kernel.outputscale * relative.detach() * slope


@checked
def rbf(lengthscale: float, outputscale: float = 1.0) -> LagKernel:
    """Make the squared-exponential covariance ``outputscale exp(-d^2 / (2 lengthscale^2))``.

    Parameters
    ----------
    lengthscale, outputscale : float
        In pixels; the variance.

    Returns
    -------
    LagKernel
        Its spectrum falls so fast that long length-scales can't be solved without noise.
    """
    return LagKernel("RBF", lambda d: torch.exp(-(d**2) / 2), lengthscale, outputscale)


@checked
def matern(lengthscale: float, outputscale: float = 1.0, *, smoothness: float = 1.5) -> LagKernel:
    """Make a Matern covariance (Rasmussen & Williams 2006, section 4.2).

    Parameters
    ----------
    lengthscale, outputscale : float
        In pixels; the variance.
    smoothness : {0.5, 1.5, 2.5}
        nu; 0.5 is the exponential.

    Returns
    -------
    LagKernel
        In closed form.

    Raises
    ------
    InvalidInputError
        If the smoothness is another.
    """
    require_choice("smoothness", smoothness, _SMOOTHNESS)

    def correlation(distance: Tensor) -> Tensor:
        x = math.sqrt(2 * smoothness) * distance
        factor = {0.5: torch.ones_like(x), 1.5: 1 + x, 2.5: 1 + x + x**2 / 3}[smoothness]
        return factor * torch.exp(-x)

    return LagKernel(f"Matern {smoothness:g}", correlation, lengthscale, outputscale)
