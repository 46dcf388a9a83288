"""Convolutions before or after a network, to tell what they contribute to its prior.

The transformer report places one or three 3 x 3 convolutions before its Vision Transformer (on the
code) or after it (on the image), with as many channels as these have.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import Generator, require_sizes
from dipkernels.networks.registry import Options, family, register
from dipkernels.networks.scaling import fitted_patch
from dipkernels.networks.vit import PATCH, REPORT, VisionTransformer
from dipkernels.priors.codes import Spatial

__all__ = ["ConvolutionStack"]

REFLECTED = 2  # pixels that reflection padding needs along an axis


@checked
class ConvolutionStack(nn.Module):
    """3 x 3 convolutions with ReLU between (not after), which keep the image's shape.

    Each has a bias, reflection padding and PyTorch's default initialisation. A side of the image
    needs 2 pixels.

    Parameters
    ----------
    channels : int
        In and out.
    count : int
        How many convolutions.
    tied : bool
        Whether all share one kernel and bias, as in the transformer report: its "three
        convolutions" are one layer that its code repeats in a list.
    conv_channels : int, optional
        Channels between untied convolutions; by default `channels`.

    Raises
    ------
    InvalidInputError
        If a size is no whole number or too small, or an option would have no effect:
        `conv_channels` where the convolutions are tied, either where there is only one.

    Notes
    -----
    The layers are ``layers[0], layers[1], ...`` in the order of use; one if tied. A later version
    of the report's code had two: A, ReLU, A, B, without ReLU before B; that isn't offered.

    Examples
    --------
    >>> [sum(p.numel() for p in ConvolutionStack(3, 3, tied=t).parameters()) for t in (True, False)]
    [84, 252]
    """

    def __init__(
        self, channels: int, count: int, *, tied: bool = False, conv_channels: int | None = None
    ) -> None:
        super().__init__()
        require_sizes(1, channels=channels, count=count)
        if tied and conv_channels is not None:
            raise InvalidInputError(
                f"tied convolutions have the {channels} channels of what they act on, so that "
                f"conv_channels={conv_channels} has no effect: leave it out, or take tied=False"
            )
        if count == 1 and (tied or conv_channels is not None):
            raise InvalidInputError(
                "a single convolution has none to be tied to and no channels between: leave out "
                "tied and conv_channels"
            )
        between = channels if conv_channels is None else conv_channels
        require_sizes(1, conv_channels=between)
        widths = [channels, *[between] * (count - 1), channels]
        self.count = count
        self.layers = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 3, padding=1, padding_mode="reflect")
            for i in range(1 if tied else count)
        )

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Apply the convolutions.

        Parameters
        ----------
        x : Tensor, shape (batch, channels, height, width)
            Any real values.

        Returns
        -------
        Tensor, shape (batch, channels, height, width)
            Any real values.
        """
        for i in range(self.count):
            layer = self.layers[i % len(self.layers)]
            x = layer(torch.relu(x) if i else x)
        return x


# A vision transformer with convolutions of its code (`before`) or of its image. The submodules are
# named `vit` and `convolutions`, so that each can be treated on its own.
def _register(name: str, what: str, count: int, *, before: bool) -> None:
    def network(
        image_size: tuple[int, int],
        channels: int = 3,
        code_channels: int = 3,
        patch_size: int = PATCH,
        width: int = 192,
        depth: Layers = 5,
        heads: int = 8,
        mlp_width: int = 192,
        *,
        tied: bool = count > 1,
        conv_channels: int | None = None,
    ) -> nn.Module:
        acts_on = code_channels if before else channels
        stack = ConvolutionStack(acts_on, count, tied=tied, conv_channels=conv_channels)
        sizes = (patch_size, width, depth, heads, mlp_width)
        vit = VisionTransformer(image_size, channels, code_channels, *sizes)
        parts = {"convolutions": stack, "vit": vit}
        return Generator(**(parts if before else dict(reversed(parts.items()))))

    def rule(size: Spatial, options: Options, *, patch_size: int | None = None) -> Spatial:
        options["patch_size"] = fitted_patch(name, size, PATCH, patch_size, least=REFLECTED)
        return size

    builder = family(network, without=() if count > 1 else ("tied", "conv_channels"))(rule)
    summary = f"Vision transformer {what}."
    register(name, learning_rate=1e-4, iterations=5000, source=REPORT, summary=summary)(builder)


_register("conv3-vit", "after three 3x3 convolutions of its code", 3, before=True)
_register("vit-conv3", "followed by three 3x3 convolutions of its image", 3, before=False)
_register("conv1-vit", "after one 3x3 convolution of its code", 1, before=True)
_register("vit-conv1", "followed by one 3x3 convolution of its image", 1, before=False)
