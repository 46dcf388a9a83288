"""Coordinate networks: a perceptron that maps each pixel's place to its colour."""

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.base.kinds import Layers
from dipkernels.errors import InvalidInputError
from dipkernels.networks.layers import require_choice, require_sizes
from dipkernels.networks.registry import Options, family, register
from dipkernels.priors.codes import Spatial

__all__ = ["CoordinateNetwork"]

ACTIVATIONS = ("sine", "relu")
CODE = 512  # sines and cosines of 256 frequencies


@checked
class CoordinateNetwork(nn.Module):
    """A perceptron with the same weights at every pixel, of sines (SIREN) or of ReLUs.

    Parameters
    ----------
    channels, code_channels : int
        Of the image and of the code.
    width, layers : int
        Hidden units, and how many hidden layers of them.
    activation : {"sine", "relu"}
        ``sin(frequency * x)``, of a code that is mapped from [0, 1] to [-1, 1]; or ReLU, of the
        code as it is.
    frequency : float
        Of the sines, positive; without effect on ReLUs.

    Raises
    ------
    InvalidInputError
        If a size or the frequency isn't positive, or the activation is unknown.

    Notes
    -----
    Pixels meet in the loss alone: what the network carries of their neighbourhood is in the code,
    coordinates or Fourier features of them. Time and memory grow with the number of pixels.

    Initialisation of sines as published: uniform within ``1 / fan-in`` in the first layer, within
    ``sqrt(6 / fan-in) / frequency`` in the others. Of ReLUs, and of biases, PyTorch's own.

    Sources: Sitzmann et al., "Implicit Neural Representations with Periodic Activation Functions"
    (NeurIPS 2020): three hidden layers of 256, frequency 30. Tancik et al., "Fourier Features Let
    Networks Learn High Frequency Functions in Low Dimensional Domains" (NeurIPS 2020): 256
    frequencies of deviation 10, three hidden layers of 256. The sigmoid behind the first is ours.

    Examples
    --------
    >>> net = CoordinateNetwork(3, 2, width=16)
    >>> net(torch.rand(1, 2, 5, 8)).shape
    torch.Size([1, 3, 5, 8])
    """

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 2,
        *,
        width: int = 256,
        layers: Layers = 3,
        activation: str = "sine",
        frequency: float = 30.0,
    ) -> None:
        super().__init__()
        require_sizes(1, channels=channels, code_channels=code_channels, width=width, layers=layers)
        require_choice("activation", activation, ACTIVATIONS)
        if not 0 < frequency < math.inf:
            raise InvalidInputError(f"frequency must be positive and finite, got {frequency}")
        widths = [code_channels, *[width] * layers]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(widths))
        self.last = nn.Linear(width, channels)
        self.activation, self.frequency = activation, frequency
        if activation == "sine":
            with torch.no_grad():
                for i, layer in enumerate([*self.hidden, self.last]):
                    fan = layer.in_features
                    within = math.sqrt(6 / fan) / frequency if i else 1 / fan
                    nn.init.uniform_(layer.weight, -within, within)

    def forward(
        self, code: Float[Tensor, "1 code_channels *spatial"]
    ) -> Float[Tensor, "1 channels *spatial"]:
        """Make the image.

        Parameters
        ----------
        code : Tensor, shape ``(1, code_channels, *spatial)``
            What each pixel is told of its place.

        Returns
        -------
        Tensor, shape ``(1, channels, *spatial)``
            Of any range.
        """
        x = code.movedim(1, -1)
        x = 2 * x - 1 if self.activation == "sine" else x
        for layer in self.hidden:
            x = layer(x)
            x = torch.sin(self.frequency * x) if self.activation == "sine" else torch.relu(x)
        return torch.as_tensor(self.last(x)).movedim(-1, 1)


@register(
    "siren",
    learning_rate=1e-4,
    iterations=10_000,
    source="Sitzmann et al. 2020; the sigmoid is ours",
    code="meshgrid",
    dimensions=(1, 2, 3),
    least_side=2,
)
@family(CoordinateNetwork, without=("activation",))
def _siren(size: Spatial, options: Options) -> Spatial:
    """Perceptron of sines on the pixels' coordinates (SIREN)."""
    return size


@register(
    "fourier-features",
    learning_rate=1e-3,
    iterations=2000,
    source="Tancik et al. 2020",
    preset={"code_channels": CODE},
    code="fourier",
    dimensions=(1, 2, 3),
    least_side=2,
)
@family(CoordinateNetwork, without=("activation", "frequency"))
def _fourier_features(size: Spatial, options: Options) -> Spatial:
    """Perceptron of ReLUs on random Fourier features of the pixels' coordinates."""
    options["activation"] = "relu"
    return size
