"""The Vision Transformer as an image generator: a fixed code in, an image out.

Attention is written out as ``softmax(q k^T / sqrt(d)) v``, because the fused kernels of
`torch.nn.functional.scaled_dot_product_attention` have no forward-mode derivative.
`dipkernels.networks.swin` is made of the same parts.
"""

import math

import torch
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.networks.patches import PatchNetwork
from dipkernels.networks.registry import Options, family, register
from dipkernels.networks.scaling import fitted_patch
from dipkernels.priors.codes import Spatial

__all__ = ["VisionTransformer"]

REPORT = "the transformer report"
PATCH = 32  # of the report, at 512 pixels a side


class SelfAttention(nn.Module):
    """Multi-head attention of sets of tokens, ``(sets, tokens, width)``, to themselves."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)

    def forward(self, tokens: Tensor, bias: Tensor | None = None) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind()  # each (sets, heads, tokens, channels of a head)
        # Dividing the queries touches fewer numbers than dividing the logits.
        logits = (query / math.sqrt(query.shape[-1])) @ key.transpose(-2, -1)
        if bias is not None:
            logits = logits + bias
        mixed: Tensor = logits.softmax(dim=-1) @ value
        output: Tensor = self.projection(mixed.transpose(1, 2).flatten(2))
        return output


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a two-layer perceptron for each token."""

    def __init__(self, attention: nn.Module, width: int, mlp_width: int, epsilon: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=epsilon)
        self.attention = attention
        self.norm2 = nn.LayerNorm(width, eps=epsilon)
        self.expand = nn.Linear(width, mlp_width)
        self.contract = nn.Linear(mlp_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        hidden = nn.functional.gelu(self.expand(self.norm2(tokens)))
        output: Tensor = tokens + self.contract(hidden)
        return output


def _initialise(module: nn.Module) -> None:
    if isinstance(module, SelfAttention):
        nn.init.xavier_uniform_(module.qkv.weight)
        nn.init.zeros_(module.qkv.bias)
        nn.init.zeros_(module.projection.bias)  # its weight keeps nn.Linear's default
    elif isinstance(module, Block):
        for linear in (module.expand, module.contract):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)
    elif isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@checked
class VisionTransformer(PatchNetwork):
    """Vision Transformer that decodes its tokens to the patches of an image.

    The encoder is that of Dosovitskiy et al. (2021) without a class head, with the initialisation
    of torchvision 0.12; one linear map decodes each token to its patch. A pure function of its
    parameters, for any size of at least one patch: see `dipkernels.networks.patches`. Time and
    memory grow with the square of the number of patches.

    Parameters
    ----------
    image_size : tuple of int
        Height and width of code and image, in pixels; sets the number of positional embeddings.
    channels, code_channels : int
        Of the image and of the code.
    patch_size : int
        Side of a patch, in pixels.
    width : int
        Channels of a token.
    depth : int
        Number of transformer blocks.
    heads : int
        Number of attention heads; divides `width`.
    mlp_width : int
        Hidden channels of a block's two-layer perceptron.

    Raises
    ------
    InvalidInputError
        If a size is not positive, `heads` does not divide `width`, or the image is smaller than
        one patch.

    Notes
    -----
    Initialisation: patch convolution truncated normal with variance 1 / fan-in, bias zero; class
    token zero; positional embedding, class token included, N(0, 0.02^2); query, key and value
    projection Xavier-uniform as one matrix; attention biases zero; perceptron Xavier-uniform, its
    biases N(0, 1e-12); attention output and decoder as `torch.nn.Linear`. LayerNorm: 1e-6.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021); settings:
    Balasubramanian's transformer report, whose 2,541,352 parameters at 512 x 512 count a
    1000-class head that nothing reads: without it they are 2,348,352.

    Examples
    --------
    >>> net = VisionTransformer((40, 72), width=16, depth=1, heads=2, mlp_width=16)
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
        heads: int = 8,
        mlp_width: int = 192,
    ) -> None:
        others = {"depth": depth, "mlp_width": mlp_width}
        super().__init__(image_size, channels, code_channels, patch_size, [width], [heads], others)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 1 + math.prod(self.grid), width))
        attentions = (SelfAttention(width, heads) for _ in range(depth))
        self.blocks = nn.Sequential(*(Block(each, width, mlp_width, 1e-6) for each in attentions))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.decoder = nn.Linear(width, channels * patch_size**2)
        self.apply(_initialise)

    def _tokens(self, patches: Tensor) -> Tensor:
        tokens = torch.cat([self.class_token, patches.flatten(2).transpose(1, 2)], dim=1)
        encoded: Tensor = self.norm(self.blocks(tokens + self.position))
        return encoded[:, 1:]  # without the class token


@register("vit", learning_rate=1e-4, iterations=5000, source=REPORT)
@family(VisionTransformer)
def _vit(size: Spatial, options: Options, *, patch_size: int | None = None) -> Spatial:
    """Vision transformer with a linear patch head."""
    options["patch_size"] = fitted_patch("vit", size, PATCH, patch_size)
    return size
