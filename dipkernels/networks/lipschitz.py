"""Convolutions whose spectral norm is bounded, to hold a network's high frequencies back."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import Style, padding_mode, same_padding


def bounded_weight(weight: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    """Divide a weight by ``max(1, s / bound)``, s being its largest singular value."""
    # In double precision, which neither TF32 nor automatic mixed precision would shorten.
    matrix = weight.detach().flatten(1).double()
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    largest = torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt()
    bounded: Tensor = weight / (largest / bound).clamp(min=1).to(weight.dtype)
    return bounded


class BoundedConv1d(nn.Conv1d):
    """`torch.nn.Conv1d` with `bounded_weight`."""

    bound: float

    def forward(
        self, input: Float[Tensor, "batch in_channels length"]
    ) -> Float[Tensor, "batch out_channels new_length"]:
        """Convolve."""
        weight = bounded_weight(self.weight, self.bound)
        filtered: Tensor = self._conv_forward(input, weight, self.bias)
        return filtered


class BoundedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with `bounded_weight`."""

    bound: float

    def forward(
        self, input: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels new_height new_width"]:
        """Convolve."""
        weight = bounded_weight(self.weight, self.bound)
        filtered: Tensor = self._conv_forward(input, weight, self.bias)
        return filtered


def bounded_conv(
    in_channels: int, out_channels: int, kernel_size: int, bound: float | None, style: Style
) -> nn.Conv1d | nn.Conv2d:
    """Make a convolution with a bound on its spectral norm, or without one."""
    if bound is not None and not bound > 0:
        raise InvalidInputError(f"lipschitz must be positive, or None for no bound; got {bound}")
    if bound is None:
        made = style.conv(in_channels, out_channels, kernel_size)
    else:
        make = BoundedConv1d if style.dims == 1 else BoundedConv2d
        made = make(
            in_channels,
            out_channels,
            kernel_size,
            bias=style.bias,
            padding=same_padding(kernel_size),
            padding_mode=padding_mode(kernel_size, style.padding),
        )
        made.bound = bound
    nn.init.kaiming_uniform_(made.weight, nonlinearity="relu")
    return made
