"""What is fitted, and which question each fit belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dipkernels import images, networks, tasks
from dipkernels.networks import ImagePrior
from dipkernels.tasks import Task

TOKEN_RATE = 1e-3  # ten times the published one, for a tenth of the iterations or less


@dataclass(frozen=True)
class Settings:
    """A preset; see ``config.yaml``."""

    size: int
    width: int
    tokens: int
    images: tuple[str, ...]
    seeds: int
    iterations: Mapping[str, int]
    hold_out: float
    input_noise: float
    kernels: bool
    snapshots: int
    variants: tuple[str, ...]

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the variants that are fitted."""
        return self.variants or tuple(VARIANTS)


@dataclass(frozen=True)
class Variant:
    """A network and how it is fitted.

    Attributes
    ----------
    title : str
        In tables.
    prior : str
        Registered name.
    options : dict
        Beyond width and size.
    length : {"quick", "noisy", "decoder", "slow"}
        Which number of iterations.
    scale : int
        Factor of the width.
    rate : float
        Factor of the learning rate.
    noise, held : bool
        Whether the code is perturbed, whether pixels are held out.
    together : {"", "two", "same"}
        One network for two images, or for one image under two draws of the noise.
    peak : float
        What white is.
    predicted : bool
        Whether its kernel is a new one.
    """

    title: str
    prior: str
    options: dict[str, Any] = field(default_factory=dict)
    length: str = "quick"
    scale: int = 1
    rate: float = 1.0
    noise: bool = False
    held: bool = False
    together: str = ""
    peak: float = 1.0
    predicted: bool = True


def _decoder(title: str, **changes: Any) -> Variant:
    return Variant(title, "conv-decoder", length="decoder", **changes)


VARIANTS: dict[str, Variant] = {
    "skip": Variant("hourglass with skips", "skip"),
    "hourglass": Variant("hourglass, no skips", "skip", {"skip_channels": 0}, length="decoder"),
    "decoder": _decoder("decoder alone, 3x3"),
    "deep-decoder": Variant("decoder alone, 1x1", "deep-decoder", length="slow", scale=2),
    "conv": Variant("straight convolutions", "conv"),
    "mixer": Variant("MLP-Mixer", "mixer"),
    "skip-nearest": Variant("hourglass, nearest", "skip", {"upsampling": "nearest"}),
    "skip-transposed": Variant("hourglass, transposed", "skip", {"upsampling": "transposed"}),
    "decoder-nearest": _decoder("decoder, nearest", options={"upsampling": "nearest"}),
    "decoder-transposed": _decoder("decoder, transposed", options={"upsampling": "transposed"}),
    "plain": Variant("hourglass, no BatchNorm", "skip", {"normalisation": "none"}, length="noisy"),
    "decoder-plain": _decoder("decoder, no BatchNorm", options={"normalisation": "none"}),
    "noise": Variant("hourglass, input noise", "skip", length="noisy", noise=True, predicted=False),
    "plain-low": Variant(
        "hourglass, no BatchNorm, rate / 10",
        "skip",
        {"normalisation": "none"},
        length="noisy",
        rate=0.1,
        predicted=False,
    ),
    "plain-low-noise": Variant(
        "hourglass, no BatchNorm, rate / 10, noise",
        "skip",
        {"normalisation": "none"},
        length="noisy",
        rate=0.1,
        noise=True,
        predicted=False,
    ),
    "conv-low": Variant("straight convolutions, rate / 10", "conv", rate=0.1, predicted=False),
    "mixer-low": Variant("MLP-Mixer, rate / 10", "mixer", rate=0.1, predicted=False),
    "held": Variant("hourglass, pixels held out", "skip", held=True, predicted=False),
    "conv-held": Variant("convolutions, pixels held out", "conv", held=True, predicted=False),
    "mixer-held": Variant("mixer, pixels held out", "mixer", held=True, predicted=False),
    "skip-two": Variant("hourglass, two images", "skip", together="two"),
    "skip-same": Variant("hourglass, one image twice", "skip", together="same"),
    "decoder-two": _decoder("decoder, two images", together="two"),
    "decoder-same": _decoder("decoder, one image twice", together="same"),
    "decoder-255": _decoder(
        "decoder, 255 x sigmoid, 0-255", options={"output": "255"}, peak=255.0, predicted=False
    ),
    "decoder-linear": _decoder("decoder, linear, 0-1", options={"output": "none"}),
    "decoder-linear-255": _decoder(
        "decoder, linear, 0-255", options={"output": "none"}, peak=255.0, predicted=False
    ),
}

