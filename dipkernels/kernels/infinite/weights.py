"""Variances of a network's weights, measured on its own initialiser."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError
from dipkernels.priors.prior import ImagePrior, Parameters

VALUES = 1024  # of a weight, with which its variance is known to 5 %
LEAST_DRAWS, MOST_DRAWS = 4, 32
SCORE = 5.0  # standard errors within which a measured moment is one that is known


def initialisations(prior: ImagePrior, seed: int) -> list[Parameters]:
    """Draw the initialisations on which variances are measured."""
    sizes = [math.prod(shape) for shape in prior.parameter_shapes.values() if len(shape) > 1]
    wanted = math.ceil(VALUES / min(sizes, default=VALUES))
    count = min(max(wanted, LEAST_DRAWS), MOST_DRAWS)
    return [prior.init(derive(f"variance-{i}", seed)) for i in range(count)]


def initial_variance(
    name: str,
    draws: Sequence[Tensor],
    fan_in: int,
    fan_out: int,
    *,
    default_fan: int,
    bias: bool = False,
) -> float:
    """Find the variance of a parameter's entries, which must have mean zero."""
    values = torch.cat([draw.detach().flatten().double().cpu() for draw in draws])
    if not values.any():
        return 0.0
    variance, count = float(values.square().mean()), values.numel()
    if abs(float(values.mean())) > SCORE * math.sqrt(variance / count):
        raise InvalidInputError(
            f"parameter '{name}' starts with mean {float(values.mean()):.3g}, not 0: the theory is "
            "for random weights and biases of mean zero"
        )
    default = 1 / (3 * default_fan)
    # Xavier's comes close to the others where layers narrow, and so only after these.
    usual = [[default]] if bias else [[default, 2 / fan_in, 1 / fan_in, 0.02**2]]
    xavier = [] if bias else [[2 / (fan_in + fan_out)]]
    for schemes in [*usual, *xavier]:
        nearest = min(schemes, key=lambda value: abs(math.log(value / variance)))
        # The spread of squares is sqrt(2) of the variance for normal values, less for uniform.
        if abs(nearest - variance) <= SCORE * math.sqrt(2 / count) * nearest:
            return nearest
    return variance
