"""Dual activations: what a pointwise non-linearity does to Gaussian covariances.

For ``x ~ N(0, q1)``, ``y ~ N(0, q2)`` with covariance ``k`` each activation ``f`` has
``E f(x) f(y)``, ``E f'(x) f'(y)`` (its derivative with respect to k), ``E x f'(x) y f'(y)`` (what a
learned scale of the channel contributes to the tangent kernel) and ``E f(x)``.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.kernels.stationary.piecewise import PiecewiseLinear, clamped
from dipkernels.kernels.stationary.quadrature import (
    Function,
    dual_by_quadrature,
    mean_by_quadrature,
)

Dual = Callable[[Tensor, Tensor, Tensor], Tensor]


@checked
@dataclass(frozen=True)
class Activation:
    """A pointwise non-linearity and its duals.

    Attributes
    ----------
    name : str
        With its parameter, if it has one.
    function : callable
        Acts on tensors of any shape.
    covariance, derivative, scale : callable
        ``(q1, q2, k)`` to ``E f(x) f(y)``, ``E f'(x) f'(y)`` and ``E x f'(x) y f'(y)``; the tensors
        broadcast. Closed forms to rounding; by quadrature to about 1e-12 relative to ``f``'s scale.
    mean : callable
        ``q`` to ``E f(x)``.
    """

    name: str
    function: Function
    covariance: Dual
    derivative: Dual
    scale: Dual
    mean: Callable[[Tensor], Tensor]


def relu(slope: float = 0.0) -> Activation:
    """Make ReLU, or leaky ReLU."""

    def angle(q1: Tensor, q2: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale = (q1 * q2).clamp(min=0).sqrt()
        # A field without variance has no angle; any will do, as its scale is zero.
        cosine = (k / torch.where(scale > 0, scale, torch.ones_like(scale))).clamp(-1, 1)
        return scale, cosine, torch.arccos(cosine)

    def covariance(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        scale, cosine, theta = angle(q1, q2, k)
        sine = (1 - cosine.square()).clamp(min=0).sqrt()
        rectified = scale / (2 * math.pi) * (sine + (math.pi - theta) * cosine)
        total: Tensor = slope * k + (1 - slope) ** 2 * rectified
        return total

    def derivative(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        theta = angle(q1, q2, k)[2]
        return slope + (1 - slope) ** 2 * (math.pi - theta) / (2 * math.pi)

    def mean(q: Tensor) -> Tensor:
        return (1 - slope) * (q / (2 * math.pi)).sqrt()

    function = functools.partial(torch.nn.functional.leaky_relu, negative_slope=slope)
    name = "relu" if slope == 0 else f"leaky-relu {slope:g}"
    # x f'(x) = f(x): it is homogeneous.
    return Activation(name, function, covariance, derivative, covariance, mean)


def erf() -> Activation:
    """Make the error function."""

    def covariance(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        return 2 / math.pi * torch.arcsin(2 * k / ((1 + 2 * q1) * (1 + 2 * q2)).sqrt())

    def derivative(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        return 4 / math.pi * ((1 + 2 * q1) * (1 + 2 * q2) - 4 * k.square()).rsqrt()

    def scaled(x: Tensor) -> Tensor:
        return 2 / math.sqrt(math.pi) * x * torch.exp(-x.square())

    return Activation("erf", torch.erf, covariance, derivative, _dual(scaled), torch.zeros_like)


def gelu() -> Activation:
    """Make GELU, ``x Phi(x)`` with the exact normal distribution."""

    def parts(q1: Tensor, q2: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        c2 = (1 + q1) * (1 + q2)
        a = 1 / (1 + q1) + 1 / (1 + q2) - 1
        return c2 - k.square(), torch.arcsin(k / c2.sqrt()), a, q1 * q2 + a * k.square()

    def covariance(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        d, s, _, numerator = parts(q1, q2, k)
        return k / 4 + (k * s + numerator / d.sqrt()) / (2 * math.pi)

    def derivative(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        d, s, a, numerator = parts(q1, q2, k)
        rest = k * (1 + 2 * a) / d.sqrt() + k * numerator / d**1.5
        total: Tensor = 0.25 + (s + rest) / (2 * math.pi)
        return total

    def scaled(x: Tensor) -> Tensor:
        density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
        cumulative: Tensor = torch.special.ndtr(x)
        return x * cumulative + x.square() * density

    def mean(q: Tensor) -> Tensor:
        return q / (2 * math.pi * (1 + q)).sqrt()

    return Activation("gelu", torch.nn.functional.gelu, covariance, derivative, _dual(scaled), mean)


def sine(frequency: float = 1.0) -> Activation:
    """Make ``sin(w x)``."""
    return _wave("sin", frequency, torch.sin, torch.cos, -1.0, torch.zeros_like)


def cosine(frequency: float = 1.0) -> Activation:
    """Make ``cos(w x)``."""
    return _wave(
        "cos",
        frequency,
        torch.cos,
        lambda x: -torch.sin(x),
        1.0,
        lambda q: torch.exp(-(frequency**2) * q / 2),
    )


def _wave(
    name: str, frequency: float, wave: Function, slope: Function, sign: float, mean: Function
) -> Activation:
    w2 = frequency**2

    def covariance(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        return _shrunk(w2, q1, q2, k, sign)

    def derivative(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        return w2 * _shrunk(w2, q1, q2, k, -sign)

    def function(x: Tensor) -> Tensor:
        return wave(frequency * x)

    def scaled(x: Tensor) -> Tensor:
        return frequency * x * slope(frequency * x)

    named = name if frequency == 1 else f"{name} {frequency:g}"
    return Activation(named, function, covariance, derivative, _dual(scaled), mean)


# exp(-w2 (q1 + q2)/2) times the cosh or sinh of w2 k, which by themselves may overflow.
def _shrunk(w2: float, q1: Tensor, q2: Tensor, k: Tensor, sign: float) -> Tensor:
    half = w2 * (q1 + q2) / 2
    return (torch.exp(w2 * k - half) + sign * torch.exp(-w2 * k - half)) / 2


def tanh() -> Activation:
    """Make the hyperbolic tangent."""

    def derivative(x: Tensor) -> Tensor:
        return 1 - torch.tanh(x).square()

    return integrated("tanh", torch.tanh, derivative, torch.zeros_like)


def swish() -> Activation:
    """Make swish (SiLU), ``x`` times its sigmoid."""

    def derivative(x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        return gate * (1 + x * (1 - gate))

    silu = torch.nn.functional.silu
    return integrated("swish", silu, derivative, functools.partial(mean_by_quadrature, silu))


def sigmoid() -> Activation:
    """Make the logistic function."""

    def derivative(x: Tensor) -> Tensor:
        gate = torch.sigmoid(x)
        return gate * (1 - gate)

    mean = functools.partial(mean_by_quadrature, torch.sigmoid)
    return integrated("sigmoid", torch.sigmoid, derivative, mean)


def softplus(beta: float = 1.0) -> Activation:
    """Make softplus, ``log(1 + exp(beta x)) / beta``."""
    if not beta > 0:
        raise InvalidInputError(f"softplus needs a positive beta, got {beta}")
    square = beta**2

    def unit(x: Tensor) -> Tensor:
        # torch's own is linear above a threshold, which leaves 2e-9
        return torch.logaddexp(x, torch.zeros_like(x))

    def covariance(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        return dual_by_quadrature(unit, square * q1, square * q2, square * k) / square

    def derivative(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        return dual_by_quadrature(torch.sigmoid, square * q1, square * q2, square * k)

    def scaled(q1: Tensor, q2: Tensor, k: Tensor) -> Tensor:
        slope = torch.nn.functional.silu  # x times the derivative
        return dual_by_quadrature(slope, square * q1, square * q2, square * k) / square

    def mean(q: Tensor) -> Tensor:
        return mean_by_quadrature(unit, square * q) / beta

    def function(x: Tensor) -> Tensor:
        return unit(beta * x) / beta

    return Activation(f"softplus {beta:g}", function, covariance, derivative, scaled, mean)


def tanh_gelu() -> Activation:
    """Make the form of GELU that is written with a hyperbolic tangent."""
    a, b = math.sqrt(2 / math.pi), 0.044715

    def function(x: Tensor) -> Tensor:
        return x / 2 * (1 + torch.tanh(a * (x + b * x**3)))

    def derivative(x: Tensor) -> Tensor:
        gate = torch.tanh(a * (x + b * x**3))
        return (1 + gate) / 2 + x / 2 * (1 - gate.square()) * a * (1 + 3 * b * x.square())

    mean = functools.partial(mean_by_quadrature, function)
    return integrated("gelu-tanh", function, derivative, mean)


def hardtanh(low: float = -1.0, high: float = 1.0) -> Activation:
    """Make the identity between two values, and constant outside."""
    if not low < high:
        raise InvalidInputError(f"hardtanh needs low < high, got {low} and {high}")
    return piecewise(f"hardtanh {low:g} {high:g}", clamped(low, high))


def piecewise(name: str, function: PiecewiseLinear) -> Activation:
    """Make an activation of a continuous piecewise linear function."""
    f = function
    return Activation(name, f, f.covariance, f.derivative, f.scale, f.mean)


def integrated(name: str, function: Function, derivative: Function, mean: Function) -> Activation:
    """Make an activation whose duals are integrals without a closed form."""
    scaled = _dual(lambda x: x * derivative(x))
    return Activation(name, function, _dual(function), _dual(derivative), scaled, mean)


def _dual(function: Function) -> Dual:
    return functools.partial(dual_by_quadrature, function)


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    "relu": relu,
    "leaky-relu": lambda slope=0.2: relu(slope),
    "erf": erf,
    "gelu": gelu,
    "gelu-tanh": tanh_gelu,
    "hardtanh": hardtanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "tanh": tanh,
    "swish": swish,
    "sin": sine,
    "cos": cosine,
}


@checked
def activation(name: str, **options: float) -> Activation:
    """Make an activation by name.

    Parameters
    ----------
    name : str
        One of ``relu``, ``leaky-relu`` (``slope``, 0.2 by default), ``erf``, ``gelu``,
        ``gelu-tanh``, ``hardtanh`` (``low``, ``high``, -1 and 1), ``sigmoid``, ``softplus``
        (``beta``, 1), ``tanh``, ``swish``, ``sin`` and ``cos`` (``frequency``, 1).
    **options : float
        As just said.

    Returns
    -------
    Activation
        With its duals.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    InvalidInputError
        If it has no such option.
    """
    if name not in ACTIVATIONS:
        raise UnknownNameError(
            f"no dual activation is known for '{name}'; known: {', '.join(ACTIVATIONS)}"
        )
    try:
        return ACTIVATIONS[name](**options)
    except TypeError as error:
        raise InvalidInputError(f"activation '{name}': {error}") from error
