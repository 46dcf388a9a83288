"""The encoder within a network that makes images: its features of an input, pooled over positions.

A network `f(theta; z)` that maps a code of the image's size to an image begins with an encoder of
that code. Called with an image in place of the code, it gives features, which are what such
architectures are used for in prediction.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dipkernels.base.checks import checked
from dipkernels.errors import InvalidInputError
from dipkernels.networks.generators import ConvNet, FixedConvNet
from dipkernels.networks.mixer import MLPMixer
from dipkernels.networks.resnet import ResNet
from dipkernels.networks.self_attention import SelfAttentionNet
from dipkernels.networks.skip import SkipNet
from dipkernels.networks.swin import SwinTransformer
from dipkernels.networks.unet import UNet
from dipkernels.networks.vit import VisionTransformer
from dipkernels.priors import ImagePrior, Parameters
from dipkernels.priors.prior import single_code

NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.InstanceNorm1d, nn.InstanceNorm2d)


@checked
class Encoder:
    """Features of input images in a prior's network, averaged over positions.

    What is taken as features, for each family: the transformers' and the mixer's tokens after the
    last normalisation (without the class token); the U-nets' coarsest grid after its
    activation; the ResNet's after its blocks; those of convolutions at full resolution after the
    last activation (behind a BatchNorm every mean over positions would be zero). Everything
    behind is not computed.

    A deep image prior normalises each channel with the statistics of its one image. On a coarse
    grid that leaves little of the input in the mean over positions: the fewer pixels, the less.
    Classifiers normalise over a batch; to compare with them, make the prior with
    ``normalisation="none"``, or take a finer grid with ``path``.

    Parameters
    ----------
    prior : ImagePrior
        Whose code has the size of an image. Make it with ``code_channels`` of the inputs.
    path : str, optional
        Of the module whose output is taken, as in ``named_modules()``, for other networks.
    channels_last : bool
        Only with a path: whether that output is ``(1, *positions, channels)`` and not ``(1,
        channels, *positions)``.

    Attributes
    ----------
    path : str
        Of the module.
    width : int
        Number of features.

    Raises
    ------
    InvalidInputError
        If the network has no encoder that is known, or there is no such module.

    Examples
    --------
    >>> from dipkernels import networks
    >>> prior = networks.create("mixer", image_size=16, width=24)
    >>> Encoder(prior).width
    24
    """

    def __init__(
        self, prior: ImagePrior, path: str | None = None, *, channels_last: bool = False
    ) -> None:
        self.prior = prior
        self._skipped = 0
        if path is None:
            if channels_last:
                raise InvalidInputError("channels_last has no effect without path: leave it out")
            path, channels_last, self._skipped = _features_of(prior)
        modules = dict(prior.structure.named_modules())
        if path not in modules:
            near = ", ".join(name for name in list(modules)[1:6])
            raise InvalidInputError(f"{prior} has no module '{path}'; it has {near}, ...")
        self.path, self._channels_last = path, channels_last
        self._module = modules[path]
        self.width = len(self(prior.init(0), single_code(prior, "an encoder")[0]))

    def __call__(
        self, parameters: Parameters, image: Float[Tensor, "channels *spatial"]
    ) -> Float[Tensor, " features"]:
        """Encode one input: a pure, differentiable function.

        Parameters
        ----------
        parameters : dict of str to Tensor
            As `ImagePrior.init` returns.
        image : Tensor, shape ``(channels, *spatial)``
            Of the shape of the prior's code.

        Returns
        -------
        Tensor, shape (features,)
            Means over positions.

        Raises
        ------
        InvalidInputError
            If the module was never called.
        """
        found: list[Tensor] = []

        def stop(module: nn.Module, inputs: object, output: Tensor) -> None:
            found.append(output)
            raise _FoundError

        handle = self._module.register_forward_hook(stop)
        try:
            self.prior.image(parameters, image[None])
        except _FoundError:
            pass
        finally:
            handle.remove()
        if not found:
            raise InvalidInputError(f"{self.prior} doesn't call its module '{self.path}'")
        features = found[0][0]
        if features.dim() == 1:  # of the whole, without positions
            return features
        if self._channels_last:
            return features.flatten(0, -2)[self._skipped :].mean(dim=0)
        return features.flatten(1).mean(dim=1)


class _FoundError(Exception):
    """Ends a pass once the features are known."""


# Path, whether channels come last, and how many tokens stand before those of the image.
def _features_of(prior: ImagePrior) -> tuple[str, bool, int]:
    for name, module in prior.structure.named_modules():
        prefix = f"{name}." if name else ""
        if isinstance(module, VisionTransformer):
            return f"{prefix}norm", True, 1
        if isinstance(module, SwinTransformer | MLPMixer):
            return f"{prefix}norm", True, 0
        for kind, find in _CONVOLUTIONAL.items():
            if isinstance(module, kind):
                return f"{prefix}{find(module)}", False, 0
    raise InvalidInputError(
        f"{prior} has no encoder of images that is known here: its code isn't an image, or the "
        "network isn't one of the registry; pass path="
    )


def _deepest_scale(network: nn.Module) -> str:
    paths = [name for name, _ in network.named_modules() if name.endswith(".down")]
    if not paths:
        raise InvalidInputError("a network without scales has no encoder: take a larger image")
    deepest: str = max(paths, key=len)
    return deepest


def _last_activation(network: nn.Module) -> str:
    names = [name for name, _ in network.named_children()]
    modules = dict(network.named_children())
    before: list[str] = [
        name for name in names[:-1] if not isinstance(modules[name], NORMALISATIONS)
    ]
    return before[-1]


_CONVOLUTIONAL: dict[type[nn.Module], Callable[[nn.Module], str]] = {
    SkipNet: _deepest_scale,
    SelfAttentionNet: _deepest_scale,
    UNet: lambda network: f"down.{len(network.down) - 1}",  # type: ignore[arg-type]
    ResNet: lambda network: "blocks",
    ConvNet: _last_activation,
    FixedConvNet: _last_activation,
}


@checked
def standardised(
    inputs: Float[Tensor, "n channels *spatial"],
) -> Float[Tensor, "n channels *spatial"]:
    """Shift and scale a set of inputs as a whole to mean 0 and variance 1.

    Parameters
    ----------
    inputs : Tensor, shape ``(n, channels, *spatial)``
        Any real values.

    Returns
    -------
    Tensor
        Of the same shape.
    """
    return (inputs - inputs.mean()) / inputs.std()


@checked
def faces(channels: int = 1) -> tuple[Float[Tensor, "200 channels 25 25"], list[int]]:
    """Load scikit-image's bundled task: faces (1) and other pieces of photographs (0).

    Parameters
    ----------
    channels : int
        Copies of the grey one.

    Returns
    -------
    inputs : Tensor, shape (200, channels, 25, 25)
        Grey, in [0, 1].
    labels : list of int
        One for each: the first hundred are faces. Lies in scikit-image's wheel, so that nothing
        is downloaded. Source: Labeled Faces in the Wild (Huang et al. 2007), a subset.
    """
    import skimage.data

    images = torch.from_numpy(skimage.data.lfw_subset()).float()
    return images[:, None].repeat(1, channels, 1, 1), [1] * 100 + [0] * 100