# Question, and pairs of a variant with what it is held against.
QUESTIONS: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "decoder": (
        "Does the decoder alone do it?",
        (("hourglass", "skip"), ("decoder", "skip"), ("deep-decoder", "skip")),
    ),
    "upsampling": (
        "Are transposed convolutions slightly worse?",
        (
            ("skip-transposed", "skip"),
            ("skip-nearest", "skip"),
            ("decoder-transposed", "decoder"),
            ("decoder-nearest", "decoder"),
        ),
    ),
    "straight": (
        "Do straight convolutions perform poorly?",
        (("conv", "decoder"), ("conv-low", "decoder")),
    ),
    "mixer": ("Does a mixer do?", (("mixer", "skip"), ("mixer-low", "skip"))),
    "normalisation": (
        "Is BatchNorm important?",
        (("plain", "skip"), ("plain-low", "skip"), ("decoder-plain", "decoder")),
    ),
    "input noise": (
        "Does noise on the code regularise?",
        (("noise", "skip"), ("plain-low-noise", "plain-low")),
    ),
    "held out": (
        "Does holding pixels out cost anything?",
        (("held", "skip"), ("conv-held", "conv"), ("mixer-held", "mixer")),
    ),
    "two images": (
        "What if two images are fitted?",
        (
            ("skip-two", "skip"),
            ("skip-same", "skip"),
            ("decoder-two", "decoder"),
            ("decoder-same", "decoder"),
        ),
    ),
    "range": (
        "Does 0-255 matter?",
        (
            ("decoder-255", "decoder"),
            ("decoder-linear", "decoder"),
            ("decoder-linear-255", "decoder-linear"),
        ),
    ),
}


def make_prior(variant: Variant, chosen: Settings) -> ImagePrior:
    """Make the network of a variant.

    Parameters
    ----------
    variant : Variant
        One of `VARIANTS`.
    chosen : Settings
        Gives size and widths.

    Returns
    -------
    ImagePrior
        On the CPU.
    """
    options = dict(variant.options)
    if variant.prior == "mixer":
        for name in ("width", "token_mlp_width", "channel_mlp_width"):
            options[name] = chosen.tokens
    else:
        options["width"] = variant.scale * chosen.width
    copies = 2 if variant.together else 1
    return networks.create(
        variant.prior, image_size=chosen.size, channels=1, images=copies, **options
    )


def make_task(variant: Variant, image: str, seed: int, chosen: Settings) -> Task:
    """Make what a variant is fitted to; noise of 25/255, drawn by the seed.

    Parameters
    ----------
    variant : Variant
        One of `VARIANTS`.
    image : str
        Name of an image, or two joined by ``+``.
    seed : int
        Of the noise, and of the pixels that are held out.
    chosen : Settings
        Gives size and share held out.

    Returns
    -------
    Task
        Denoising.
    """
    if variant.together:
        names = image.split("+") if variant.together == "two" else [image, image]
        # the first one has the noise that it has on its own
        parts = [
            tasks.denoise(_grey(name, chosen.size), seed=seed + 1000 * number)
            for number, name in enumerate(names)
        ]
        return tasks.several(parts)
    task = tasks.denoise(_grey(image, chosen.size), seed=seed)
    if variant.held:
        task = task.hold_out(chosen.hold_out, seed=seed)
    return task if variant.peak == 1 else task.in_range(variant.peak)


def _grey(image: str, size: int) -> Tensor:
    return images.load(image, size=size).mean(dim=0, keepdim=True)


def learning_rate(variant: Variant) -> float:
    """Adam's rate.

    Parameters
    ----------
    variant : Variant
        One of `VARIANTS`.

    Returns
    -------
    float
        The published one, for the mixer ten times its registered one; times the variant's factor.
    """
    if variant.prior == "mixer":
        return variant.rate * TOKEN_RATE
    return variant.rate * (networks.entry(variant.prior).learning_rate or 0)


def subjects(variant: Variant, chosen: Settings) -> tuple[str, ...]:
    """List what a variant is fitted to: each image, or the first two together.

    Parameters
    ----------
    variant : Variant
        One of `VARIANTS`.
    chosen : Settings
        Gives the images.

    Returns
    -------
    tuple of str
        Names for `make_task`.
    """
    return ("+".join(chosen.images[:2]),) if variant.together == "two" else chosen.images
