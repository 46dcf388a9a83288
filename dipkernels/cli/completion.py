"""Names that a shell completes; where none fits what was typed, the shell completes paths.

Those of networks and images are written down once more here, since the package that owns them takes
two seconds to import, too long for a key. A test holds them against it.
"""

from collections.abc import Callable, Iterable

PRIORS = (
    *("skip", "wide-skip", "unet", "resnet", "conv", "fixed-conv"),
    *("deep-decoder", "deep-decoder-over", "conv-decoder", "transposed-decoder"),
    *("lipschitz-decoder", "vit", "swin", "mixer", "self-attention"),
    *("conv3-vit", "vit-conv3", "conv1-vit", "vit-conv1", "siren", "fourier-features"),
)
IMAGES = (
    *("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel"),
    *("hubble_deep_field", "moon", "page", "rocket", "shepp_logan_phantom"),
)

Completer = Callable[[str], list[str]]


def one_of(names: Iterable[str]) -> Completer:
    """Make what typer asks for each key: which of some names begin with what was typed."""
    known = tuple(names)

    def complete(incomplete: str) -> list[str]:
        return [name for name in known if name.startswith(incomplete)]

    return complete


complete_prior, complete_image = one_of(PRIORS), one_of(IMAGES)
