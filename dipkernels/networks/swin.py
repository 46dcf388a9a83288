"""The Swin Transformer as an image generator: a fixed code in, an image out.

Token grids ``(1, rows, columns, token width)`` have in every stage half as many rows and columns
and are twice as wide. The encoder is that of Liu et al. (2021): attention within windows, which
every second block shifts by half a window. The decoder is one linear map of each token and a pixel
shuffle. Together they are Hugging Face's ``SwinForMaskedImageModeling``.
"""

from functools import partial

import torch
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.networks.patches import PatchNetwork, draw_normal
from dipkernels.networks.registry import Options, family, register
from dipkernels.networks.scaling import fitted_patch
from dipkernels.networks.vit import REPORT, Block, SelfAttention
from dipkernels.priors.codes import Spatial

__all__ = ["SwinTransformer"]

PATCH = 4  # of the report, at 512 pixels a side
# Added to the logits of two tokens that share a window only because the grid was rolled.
MASKED_LOGIT = -100.0


# (1, rows, columns, channels) to (windows, window**2, channels).
def _split_windows(tokens: Tensor, window: int) -> Tensor:
    _, rows, columns, channels = tokens.shape
    tokens = tokens.reshape(rows // window, window, columns // window, window, channels)
    return tokens.transpose(1, 2).reshape(-1, window**2, channels)


# The inverse.
def _join_windows(windows: Tensor, window: int, rows: int, columns: int) -> Tensor:
    tokens = windows.reshape(rows // window, columns // window, window, window, -1)
    return tokens.transpose(1, 2).reshape(1, rows, columns, -1)


# For each two tokens of a window, the row of the bias table: (window**2, window**2).
def _relative_index(window: int) -> Tensor:
    side = torch.arange(window)
    row, column = side.repeat_interleave(window), side.repeat(window)
    row_lag = row[:, None] - row + window - 1
    column_lag = column[:, None] - column + window - 1
    return (2 * window - 1) * row_lag + column_lag


# Labels of the tokens of a rolled grid, equal within a window where the tokens were neighbours
# before: (windows, window**2). In an axis' last window, the last `shift` came from the front.
def _regions(rows: int, columns: int, window: int, shift: int) -> Tensor:
    row, column = torch.arange(rows), torch.arange(columns)
    labels = 2 * (row >= rows - shift).long()[:, None] + (column >= columns - shift).long()
    return _split_windows(labels[None, :, :, None], window)[..., 0]


class _WindowAttention(nn.Module):
    """Attention within windows, with a learned bias for each relative position.

    Maps ``(1, rows, columns, channels)`` to the same. As in the source, a grid that is no multiple
    of the window is continued by zeros, which are attended to; and a window that is not smaller
    than the grid shrinks to its shorter side (its table too), and is not shifted.
    """

    bias_index: Tensor
    regions: Tensor | None

    def __init__(
        self, grid: tuple[int, int], width: int, heads: int, window: int, shifted: bool
    ) -> None:
        super().__init__()
        self.shift = window // 2 if shifted and min(grid) > window else 0
        self.window = min(window, *grid)
        self.padded = (grid[0] + -grid[0] % self.window, grid[1] + -grid[1] % self.window)
        self.attention = SelfAttention(width, heads)
        self.bias_table = nn.Parameter(torch.zeros((2 * self.window - 1) ** 2, heads))
        # Constants: they move with the module, but are no part of its state.
        regions = _regions(*self.padded, self.window, self.shift) if self.shift else None
        self.register_buffer("bias_index", _relative_index(self.window), persistent=False)
        self.register_buffer("regions", regions, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        rows, columns = tokens.shape[1:3]
        padding = (0, 0, 0, self.padded[1] - columns, 0, self.padded[0] - rows)
        tokens = nn.functional.pad(tokens, padding).roll((-self.shift, -self.shift), dims=(1, 2))
        windows = self.attention(_split_windows(tokens, self.window), self._logit_bias())
        tokens = _join_windows(windows, self.window, *self.padded)
        return tokens.roll((self.shift, self.shift), dims=(1, 2))[:, :rows, :columns]

    # (1 or windows, heads, window**2, window**2)
    def _logit_bias(self) -> Tensor:
        bias = self.bias_table[self.bias_index].permute(2, 0, 1)[None]
        if self.regions is None:
            return bias
        apart = self.regions[:, None, :, None] != self.regions[:, None, None, :]
        return bias + MASKED_LOGIT * apart.to(bias.dtype)


class _PatchMerging(nn.Module):
    """Join 2 x 2 tokens, normalise, and project their 4 c channels to 2 c."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * width)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        corners = [tokens[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged: Tensor = self.reduction(self.norm(torch.cat(corners, dim=-1)))
        return merged


@checked
class SwinTransformer(PatchNetwork):
    """Swin Transformer that decodes its tokens to an image.

    A pure function of its parameters, for any size of at least one patch: see
    `dipkernels.networks.patches`. It has no drop-path (in the published runs drop-path 0.1 was
    active, so that their network was random while it was fitted). Time and memory grow with the
    number of pixels.

    Parameters
    ----------
    image_size : tuple of int
        Height and width of code and image, in pixels; sets the windows.
    channels, code_channels : int
        Of the image and of the code.
    patch_size : int
        Side of a patch, the first stage's token, in pixels.
    width : int
        Channels of a token in the first stage; they double from stage to stage.
    depths : tuple of int
        Number of blocks in each stage.
    heads : tuple of int
        Number of attention heads in each stage; divides that stage's channels.
    window : int
        Side of an attention window, in tokens. In a stage whose grid is not larger than that in
        both directions, the window is the grid's shorter side, and is not shifted.
    mlp_ratio : float
        Hidden channels of a block's two-layer perceptron, in units of its token's channels.

    Raises
    ------
    InvalidInputError
        If a size is not positive, `depths` and `heads` differ in length, heads do not divide
        their stage's channels, or the image is smaller than one patch.

    Notes
    -----
    Initialisation: weights of linear maps and convolutions N(0, 0.02^2); biases and tables of
    relative position biases zero. LayerNorm: 1e-5.

    Source: Liu et al., "Swin Transformer" (ICCV 2021); settings: Balasubramanian's transformer
    report, whose 62,792,112 parameters at 512 x 512 count a mask token of 192 that nothing reads:
    without it they are 62,791,920.

    Examples
    --------
    >>> net = SwinTransformer((19, 30), width=8, depths=(2, 2), heads=(2, 2), window=3)
    >>> net(torch.rand(1, 3, 19, 30)).shape
    torch.Size([1, 3, 19, 30])
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int = 3,
        code_channels: int = 3,
        patch_size: int = PATCH,
        width: int = 192,
        depths: tuple[int, ...] = (2, 2, 6, 2),
        heads: tuple[int, ...] = (4, 4, 4, 4),
        window: int = 7,
        mlp_ratio: float = 1.0,
    ) -> None:
        if not depths or len(depths) != len(heads) or min(depths) < 1:
            raise InvalidInputError(
                f"depths is {depths} and heads is {heads}; expected a positive number of blocks "
                "and a number of heads for each stage: give both the same length"
            )
        widths = [width * 2**stage for stage in range(len(depths))]
        mlp_widths = [int(mlp_ratio * stage_width) for stage_width in widths]
        others = {"window": window, f"the perceptron's width mlp_ratio * {width}": mlp_widths[0]}
        super().__init__(image_size, channels, code_channels, patch_size, widths, heads, others)
        rows, columns = self.grid
        self.embed_norm = nn.LayerNorm(width)
        self.stages = nn.Sequential()
        for stage, depth in enumerate(depths):
            factor = widths[-1] // widths[stage]
            grid, settings = (rows * factor, columns * factor), (widths[stage], heads[stage])
            layers: list[nn.Module] = [_PatchMerging(widths[stage - 1])] if stage else []
            for block in range(depth):
                attention = _WindowAttention(grid, *settings, window, shifted=block % 2 == 1)
                layers.append(Block(attention, widths[stage], mlp_widths[stage], 1e-5))
            self.stages.append(nn.Sequential(*layers))
        self.norm = nn.LayerNorm(widths[-1])
        # The source's 1 x 1 convolution, which is slow on so small a grid.
        self.decoder = nn.Linear(widths[-1], channels * self.stride**2)
        self.apply(partial(draw_normal, deviation=0.02))

    def _tokens(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.norm(self.stages(self.embed_norm(patches.permute(0, 2, 3, 1))))
        return tokens


@register("swin", learning_rate=1e-4, iterations=5000, source=REPORT)
@family(SwinTransformer)
def _swin(size: Spatial, options: Options, *, patch_size: int | None = None) -> Spatial:
    """Swin transformer (shifted windows, merged patches) with a linear head and pixel shuffle."""
    options["patch_size"] = fitted_patch("swin", size, PATCH, patch_size)
    return size
