"""What is compared, at which size, and how it is fitted."""

from dataclasses import dataclass

import torch

from dipkernels import images, networks, tasks
from dipkernels.networks import ImagePrior
from dipkernels.tasks import Task

# Family and options of every prior. Widths below the registered ones keep the exact kernel of
# 1024 outputs affordable; the published "narrow" variants serve where there is one.
PRIORS: dict[str, tuple[str, dict[str, object]]] = {
    "skip": ("U-net", {"width": 48}),
    "wide-skip": ("U-net", {"width": 96}),
    "unet": ("U-net", {}),
    "self-attention": ("U-net", {"width": 64}),
    "resnet": ("full resolution", {}),
    "conv": ("full resolution", {"width": 42}),
    "fixed-conv": ("full resolution", {}),
    "deep-decoder": ("decoder", {}),
    "deep-decoder-over": ("decoder", {"width": 256}),
    "conv-decoder": ("decoder", {"width": 48}),
    "transposed-decoder": ("decoder", {"width": 42}),
    "lipschitz-decoder": ("decoder", {"width": 48}),
    "vit": ("transformer", {"width": 96, "mlp_width": 96}),
    "swin": ("transformer", {"width": 48, "depths": (2, 2), "heads": (4, 4)}),
    "mixer": ("transformer", {"width": 96, "token_mlp_width": 96, "channel_mlp_width": 96}),
    "conv3-vit": ("hybrid", {"width": 96, "mlp_width": 96}),
    "vit-conv3": ("hybrid", {"width": 96, "mlp_width": 96}),
    "conv1-vit": ("hybrid", {"width": 96, "mlp_width": 96}),
    "vit-conv1": ("hybrid", {"width": 96, "mlp_width": 96}),
}

# The transformers' published rate, 1e-4 for 5000 iterations, is ten times this.
TRANSFORMER_RATE = 1e-3


@dataclass(frozen=True)
class Preset:
    """How much is computed.

    Attributes
    ----------
    size : int
        Pixels a side, grey.
    priors, images : tuple of str
        What is compared.
    seeds : int
        Initialisations, of fits and of kernels.
    first, most : int
        Iterations of Adam: doubled from the first until the peak lies in the first 60 %, or the
        most are reached.
    after : tuple of int
        Steps of Adam after which the kernel is measured again, cross-fitted after the first.
    after_images : tuple of str
        On which images.
    samples : int
        Initialisations for the covariance.
    full_width : bool
        The registered widths.
    """

    size: int
    priors: tuple[str, ...]
    images: tuple[str, ...]
    seeds: int
    first: int
    most: int
    after: tuple[int, ...]
    after_images: tuple[str, ...]
    samples: int
    full_width: bool


def make_prior(name: str, preset: Preset, device: torch.device) -> ImagePrior:
    """Make a prior of the preset's size.

    Parameters
    ----------
    name : str
        One of `PRIORS`.
    preset : Preset
        Gives size and width.
    device : torch.device
        Where it is fitted.

    Returns
    -------
    ImagePrior
        Of grey images.
    """
    options = {} if preset.full_width else PRIORS[name][1]
    return networks.create(name, image_size=preset.size, channels=1, **options).to(device=device)


def make_task(image: str, size: int, seed: int = 0) -> Task:
    """Make the denoising task of an image.

    Parameters
    ----------
    image : str
        A bundled one; its channels are averaged.
    size : int
        Pixels a side.
    seed : int
        Of the noise.

    Returns
    -------
    Task
        With noise of 25/255.
    """
    grey = images.load(image, size=size).mean(dim=0, keepdim=True)
    return tasks.denoise(grey, seed=seed)


def learning_rate(name: str) -> float:
    """Adam's rate for a prior.

    Parameters
    ----------
    name : str
        One of `PRIORS`.

    Returns
    -------
    float
        The published one, but for transformers and their hybrids.
    """
    attends = PRIORS[name][0] in ("transformer", "hybrid")
    return TRANSFORMER_RATE if attends else networks.entry(name).learning_rate
