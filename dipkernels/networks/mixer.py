"""The MLP-Mixer as an image generator: a fixed code in, an image out.

In place of attention, a perceptron mixes the tokens, with the same weights for each channel.
Patches and head are those of `dipkernels.networks.vit`.
"""

import math

from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.networks.patches import PatchNetwork, draw_normal
from dipkernels.networks.registry import Options, family, register
from dipkernels.networks.scaling import fitted_patch
from dipkernels.networks.vit import PATCH
from dipkernels.priors.codes import Spatial

__all__ = ["MLPMixer"]


class _Perceptron(nn.Sequential):
    """Two layers with GELU between, on the last axis: ``(..., width)`` to the same."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class _Block(nn.Module):
    """Pre-norm mixer block: a perceptron over the tokens, then one over the channels."""

    def __init__(self, tokens: int, width: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.token_mixing = _Perceptron(tokens, token_hidden)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.channel_mixing = _Perceptron(width, channel_hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = self.token_mixing(self.norm1(tokens).transpose(1, 2))
        tokens = tokens + mixed.transpose(1, 2)
        output: Tensor = tokens + self.channel_mixing(self.norm2(tokens))
        return output


@checked
class MLPMixer(PatchNetwork):
    """MLP-Mixer that decodes its tokens to the patches of an image.

    It has no positional embedding: the weights of the token mixing tell the places apart. A pure
    function of its parameters, for any size of at least one patch: see
    `dipkernels.networks.patches`. Time and memory grow with the number of patches, for a given
    `token_mlp_width`.

    Parameters
    ----------
    image_size : tuple of int
        Height and width of code and image, in pixels; sets the number of tokens that are mixed.
    channels, code_channels : int
        Of the image and of the code.
    patch_size : int
        Side of a patch, in pixels.
    width : int
        Channels of a token.
    depth : int
        Number of blocks.
    token_mlp_width, channel_mlp_width : int
        Hidden units of the perceptron over the tokens (the source's D_S) and over the channels
        (D_C).

    Raises
    ------
    InvalidInputError
        If a size is not positive, or the image is smaller than one patch.

    Notes
    -----
    Initialisation: weights N(0, 1 / fan-in), biases zero: the defaults of Flax, in which the
    source's code is written, but for their truncation. The source's head starts at zero; ours
    starts as the other weights, since behind a head of zeros no other weight has a gradient.
    GELU is the exact one. LayerNorm: 1e-6.

    Source: Tolstikhin et al., "MLP-Mixer: An all-MLP Architecture for Vision" (NeurIPS 2021). As
    an image generator with these sizes it is ours: patch, width and depth are those of the
    transformer report's ViT, and both perceptrons have the width of its perceptrons.

    Examples
    --------
    >>> import torch
    >>> net = MLPMixer((40, 72), width=16, depth=1, token_mlp_width=8, channel_mlp_width=16)
    >>> net(torch.rand(1, 3, 40, 72)).shape
    torch.Size([1, 3, 40, 72])
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int = 3,
        code_channels: int = 3,
        patch_size: int = PATCH,
        width: int = 192,
        depth: Layers = 5,
        token_mlp_width: int = 192,
        channel_mlp_width: int = 192,
    ) -> None:
        others = {"width": width, "depth": depth, "token_mlp_width": token_mlp_width}
        others["channel_mlp_width"] = channel_mlp_width
        super().__init__(image_size, channels, code_channels, patch_size, [width], [1], others)
        hidden = token_mlp_width, channel_mlp_width
        self.blocks = nn.Sequential(
            *(_Block(math.prod(self.grid), width, *hidden) for _ in range(depth))
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder = nn.Linear(width, channels * patch_size**2)
        self.apply(draw_normal)

    def _tokens(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.blocks(patches.flatten(2).transpose(1, 2)))
        return tokens


@register(
    "mixer",
    learning_rate=1e-4,
    iterations=5000,
    source="ours, after Tolstikhin et al. 2021 and the transformer report",
)
@family(MLPMixer)
def _mixer(size: Spatial, options: Options, *, patch_size: int | None = None) -> Spatial:
    """MLP-Mixer (perceptrons over tokens and over channels) with a linear patch head."""
    options["patch_size"] = fitted_patch("mixer", size, PATCH, patch_size)
    return size
