"""Small networks of other libraries, each with its code: rows of `foreign_networks.py`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

Factory = Callable[[], nn.Module]


@dataclass
class Row:
    """A network: how it is built, its code, and how an image is picked out of what it returns."""

    factory: Factory
    code: Any
    output: Callable[[Any], Tensor] | None = None
    iterations: int = 30  # of its chains


def noise(*shape: int) -> Tensor:
    """Make a code."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def features(channels: int, last: str = "") -> Callable[[Any], Tensor]:
    """Take a feature map for an image: its first channels."""

    def pick(out: Any) -> Tensor:
        out = out[last] if last else out
        out = out[-1] if isinstance(out, list | tuple) else out
        return out[:, :channels]  # type: ignore[no-any-return]

    return pick


def tokens(side: int, skip: int = 0) -> Callable[[Any], Tensor]:
    """Take tokens for pixels, their first three numbers for colours."""

    def pick(out: Any) -> Tensor:
        out = out.last_hidden_state if hasattr(out, "last_hidden_state") else out
        return out[:, skip:, :3].transpose(1, 2).unflatten(2, (side, side))  # type: ignore[no-any-return]

    return pick


def deepinv_rows() -> Iterator[tuple[str, Row]]:
    """Networks of deepinv."""
    models = import_module("deepinv.models")
    rgb = noise(1, 3, 32, 32)
    yield "deepinv UNet", Row(lambda: models.UNet(3, 3, scales=3), rgb)
    yield "deepinv UNet, batch norm", Row(lambda: models.UNet(3, 3, scales=2, batch_norm=True), rgb)
    yield "deepinv DnCNN", Row(lambda: models.DnCNN(3, 3, depth=5, nf=16, pretrained=None), rgb)
    decoder = lambda: models.ConvDecoder((3, 32, 32), (8, 8), layers=3, channels=16)  # noqa: E731
    yield "deepinv ConvDecoder", Row(decoder, noise(1, 16, 8, 8))
    yield (
        "deepinv DRUNet",
        Row(
            lambda: models.DRUNet(3, 3, nc=(8, 8, 16, 16), nb=1, pretrained=None),
            {"x": rgb, "sigma": torch.tensor([0.1])},
        ),
    )
    yield (
        "deepinv SwinIR",
        Row(
            lambda: models.SwinIR(
                img_size=16, depths=[2], embed_dim=12, num_heads=[2], window_size=4, pretrained=None
            ),
            noise(1, 3, 16, 16),
        ),
    )
    yield (
        "deepinv Restormer",
        Row(
            lambda: models.Restormer(
                dim=8,
                num_blocks=[1, 1, 1, 1],
                num_refinement_blocks=1,
                heads=[1, 1, 2, 2],
                pretrained=None,
            ),
            rgb,
        ),
    )


def diffusers_rows() -> Iterator[tuple[str, Row]]:
    """Networks of diffusers."""
    diffusers = import_module("diffusers")
    common: dict[str, Any] = {"norm_num_groups": 4}
    yield (
        "diffusers UNet2DModel",
        Row(
            lambda: diffusers.UNet2DModel(
                sample_size=16,
                block_out_channels=(8, 16),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "AttnDownBlock2D"),
                up_block_types=("AttnUpBlock2D", "UpBlock2D"),
                attention_head_dim=4,
                **common,
            ),
            (noise(1, 3, 16, 16), torch.tensor([3])),
            lambda out: out.sample,
        ),
    )
    yield (
        "diffusers AutoencoderKL decoder",
        Row(
            lambda: (
                diffusers.AutoencoderKL(
                    block_out_channels=(8, 16),
                    latent_channels=4,
                    layers_per_block=1,
                    down_block_types=("DownEncoderBlock2D",) * 2,
                    up_block_types=("UpDecoderBlock2D",) * 2,
                    **common,
                ).decoder
            ),
            noise(1, 4, 8, 8),
        ),
    )
    yield (
        "diffusers VQModel",
        Row(
            lambda: (
                diffusers.VQModel(
                    block_out_channels=(8, 16),
                    latent_channels=3,
                    layers_per_block=1,
                    down_block_types=("DownEncoderBlock2D",) * 2,
                    up_block_types=("UpDecoderBlock2D",) * 2,
                    **common,
                ).decoder
            ),
            noise(1, 3, 8, 8),
        ),
    )
    yield (
        "diffusers DiT",
        Row(
            lambda: diffusers.DiTTransformer2DModel(
                num_attention_heads=2,
                attention_head_dim=8,
                in_channels=3,
                out_channels=3,
                num_layers=2,
                sample_size=16,
                patch_size=4,
                num_embeds_ada_norm=10,
                norm_num_groups=1,
            ),
            {
                "hidden_states": noise(1, 3, 16, 16),
                "timestep": torch.tensor([3]),
                "class_labels": torch.tensor([1]),
            },
            lambda out: out.sample,
        ),
    )
    yield (
        "diffusers AutoencoderTiny decoder",
        Row(
            lambda: (
                diffusers.AutoencoderTiny(
                    encoder_block_out_channels=(8, 8),
                    decoder_block_out_channels=(8, 8),
                    num_encoder_blocks=(1, 1),
                    num_decoder_blocks=(1, 1),
                    latent_channels=4,
                ).decoder
            ),
            noise(1, 4, 8, 8),
        ),
    )


