"""Small networks of Hugging Face, each with its code: rows of `foreign_networks.py`."""

from collections.abc import Iterator
from importlib import import_module

from foreign_rows import Row, noise, tokens


def transformers_rows() -> Iterator[tuple[str, Row]]:
    """Networks of Hugging Face."""
    hf = import_module("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = small | {"intermediate_size": 32, "image_size": 16, "patch_size": 4}
    rgb = noise(1, 3, 16, 16)
    yield (
        "HF ViT",
        Row(
            lambda: hf.ViTModel(hf.ViTConfig(**vision), add_pooling_layer=False), rgb, tokens(4, 1)
        ),
    )
    yield (
        "HF DeiT",
        Row(
            lambda: hf.DeiTModel(hf.DeiTConfig(**vision), add_pooling_layer=False),
            rgb,
            tokens(4, 2),
        ),
    )
    yield (
        "HF ViTMAE decoder",
        Row(
            lambda: hf.ViTForMaskedImageModeling(hf.ViTConfig(**vision, encoder_stride=4)),
            rgb,
            lambda out: out.reconstruction,
        ),
    )
    yield (
        "HF Dinov2",
        Row(
            lambda: hf.Dinov2Model(hf.Dinov2Config(**small, image_size=16, patch_size=4)),
            rgb,
            tokens(4, 1),
        ),
    )
    yield (
        "HF CLIP vision",
        Row(lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**vision)), rgb, tokens(4, 1)),
    )
    yield (
        "HF SigLIP vision",
        Row(lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**vision)), rgb, tokens(4)),
    )
    yield (
        "HF BEiT",
        Row(
            lambda: hf.BeitModel(hf.BeitConfig(**vision), add_pooling_layer=False),
            rgb,
            tokens(4, 1),
        ),
    )
    swin = {
        "image_size": 16,
        "patch_size": 2,
        "embed_dim": 8,
        "depths": [2, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    }
    yield (
        "HF Swin",
        Row(
            lambda: hf.SwinForMaskedImageModeling(hf.SwinConfig(**swin, encoder_stride=4)),
            rgb,
            lambda out: out.reconstruction,
        ),
    )
    yield (
        "HF Swinv2",
        Row(
            lambda: hf.Swinv2ForMaskedImageModeling(hf.Swinv2Config(**swin, encoder_stride=4)),
            rgb,
            lambda out: out.reconstruction,
        ),
    )
    yield (
        "HF Swin2SR",
        Row(
            lambda: hf.Swin2SRForImageSuperResolution(
                hf.Swin2SRConfig(
                    image_size=16,
                    patch_size=1,
                    embed_dim=8,
                    depths=[1],
                    num_heads=[2],
                    window_size=4,
                    upscale=2,
                )
            ),
            rgb,
            lambda out: out.reconstruction,
        ),
    )
    yield (
        "HF SegFormer",
        Row(
            lambda: hf.SegformerForSemanticSegmentation(
                hf.SegformerConfig(
                    hidden_sizes=[8, 8, 16, 16],
                    depths=[1, 1, 1, 1],
                    num_attention_heads=[1, 1, 2, 2],
                    decoder_hidden_size=16,
                    num_labels=3,
                )
            ),
            noise(1, 3, 32, 32),
            lambda out: out.logits,
        ),
    )
    yield (
        "HF DPT",
        Row(
            lambda: hf.DPTForDepthEstimation(
                hf.DPTConfig(
                    **vision | {"num_hidden_layers": 4},
                    backbone_out_indices=[0, 1, 2, 3],
                    neck_hidden_sizes=[8, 8, 8, 8],
                    fusion_hidden_size=8,
                    is_hybrid=False,
                    readout_type="ignore",
                )
            ),
            rgb,
            lambda out: out.predicted_depth[:, None],
        ),
    )
    yield (
        "HF ConvNeXt",
        Row(
            lambda: hf.ConvNextModel(
                hf.ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], patch_size=2)
            ),
            noise(1, 3, 32, 32),
            lambda out: out.last_hidden_state[:, :3],
        ),
    )
    yield (
        "HF ResNet",
        Row(
            lambda: hf.ResNetModel(
                hf.ResNetConfig(
                    embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
                )
            ),
            noise(1, 3, 32, 32),
            lambda out: out.last_hidden_state[:, :3],
        ),
    )
    yield (
        "HF GLPN",
        Row(
            lambda: hf.GLPNForDepthEstimation(
                hf.GLPNConfig(
                    hidden_sizes=[8, 8, 16, 16],
                    depths=[1, 1, 1, 1],
                    num_attention_heads=[1, 1, 2, 2],
                    decoder_hidden_size=8,
                )
            ),
            noise(1, 3, 32, 32),
            lambda out: out.predicted_depth[:, None],
        ),
    )
