"""What a measurement is judged by and isn't fitted: entries held out, another measurement."""

import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError


def draw_held_out(counted: Tensor, fraction: float, seed: int) -> Tensor:
    """Draw a fraction of the pixels that count, in all channels."""
    pixels = counted.any(dim=0) if counted.dim() > 1 else counted
    positions = pixels.flatten().nonzero()[:, 0]
    number = round(fraction * len(positions))
    if not 0 < number < len(positions):
        raise InvalidInputError(
            f"a fraction of {fraction} of {len(positions)} measured pixels holds out {number}: "
            "choose one that leaves some on both sides"
        )
    order = torch.randperm(len(positions), generator=generator("held-out", seed))
    drawn = torch.zeros(pixels.numel(), dtype=torch.bool)
    drawn[positions[order[:number]]] = True
    return counted & drawn.reshape(pixels.shape)


def check_second(second: Tensor, measurement: Tensor, taken: Tensor) -> None:
    """Check that it's another measurement of the same kind, where one was taken."""
    if second.shape != measurement.shape:
        raise InvalidInputError(
            f"the second measurement has shape {tuple(second.shape)}, the first "
            f"{tuple(measurement.shape)}: both must be taken in the same way"
        )
    if not bool(second[taken].isfinite().all()):
        raise InvalidInputError("the second measurement isn't finite everywhere: mask or fix it")
    if bool((second == measurement)[taken].all()):
        raise InvalidInputError(
            "the second measurement equals the first: its noise must be its own"
        )
