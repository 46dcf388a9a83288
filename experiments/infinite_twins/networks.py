"""The same networks twice: infinitely wide by neural-tangents, and of finite width in torch.

Weights are standard normal and scaled where they are used, as neural-tangents has them, so that
the finite networks' kernels go to the infinite ones as the width grows.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

GAIN, SHIFT = 1.4, 0.2  # standard deviations of weights, before the scale, and of biases


class Convolution(nn.Module):
    """``GAIN / sqrt(fan_in) * conv(x, weight) + SHIFT * bias``, padded with zeros."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.randn(outputs))
        self.scale, self.padding = GAIN / kernel_size / math.sqrt(inputs), kernel_size // 2

    def forward(self, x: Tensor) -> Tensor:
        """Scale the weights, and convolve."""
        return functional.conv2d(
            x, self.scale * self.weight, SHIFT * self.bias, padding=self.padding
        )


class Attention(nn.Module):
    """Self-attention over all pixels whose queries are its keys, scores divided by their width.

    With as many heads as channels; with scores over the root of the width there is no closed form.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.keys = nn.Parameter(torch.randn(width, width, width))  # head, input, output
        self.values = nn.Parameter(torch.randn(width, width, width))
        self.out = nn.Parameter(torch.randn(width * width, width))
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """Mix all pixels."""
        tokens = x.flatten(2).transpose(1, 2)  # (1, pixels, width)
        keys, values = tokens @ self.keys, tokens @ self.values  # (heads, pixels, width)
        scores = keys @ keys.transpose(1, 2) / self.width**2
        heads = torch.softmax(scores, dim=-1) @ values
        mixed = heads.permute(1, 2, 0).flatten(1) @ self.out / self.width**1.5
        return mixed.T.reshape_as(x)


def finite(name: str, channels: int, width: int) -> nn.Module:
    """Build a network in torch; its image has one channel."""
    first = 1 if name == "attention" else 3
    parts: list[nn.Module] = [Convolution(channels, width, first), nn.ReLU()]
    if name != "convolutions":
        parts += [Attention(width), nn.ReLU()]
    if name != "attention":
        parts += [Convolution(width, width, 3), nn.ReLU()]
    return nn.Sequential(*parts, Convolution(width, 1, 1))


def infinite(stax: Any, name: str) -> Any:
    """Give the `kernel_fn` of the same network at infinite width."""

    def convolution(kernel_size: int) -> Any:
        return stax.Conv(1, (kernel_size, kernel_size), padding="SAME", W_std=GAIN, b_std=SHIFT)

    attention = stax.GlobalSelfAttention(
        1, n_chan_key=1, n_chan_val=1, n_heads=1, linear_scaling=True,
        W_key_std=1.0, W_query_std=1.0, W_value_std=1.0, W_out_std=1.0,
    )  # fmt: skip
    parts = [convolution(1 if name == "attention" else 3), stax.Relu()]
    if name != "convolutions":
        parts += [attention, stax.Relu()]
    if name != "attention":
        parts += [convolution(3), stax.Relu()]
    return stax.serial(*parts, convolution(1))[2]
