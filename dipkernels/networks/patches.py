"""From patches to tokens and back: what the families made of tokens share."""

import math
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError


@checked
class PatchNetwork(nn.Module):
    """Embeds the patches of a code as tokens, and decodes its last tokens to those of an image.

    A pure function of its parameters, without dropout. It has no output non-linearity: append the
    sigmoid. Any height and width of at least one patch will do: the code is continued to whole
    patches of the last tokens by repeating its last row and column, and the image is cropped.
    Nothing is stretched.
    """

    decoder: nn.Module

    def __init__(
        self,
        image_size: Sequence[int],
        channels: int,
        code_channels: int,
        patch_size: int,
        widths: Sequence[int],
        heads: Sequence[int],
        others: dict[str, int],
    ) -> None:
        super().__init__()
        positive = {"channels": channels, "code_channels": code_channels, **others}
        _check_sizes(image_size, patch_size, widths, heads, positive)
        self.code_shape = (1, code_channels, *image_size)
        self.patch_size = patch_size
        self.stride = patch_size * 2 ** (len(widths) - 1)  # pixels of a last token: stages halve
        self.grid = tuple(math.ceil(side / self.stride) for side in image_size)
        self.embed = nn.Conv2d(code_channels, widths[0], patch_size, stride=patch_size)

    def forward(
        self, code: Float[Tensor, "1 code_channels height width"]
    ) -> Float[Tensor, "1 channels height width"]:
        """Make the image.

        Parameters
        ----------
        code : Tensor, shape (1, code_channels, height, width)
            Any real values.

        Returns
        -------
        Tensor, shape (1, channels, height, width)
            Any real values.

        Raises
        ------
        InvalidInputError
            If the code's shape is not ``(1, code_channels, *image_size)``.
        """
        if tuple(code.shape) != self.code_shape:
            raise InvalidInputError(
                f"the code has shape {tuple(code.shape)}; this network expects {self.code_shape}: "
                "pass such a code, or build the network with the code's image_size and "
                "code_channels"
            )
        height, width = self.code_shape[2:]
        bottom, right = -height % self.stride, -width % self.stride
        if bottom or right:
            code = nn.functional.pad(code, (0, right, 0, bottom), mode="replicate")
        patches = self.decoder(self._tokens(self.embed(code))).flatten(1, -2)
        grid = patches.transpose(1, 2).unflatten(2, self.grid)
        return nn.functional.pixel_shuffle(grid, self.stride)[..., :height, :width]

    def _tokens(self, patches: Tensor) -> Tensor:
        """Turn embedded patches, ``(1, width, rows, columns)``, into the last tokens."""
        raise NotImplementedError


def _check_sizes(
    image_size: Sequence[int],
    patch_size: int,
    widths: Sequence[int],
    heads: Sequence[int],
    others: dict[str, int],
) -> None:
    for name, size in {"patch_size": patch_size, **others}.items():
        if size < 1:
            raise InvalidInputError(f"{name} is {size}; expected at least 1: raise it")
    if len(image_size) != 2 or min(image_size) < patch_size:
        raise InvalidInputError(
            f"image_size is {image_size}; expected (height, width), each at least patch_size = "
            f"{patch_size}: take a larger image or smaller patches"
        )
    for width, count in zip(widths, heads, strict=True):
        if width < 1 or count < 1 or width % count:
            raise InvalidInputError(
                f"tokens of width {width} have {count} heads; expected positive numbers, the width "
                "a multiple of the heads: change one of them"
            )


def draw_normal(module: nn.Module, deviation: float | None = None) -> None:
    """Draw the weights of a linear map or convolution; by default of variance 1 / fan-in."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        fan_in = module.weight[0].numel()
        nn.init.normal_(module.weight, std=fan_in**-0.5 if deviation is None else deviation)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
