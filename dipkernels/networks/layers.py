"""What the convolutional families share: convolutions, normalisations, activations, cropping.

Everything is free of state, and the same for signals (1D), images (2D) and volumes (3D).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.priors.codes import Spatial

# What users call a padding, and what torch does.
PADDINGS: dict[str, Literal["reflect", "zeros", "circular"]] = {
    "reflect": "reflect",
    "zero": "zeros",
    "circular": "circular",
}
Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
Kinds = tuple[type[nn.Conv1d], type[nn.Conv2d], type[nn.Conv3d]]
PLAIN: Kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Sine(nn.Module):
    """The sine of each value, as in SIREN (Sitzmann et al. 2020) but without its factor of 30."""

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Apply."""
        return torch.sin(x)


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky-relu": lambda: nn.LeakyReLU(0.2),  # the slope of Ulyanov et al.
    "leaky-relu-0.01": lambda: nn.LeakyReLU(0.01),  # torch's slope
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "swish": nn.SiLU,
    "elu": nn.ELU,
    "tanh": nn.Tanh,
    "sin": Sine,
    "none": nn.Identity,
}


class MeanOnlyNorm(nn.Module):
    """Subtract each channel's mean over the image, add a learned bias; the variance stays.

    Mean-only batch normalisation (Salimans & Kingma 2016) with the statistics of the one image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(
        self, x: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "batch channels *spatial"]:
        """Normalise."""
        axes = tuple(range(2, x.dim()))
        bias = self.bias.reshape(-1, *(1,) * len(axes))
        return x + (bias - x.mean(dim=axes, keepdim=True))


NORMALISATIONS = ("batch", "mean-only", "instance", "none")


@dataclass(frozen=True)
class Style:
    """What all blocks of one network have in common."""

    dims: int = 2
    normalisation: str = "batch"
    activation: str = "leaky-relu"
    padding: str = "reflect"
    bias: bool = True

    def __post_init__(self) -> None:
        require_choice("normalisation", self.normalisation, NORMALISATIONS)
        require_choice("activation", self.activation, ACTIVATIONS)
        require_choice("padding", self.padding, PADDINGS)

    def conv(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        kinds: Kinds = PLAIN,
    ) -> Conv:
        """Make a convolution that keeps the size, with PyTorch's default initialisation."""
        require_sizes(1, kernel_size=kernel_size)
        if kernel_size % 2 == 0:
            raise InvalidInputError(
                f"kernel_size must be odd, so that padding keeps the size; got {kernel_size}"
            )
        return kinds[self.dims - 1](
            in_channels,
            out_channels,
            kernel_size,
            stride,
            bias=self.bias,
            padding=kernel_size // 2,
            padding_mode=PADDINGS[self.padding] if kernel_size > 1 else "zeros",
        )

    def layer(self, name: str) -> Callable[..., nn.Module]:
        """Look up torch's layer of that name for these dimensions."""
        found: Callable[..., nn.Module] = getattr(nn, f"{name}{self.dims}d")
        return found

    def norm(self, channels: int) -> list[nn.Module]:
        """Make the normalisation: a list of one, or of none."""
        if self.normalisation == "batch":
            return [self.layer("BatchNorm")(channels, track_running_stats=False)]
        if self.normalisation == "instance":
            return [self.layer("InstanceNorm")(channels)]
        return [MeanOnlyNorm(channels)] if self.normalisation == "mean-only" else []

    def activate(self) -> list[nn.Module]:
        """Make the activation: a list of one, or of none."""
        return [] if self.activation == "none" else [ACTIVATIONS[self.activation]()]

    def block(self, in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
        """Make convolution, normalisation, activation."""
        return nn.Sequential(
            self.conv(in_channels, out_channels, kernel_size),
            *self.norm(out_channels),
            *self.activate(),
        )


def bounded_weight(weight: Float[Tensor, "*shape"], bound: float) -> Float[Tensor, "*shape"]:
    """Divide a weight by ``max(1, s / bound)``, s being its largest singular value."""
    # In double precision, which neither TF32 nor automatic mixed precision would shorten.
    matrix = weight.detach().flatten(1).double()
    gram = matrix @ matrix.mT if matrix.shape[0] <= matrix.shape[1] else matrix.mT @ matrix
    largest = torch.linalg.eigvalsh(gram)[-1].clamp(min=0).sqrt()
    bounded: Tensor = weight / (largest / bound).clamp(min=1).to(weight.dtype)
    return bounded


class _Bounded:
    """Makes a convolution use `bounded_weight`."""

    bound: float

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        bounded = bounded_weight(weight, self.bound)
        filtered: Tensor = super()._conv_forward(input, bounded, bias)  # type: ignore[misc]
        return filtered


class BoundedConv1d(_Bounded, nn.Conv1d):
    """`torch.nn.Conv1d` with a bound on its spectral norm."""


class BoundedConv2d(_Bounded, nn.Conv2d):
    """`torch.nn.Conv2d` with a bound on its spectral norm."""


class BoundedConv3d(_Bounded, nn.Conv3d):
    """`torch.nn.Conv3d` with a bound on its spectral norm."""


def bounded_conv(
    in_channels: int, out_channels: int, kernel_size: int, bound: float | None, style: Style
) -> Conv:
    """Make a convolution with a bound on its spectral norm, or without one."""
    if bound is not None and not bound > 0:
        raise InvalidInputError(f"lipschitz must be positive, or None for no bound; got {bound}")
    kinds = PLAIN if bound is None else (BoundedConv1d, BoundedConv2d, BoundedConv3d)
    made = style.conv(in_channels, out_channels, kernel_size, kinds=kinds)
    if isinstance(made, _Bounded) and bound is not None:
        made.bound = bound
    nn.init.kaiming_uniform_(made.weight, nonlinearity="relu")
    return made


def require_padded(padding: str, kernel_size: int) -> None:
    """Check that a padding, where one is chosen, has an effect on the largest kernel."""
    if padding != "reflect" and kernel_size == 1:
        raise InvalidInputError(
            f"padding={padding!r} has no effect on kernels of size 1: leave it out, or choose a "
            "larger kernel_size"
        )


def separable(line: Float[Tensor, " taps"], dims: int) -> Float[Tensor, "*taps"]:
    """Make the filter that acts by the same taps along each axis."""
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel[..., None] * line
    return kernel


@checked
class Generator(nn.Sequential):
    """A sequence of layers from a code to an image, without an output non-linearity."""

    def __init__(self, *layers: nn.Module, **named: nn.Module) -> None:
        super().__init__(*layers)
        for name, layer in named.items():
            self.add_module(name, layer)

    def forward(
        self, input: Float[Tensor, "1 code_channels *grid"]
    ) -> Float[Tensor, "1 channels *spatial"]:
        """Make the image.

        Parameters
        ----------
        input : Tensor, shape ``(1, code_channels, *grid)``
            The code: of the image's size, or of a coarser grid.

        Returns
        -------
        Tensor, shape ``(1, channels, *spatial)``
            Any real values.
        """
        image: Tensor = super().forward(input)
        return image


class CentreCrop(nn.Module):
    """Crop an image about its centre to a size; does nothing where it has that size."""

    def __init__(self, size: Spatial) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, x: Float[Tensor, "batch channels *spatial"]
    ) -> Float[Tensor, "batch channels *new_spatial"]:
        """Crop."""
        return centre_crop(x, self.size)


def centre_crop(x: Tensor, size: Spatial) -> Tensor:
    """Crop the last axes about their centre."""
    for axis, length in enumerate(size, start=-len(size)):
        excess = x.shape[axis] - length
        if excess:
            x = x.narrow(axis, excess // 2, length)
    return x


def require_sizes(least: int, **sizes: int) -> None:
    """Check sizes of a network."""
    for name, size in sizes.items():
        if not isinstance(size, int) or size < least:
            raise InvalidInputError(
                f"{name} must be a whole number, at least {least}, got {size!r}"
            )


def require_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check an option that takes one of several names."""
    choices = list(choices)
    if value not in choices:
        raise InvalidInputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
