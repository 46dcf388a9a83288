"""The Vision Transformer against Hugging Face's, and its shapes."""

import random

import pytest
import torch
from torch import Tensor, nn

from dipkernels.networks.vit import VisionTransformer

PATCH = 4
TINY = {
    "channels": 2,
    "code_channels": 5,
    "patch_size": PATCH,
    "width": 12,
    "depth": 2,
    "heads": 3,
    "mlp_width": 20,
}


def draw_image_size(seed: int, *, whole_patches: bool, patch: int = PATCH) -> tuple[int, int]:
    """Draw a non-square size, of whole patches or with a part of one along both axes."""
    rng = random.Random(seed)
    rows, columns = rng.sample(range(1, 6), 2)
    if whole_patches:
        return rows * patch, columns * patch
    return rows * PATCH + rng.randrange(1, PATCH), columns * PATCH + rng.randrange(1, PATCH)


def make_network(image_size: tuple[int, int], seed: int, **settings: object) -> VisionTransformer:
    """Make a tiny network in float64 with no parameter at a special value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = VisionTransformer(image_size, **{**TINY, **settings}).double()
        for parameter in network.parameters():
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return network


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_parameter_count_of_the_report() -> None:
    with torch.device("meta"):  # shapes without numbers
        network = VisionTransformer((512, 512))
    # facts.md: 2,541,352 less the 1000-class head on 192 channels and its biases.
    assert sum(p.numel() for p in network.parameters()) == 2_348_352 == 2_541_352 - 193 * 1000


def test_no_tensor_is_made_elsewhere_than_on_the_device_of_the_network() -> None:
    with torch.device("meta"):
        network, code = VisionTransformer((300, 500)), torch.empty(1, 3, 300, 500)
    image = network(code)  # a tensor made on the CPU would not combine with these
    assert image.shape == (1, 3, 300, 500)
    assert image.device.type == "meta"


def test_initialisation_is_that_of_torchvision() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VisionTransformer((96, 160), depth=1)
    block = network.blocks[0]
    for zero in (
        network.class_token,
        network.embed.bias,
        block.attention.qkv.bias,
        block.attention.projection.bias,
    ):
        assert torch.count_nonzero(zero) == 0
    expected_deviations = [
        (network.embed.weight, (3 * 32 * 32) ** -0.5),
        (network.position, 0.02),
        (block.attention.qkv.weight, (2 / (192 + 3 * 192)) ** 0.5),  # Xavier, one fused matrix
        (block.attention.projection.weight, (3 * 192) ** -0.5),  # nn.Linear's uniform(+-n^-1/2)
        (block.expand.weight, (2 / (192 + 192)) ** 0.5),
        (block.contract.weight, (2 / (192 + 192)) ** 0.5),
        (network.decoder.weight, (3 * 192) ** -0.5),
    ]
    for weight, deviation in expected_deviations:
        # The smallest has 3072 entries: a relative standard error of at most 1.3%; four of them.
        assert weight.std().item() == pytest.approx(deviation, rel=0.052)
    for bias in (block.expand.bias, block.contract.bias):
        assert 0 < bias.abs().max() < 1e-5


# Hugging Face's "eager" takes the softmax in float32 whatever the dtype (errors near 1e-7);
# "sdpa" stays in float64, where only the order of sums differs.
@pytest.mark.parametrize(("implementation", "tolerance"), [("eager", 1e-5), ("sdpa", 1e-12)])
@pytest.mark.parametrize(("seed", "patch"), [(0, 4), (1, 3), (2, 7)])
def test_encoder_equals_hugging_face(
    seed: int, patch: int, implementation: str, tolerance: float
) -> None:
    # Its modules have these names since version 5.
    transformers = pytest.importorskip("transformers", minversion="5")
    image_size = draw_image_size(seed, whole_patches=True, patch=patch)
    config = transformers.ViTConfig(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-6,
        image_size=image_size,
        patch_size=patch,
        num_channels=5,
        attn_implementation=implementation,
    )
    reference = transformers.ViTModel(config, add_pooling_layer=False).double().eval()
    network = make_network(image_size, seed, patch_size=patch)
    copy_encoder(network, reference)
    decoder_parameters = sum(p.numel() for p in network.decoder.parameters())
    assert sum(p.numel() for p in reference.parameters()) == (
        sum(p.numel() for p in network.parameters()) - decoder_parameters
    )

    code = draw(1, 5, *image_size, seed=seed)
    encoded: list[Tensor] = []
    network.norm.register_forward_hook(lambda module, args, output: encoded.append(output))
    with torch.no_grad():
        image = network(code)
        expected = reference(code).last_hidden_state
        torch.testing.assert_close(encoded[0], expected, rtol=0, atol=tolerance)
        # The decoder: each token but the class token becomes a patch, folded into the image.
        patches = network.decoder(expected[:, 1:]).transpose(1, 2)
        folded = nn.functional.fold(patches, image_size, kernel_size=patch, stride=patch)
    torch.testing.assert_close(image, folded, rtol=0, atol=tolerance)


def copy_encoder(network: VisionTransformer, reference: nn.Module) -> None:
    """Give a Hugging Face ViTModel the network's weights: the network's are generic, its aren't."""
    state = {
        "embeddings.cls_token": network.class_token,
        "embeddings.position_embeddings": network.position,
        "embeddings.patch_embeddings.projection.weight": network.embed.weight,
        "embeddings.patch_embeddings.projection.bias": network.embed.bias,
        "layernorm.weight": network.norm.weight,
        "layernorm.bias": network.norm.bias,
    }
    for index, block in enumerate(network.blocks):
        for kind in ("weight", "bias"):
            qkv = getattr(block.attention.qkv, kind).chunk(3)
            tensors = {
                "layernorm_before": getattr(block.norm1, kind),
                "layernorm_after": getattr(block.norm2, kind),
                "attention.q_proj": qkv[0],
                "attention.k_proj": qkv[1],
                "attention.v_proj": qkv[2],
                "attention.o_proj": getattr(block.attention.projection, kind),
                "mlp.fc1": getattr(block.expand, kind),
                "mlp.fc2": getattr(block.contract, kind),
            }
            state |= {f"layers.{index}.{name}.{kind}": value for name, value in tensors.items()}
    reference.load_state_dict(state, strict=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_any_size_is_padded_and_cropped(seed: int, dtype: torch.dtype) -> None:
    height, width = image_size = draw_image_size(seed, whole_patches=False)
    padded_size = (-(-height // PATCH) * PATCH, -(-width // PATCH) * PATCH)
    network = make_network(image_size, seed).to(dtype)
    whole = VisionTransformer(padded_size, **TINY).to(dtype)
    whole.load_state_dict(network.state_dict())  # as many tokens, so the same parameters

    code = draw(1, 5, *image_size, seed=seed).to(dtype)
    padded = code[:, :, torch.arange(padded_size[0]).clamp(max=height - 1)]
    padded = padded[..., torch.arange(padded_size[1]).clamp(max=width - 1)]
    with torch.no_grad():
        image, expected = network(code), whole(padded)[..., :height, :width]
    assert image.shape == (1, TINY["channels"], height, width)
    assert image.dtype == dtype
    # The same sums of some 10^2 terms, which a processor may take in another order.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(image, expected, rtol=0, atol=tolerance)


def test_it_is_a_function_of_its_parameters_alone() -> None:
    network = make_network((9, 14), seed=0)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    code = draw(1, 5, 9, 14, seed=0)
    assert torch.equal(network.train()(code), network.eval()(code))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 10}, "tokens of width 10 have 3 heads"),
        ({"heads": 0}, "tokens of width 12 have 0 heads"),
        ({"width": 0}, "tokens of width 0"),
        ({"patch_size": 0}, "patch_size is 0; expected at least 1"),
        ({"depth": 0}, "depth is 0; expected at least 1"),
        ({"mlp_width": 0}, "mlp_width is 0"),
        ({"channels": 0}, "channels is 0"),
        ({"code_channels": -1}, "code_channels is -1"),
        ({"image_size": (3, 9)}, r"image_size is \(3, 9\); .* at least patch_size = 4"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisionTransformer(**{"image_size": (9, 14), **TINY, **settings})


@pytest.mark.parametrize("shape", [(1, 5, 14, 9), (1, 4, 9, 14)])
def test_a_code_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"this network expects \(1, 5, 9, 14\)"):
        make_network((9, 14), seed=0)(torch.zeros(shape, dtype=torch.float64))