def timm_rows() -> Iterator[tuple[str, Row]]:
    """Networks of timm, their feature maps."""
    timm = import_module("timm")
    rgb = noise(1, 3, 32, 32)
    for name in (
        "resnet18",
        "convnext_atto",
        "mobilenetv3_small_050",
        "efficientnet_lite0",
        "regnetx_002",
        "densenet121",
    ):
        yield (
            f"timm {name}",
            Row(
                lambda name=name: timm.create_model(name, features_only=True, out_indices=(1,)),
                rgb,
                features(3),
            ),
        )
    vit: dict[str, Any] = {
        "img_size": 16,
        "patch_size": 4,
        "embed_dim": 16,
        "depth": 2,
        "num_heads": 2,
    }
    small = noise(1, 3, 16, 16)
    transformer = import_module("timm.models.vision_transformer").VisionTransformer
    yield (
        "timm ViT",
        Row(lambda: transformer(**vit, num_classes=0, global_pool=""), small, tokens(4, 1)),
    )
    mixer = import_module("timm.models.mlp_mixer")
    yield (
        "timm gMLP",
        Row(
            lambda: mixer.MlpMixer(
                img_size=16,
                patch_size=4,
                embed_dim=16,
                num_blocks=2,
                block_layer=mixer.SpatialGatingBlock,
                mlp_layer=import_module("timm.layers").GatedMlp,
                mlp_ratio=2,
                num_classes=0,
                global_pool="",
            ),
            small,
            tokens(4),
        ),
    )
    yield (
        "timm MLP-Mixer",
        Row(
            lambda: mixer.MlpMixer(
                img_size=16, patch_size=4, embed_dim=16, num_blocks=2, num_classes=0, global_pool=""
            ),
            small,
            tokens(4),
        ),
    )
    swin = import_module("timm.models.swin_transformer").SwinTransformer
    yield (
        "timm Swin",
        Row(
            lambda: swin(
                img_size=16,
                patch_size=2,
                embed_dim=8,
                depths=(2,),
                num_heads=(2,),
                window_size=4,
                num_classes=0,
                global_pool="",
            ),
            small,
            lambda out: out.permute(0, 3, 1, 2)[:, :3],
        ),
    )


def segmentation_rows() -> Iterator[tuple[str, Row]]:
    """Networks of segmentation-models-pytorch."""
    smp = import_module("segmentation_models_pytorch")
    rgb = noise(1, 3, 32, 32)
    shallow = {"encoder_depth": 3, "decoder_channels": (32, 16, 8)}
    options: dict[str, dict[str, Any]] = dict.fromkeys(("Unet", "UnetPlusPlus", "MAnet"), shallow)
    options["PAN"] = {"encoder_depth": 3, "decoder_channels": 8}
    names = "Unet UnetPlusPlus FPN Linknet PSPNet DeepLabV3 DeepLabV3Plus MAnet PAN"
    for name in names.split():
        side = rgb if name != "PAN" else noise(1, 3, 64, 64)

        def build(name: str = name) -> nn.Module:
            given = {"encoder_weights": None, "classes": 3, **options.get(name, {})}
            made: nn.Module = getattr(smp, name)("resnet18", **given)
            return made

        yield f"smp {name}", Row(build, side, iterations=12)


def monai_rows() -> Iterator[tuple[str, Row]]:
    """Networks of monai."""
    nets = import_module("monai.networks.nets")
    rgb = noise(1, 3, 32, 32)
    plane = {"spatial_dims": 2, "in_channels": 3, "out_channels": 3}
    yield (
        "monai UNet",
        Row(lambda: nets.UNet(**plane, channels=(8, 16, 32), strides=(2, 2), num_res_units=1), rgb),
    )
    yield (
        "monai BasicUNet",
        Row(lambda: nets.BasicUNet(**plane, features=(8, 8, 16, 16, 32, 8)), rgb),
    )
    yield (
        "monai AttentionUnet",
        Row(lambda: nets.AttentionUnet(**plane, channels=(8, 16), strides=(2,)), rgb),
    )
    yield (
        "monai SegResNet",
        Row(
            lambda: nets.SegResNet(**plane, init_filters=8, blocks_down=(1, 1), blocks_up=(1,)), rgb
        ),
    )
    yield (
        "monai 3D UNet",
        Row(lambda: nets.UNet(3, 1, 1, channels=(4, 8), strides=(2,)), noise(1, 1, 8, 8, 8)),
    )
    yield (
        "monai SwinUNETR",
        Row(
            lambda: nets.SwinUNETR(
                in_channels=3,
                out_channels=3,
                feature_size=12,
                depths=(1, 1, 1, 1),
                num_heads=(2, 2, 2, 2),
                spatial_dims=2,
            ),
            noise(1, 3, 64, 64),  # a smaller one leaves its last layer a single pixel
            iterations=12,
        ),
    )


def other_rows() -> Iterator[tuple[str, Row]]:
    """Coordinate networks and transformers of lucidrains."""
    siren = import_module("siren_pytorch")
    yield (
        "siren-pytorch",
        Row(
            lambda: siren.SirenWrapper(
                siren.SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=2),
                image_width=12,
                image_height=12,
                latent_dim=8,
            ),
            {"latent": noise(8)},
        ),
    )
    x = import_module("x_transformers")
    for flash in (False, True):
        yield (
            f"x-transformers ViT, flash {flash}",
            Row(
                lambda flash=flash: x.ContinuousTransformerWrapper(
                    dim_in=6,
                    dim_out=3,
                    max_seq_len=64,
                    attn_layers=x.Encoder(
                        dim=16, depth=2, heads=2, attn_dim_head=8, attn_flash=flash
                    ),
                ),
                noise(1, 64, 6),
                lambda out: out.transpose(1, 2).unflatten(2, (8, 8)),
            ),
        )


LIBRARIES = (
    deepinv_rows,
    diffusers_rows,
    timm_rows,
    segmentation_rows,
    monai_rows,
    other_rows,
)
