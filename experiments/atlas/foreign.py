"""Networks of other libraries as priors of grey images: factories for lines of the plan.

A network of your own enters in the same way: a function, or a class, that returns a module or an
`ImagePrior`; its parameter ``shape`` gets the image's shape.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dipkernels.networks import ImagePrior

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from foreign_rows import LIBRARIES, Row, noise

Shape = tuple[int, int, int]


def row(shape: Shape, name: str) -> ImagePrior:
    """Take a network of the benchmark whose images are as large as its code."""
    found = _rows(name.split(" ")[0])[name]
    code = found.code
    if isinstance(code, dict):
        code = {key: _as_large(value, shape) for key, value in code.items()}
    else:
        code = _as_large(code, shape)
    return _grey(Row(found.factory, code, found.output), shape)


def deepinv_conv_decoder(shape: Shape) -> ImagePrior:
    """Make deepinv's convolutional decoder, from a code of a quarter of the size."""
    model = import_module("deepinv.models").ConvDecoder
    coarse = (shape[1] // 4, shape[2] // 4)
    return _grey(
        Row(lambda: model(shape, coarse, layers=3, channels=16), noise(1, 16, *coarse)), shape
    )


def diffusers_unet(shape: Shape) -> ImagePrior:
    """Make the U-net with attention of diffusion models, at a fixed time."""
    model = import_module("diffusers").UNet2DModel
    options: dict[str, Any] = {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    code = (noise(1, *shape), torch.tensor([3]))
    return _grey(Row(lambda: model(**options), code, lambda out: out.sample), shape)


def hf_swin(shape: Shape) -> ImagePrior:
    """Make the Swin transformer that Hugging Face has for masked images."""
    hf = import_module("transformers")
    settings = hf.SwinConfig(
        image_size=shape[1], num_channels=1, patch_size=2, embed_dim=16, depths=[2, 1],
        num_heads=[2, 2], window_size=4, encoder_stride=4,
    )  # fmt: skip
    made = Row(
        lambda: hf.SwinForMaskedImageModeling(settings),
        noise(1, *shape),
        lambda out: out.reconstruction,
    )
    return _grey(made, shape)


def timm_vit(shape: Shape) -> ImagePrior:
    """Make timm's vision transformer, whose tokens of width 16 are patches of 4x4 pixels."""
    transformer = import_module("timm.models.vision_transformer").VisionTransformer
    return _patches(transformer, shape, depth=3, num_heads=2)


def timm_mixer(shape: Shape) -> ImagePrior:
    """Make timm's mixer, whose tokens of width 16 are patches of 4x4 pixels."""
    return _patches(import_module("timm.models.mlp_mixer").MlpMixer, shape, num_blocks=3)


# Tokens after the class token, if there is one, as patches.
def _patches(network: Any, shape: Shape, **options: Any) -> ImagePrior:
    rows, columns = shape[1] // 4, shape[2] // 4

    def factory() -> Any:
        return network(
            img_size=shape[1:], patch_size=4, in_chans=1, embed_dim=16, num_classes=0,
            global_pool="", **options,
        )  # fmt: skip

    def image(out: Tensor) -> Tensor:
        found = out[:, out.shape[1] - rows * columns :].transpose(1, 2)
        return torch.nn.functional.pixel_shuffle(found.unflatten(2, (rows, columns)), 4)

    return _grey(Row(factory, noise(1, *shape), image), shape)


# The first channel of what is picked, through a sigmoid, as the networks of the registry have it.
def _grey(made: Row, shape: Shape) -> ImagePrior:
    def image(out: Any) -> Tensor:
        picked: Tensor = out if made.output is None else made.output(out)
        return picked[:, : shape[0]].sigmoid()

    return ImagePrior(made.factory, made.code, output=image)


def _as_large(code: Tensor, shape: Shape) -> Tensor:
    return noise(*code.shape[:2], *shape[1:]) if code.dim() == 4 else code


def _rows(library: str) -> dict[str, Row]:
    found = next(each for each in LIBRARIES if each.__name__.startswith(library))
    return dict(found())
