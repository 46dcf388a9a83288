"""Stand-alone self-attention: the deep image prior's hourglass with attention for convolution.

Every k x k convolution of the SkipNet becomes a local attention over k x k neighbours
(Ramachandran et al. 2019); all other layers are 1 x 1 convolutions, batch normalisations,
activations, average pooling and bilinear upsampling. So it tells what the *kernels* of a
convolutional network contribute to its prior, beside locality and scales, which both have.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import Generator, require_sizes
from dipkernels.networks.registry import Options, family, register
from dipkernels.networks.scaling import require_plane, require_side, scaled_halvings
from dipkernels.networks.skip import Scale
from dipkernels.priors.codes import Spatial

__all__ = ["SelfAttentionNet"]


class LocalSelfAttention(nn.Module):
    """Multi-head attention of each pixel to the ``kernel_size**2`` pixels around it.

    For pixel p, the output of a head is ``sum_n softmax_n(q_p . (k_n + r_(n - p))) v_n`` over the
    neighbours n that lie in the image. Query, key and value are linear maps of a pixel's channels,
    without bias; the logits are not divided by the root of the head's channels, as in the source.
    The embedding r of an offset is the concatenation of one of its row and one of its column,
    each with half of the head's channels.

    Time grows with ``kernel_size**2 * width`` per pixel, memory with
    ``width + kernel_size**2 * heads``: the map is shifted to each neighbour, never unfolded.

    Initialisation: linear maps as `torch.nn.Conv2d`; embeddings N(0, 1 / channels of a head), as
    Bello et al. (2019); the source doesn't say.

    Source: Ramachandran et al., "Stand-Alone Self-Attention in Vision Models" (NeurIPS 2019),
    equation 3. There a head reads its own share of the input's channels; here all of them, as in
    a transformer, so that any number of channels will do.
    """

    def __init__(self, in_channels: int, width: int, kernel_size: int, heads: int) -> None:
        super().__init__()
        require_sizes(1, in_channels=in_channels, width=width, heads=heads)
        require_sizes(1, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise InvalidInputError(
                f"kernel_size is {kernel_size}; expected an odd number, which is symmetric "
                f"about a pixel: take {kernel_size - 1} or {kernel_size + 1}"
            )
        if width % (2 * heads):
            raise InvalidInputError(
                f"width {width} is no multiple of 2 * heads = {2 * heads}; each head halves its "
                "channels between rows and columns: change one of them"
            )
        self.kernel_size = kernel_size
        self.heads = heads
        half = width // (2 * heads)
        deviation = (2 * half) ** -0.5
        self.qkv = nn.Conv2d(in_channels, 3 * width, 1, bias=False)
        self.row_embedding = nn.Parameter(deviation * torch.randn(heads, half, kernel_size))
        self.column_embedding = nn.Parameter(deviation * torch.randn(heads, half, kernel_size))

    def forward(
        self, x: Float[Tensor, "batch in_channels height width"]
    ) -> Float[Tensor, "batch out_channels height width"]:
        """Attend."""
        # Each (batch, heads, channels of a head, height, width).
        query, key, value = self.qkv(x).unflatten(1, (3, self.heads, -1)).unbind(1)
        content = torch.stack([(query * near).sum(2) for near in self._neighbours(key)], dim=2)
        weights = (content + self._position_logits(query)).softmax(2)  # over the neighbours
        mixed = torch.zeros_like(query)
        for weight, near in zip(weights.unbind(2), self._neighbours(value), strict=True):
            mixed = mixed + weight.unsqueeze(2) * near
        return mixed.flatten(1, 2)

    # The map, shifted to each neighbour in turn, row by row: zero outside of the image. Views of
    # one padded map: unfolding it would be kernel_size**2 copies, and `Tensor.unfold` has no
    # batching rule for its backward pass.
    def _neighbours(self, x: Tensor) -> Iterator[Tensor]:
        height, width = x.shape[3:]
        padded = nn.functional.pad(x, (self.kernel_size // 2,) * 4)
        for i in range(self.kernel_size):
            rows = padded[..., i : i + height, :]
            for j in range(self.kernel_size):
                yield rows[..., j : j + width]

    # What the embeddings add to the logits, and -inf for neighbours outside of the image:
    # (batch, heads, kernel_size**2, height, width).
    def _position_logits(self, query: Tensor) -> Tensor:
        for_rows, for_columns = query.chunk(2, dim=2)
        rows = torch.einsum("bnchw,nck->bnkhw", for_rows, self.row_embedding)
        columns = torch.einsum("bnchw,nck->bnkhw", for_columns, self.column_embedding)
        height, width = query.shape[3:]
        rows = rows.masked_fill(self._outside(height, query.device)[:, :, None], float("-inf"))
        columns = columns.masked_fill(self._outside(width, query.device)[:, None], float("-inf"))
        return (rows.unsqueeze(3) + columns.unsqueeze(2)).flatten(2, 3)

    # Whether the neighbour at each offset from each pixel of an axis is beyond its ends:
    # (kernel, length).
    def _outside(self, length: int, device: torch.device) -> Tensor:
        offset = torch.arange(self.kernel_size, device=device) - self.kernel_size // 2
        neighbour = offset[:, None] + torch.arange(length, device=device)
        return (neighbour < 0) | (neighbour >= length)


# A layer as the deep image prior has them.
def _normalised(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, nn.BatchNorm2d(channels), nn.LeakyReLU(0.2))


@checked
class SelfAttentionNet(Generator):
    """Hourglass of local self-attention, with narrow skip connections.

    It is `dipkernels.networks.skip.SkipNet` with attention in place of its 3 x 3 convolutions. As
    in the attention's source, what had stride 2 is followed by 2 x 2 average pooling. BatchNorm
    and LeakyReLU(0.2) follow each attention and each 1 x 1 convolution, but the last.

    Any height and width will do whose coarsest grid has at least 2 pixels. Where a size is odd, the
    pooling averages what there is of its last row and column, and the upsampled map is cropped.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code.
    width : int
        Channels of every attention; a multiple of ``2 * heads``.
    scales : int
        Number of halvings.
    skip_channels : int
        Channels of the skip branches; 0 leaves them out.
    kernel_size : int
        Side of the neighbourhoods, in pixels of their scale: odd.
    heads : int
        Number of heads.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small, the kernel is even, or `width` is no multiple of
        ``2 * heads``.

    Notes
    -----
    Sources: Ramachandran et al. (2019); Ulyanov et al. (2018), whose scales, widths and
    neighbourhoods are the defaults, so that nothing differs from the SkipNet but what is in place
    of its kernels. The attention's source prefers neighbourhoods of 7 x 7; a step with those takes
    three to four times as long.

    Examples
    --------
    >>> net = SelfAttentionNet(width=8, scales=2, kernel_size=3, heads=2)
    >>> net(torch.rand(1, 32, 19, 30)).shape
    torch.Size([1, 3, 19, 30])
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 32,
        *,
        width: int = 128,
        scales: int = 5,
        skip_channels: int = 4,
        kernel_size: int = 3,
        heads: int = 8,
    ) -> None:
        require_sizes(1, channels=channels, code_channels=code_channels, scales=scales)
        require_sizes(0, skip_channels=skip_channels)

        def attend(channels: int) -> nn.Sequential:
            return _normalised(LocalSelfAttention(channels, width, kernel_size, heads), width)

        def mix(channels: int, out_channels: int) -> nn.Sequential:
            return _normalised(nn.Conv2d(channels, out_channels, 1), out_channels)

        body: nn.Module = nn.Identity()
        for scale in reversed(range(scales)):
            before, merged = width if scale else code_channels, width + skip_channels
            body = Scale(
                mix(before, skip_channels) if skip_channels else None,
                nn.Sequential(attend(before), nn.AvgPool2d(2, ceil_mode=True), attend(width)),
                body,
                nn.Upsample(scale_factor=2, mode="bilinear"),
                nn.Sequential(nn.BatchNorm2d(merged), attend(merged), mix(width, width)),
            )
        super().__init__(body=body, head=nn.Conv2d(width, channels, 1))


@register(
    "self-attention",
    learning_rate=0.01,
    iterations=3000,
    source="ours, after Ramachandran et al. 2019 and Ulyanov et al. 2017",
)
@family(SelfAttentionNet)
def _self_attention(size: Spatial, options: Options) -> Spatial:
    """Deep image prior's U-net with local self-attention in place of 3x3 convolutions."""
    require_plane("self-attention", size)
    require_side("self-attention", size, 3)  # with less there is nothing to halve
    options["scales"] = scaled_halvings(options["scales"], size)
    return size
