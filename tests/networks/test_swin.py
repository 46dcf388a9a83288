"""The Swin Transformer against Hugging Face's, its derivatives, and its shapes."""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap

from dipkernels import networks
from dipkernels.networks.swin import SwinTransformer

PATCH = 2
STRIDE = 4  # of two stages
TINY = {
    "channels": 2,
    "code_channels": 5,
    "patch_size": PATCH,
    "width": 6,
    "depths": (2, 3),
    "heads": (2, 3),
    "window": 3,
    "mlp_ratio": 1.5,
}

# Window; one side of the last stage's grid; choices for its other side. The first stage's grid is
# twice as large. A window shrinks, and is not shifted, where it is not smaller than the grid.
GRIDS = {
    "windows tile both grids": (2, 4, [6, 8]),
    "grids are no multiple of the window": (3, 4, [5, 7]),
    "the window shrinks in the last stage": (5, 3, [4, 6]),
    "the window is the last stage's grid": (4, 4, [5, 6]),
    "the window is the first stage's grid": (4, 2, [3, 5]),
    "the window shrinks in both stages": (9, 2, [3, 4]),
    "a grid of one row": (7, 1, [6, 9]),
}


def draw_image_size(seed: int, short: int, others: list[int]) -> tuple[int, int]:
    """Draw a size whose last grid is `short` by one of `others`, standing or lying."""
    rng = random.Random(seed)
    rows, columns = rng.sample([short, rng.choice(others)], 2)
    return rows * STRIDE, columns * STRIDE


def make_network(image_size: tuple[int, int], seed: int, **settings: object) -> SwinTransformer:
    """Make a tiny network in float64 with no parameter at a special value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = SwinTransformer(image_size, **{**TINY, **settings}).double()
        for parameter in network.parameters():
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return network


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def as_function_of_a_vector(
    network: nn.Module, code: Tensor
) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return the image as a pure function of all parameters in one vector, and that vector."""
    parameters = dict(network.named_parameters())

    def image(vector: Tensor) -> Tensor:
        parts = vector.split([value.numel() for value in parameters.values()])
        values = {k: part.view_as(parameters[k]) for k, part in zip(parameters, parts, strict=True)}
        return functional_call(network, values, (code,))

    return image, nn.utils.parameters_to_vector(parameters.values()).detach()


def test_parameter_count_of_the_report() -> None:
    with torch.device("meta"):  # shapes without numbers
        network = SwinTransformer((512, 512))
    # facts.md: 62,792,112 less the mask token of 192 channels.
    assert sum(p.numel() for p in network.parameters()) == 62_791_920 == 62_792_112 - 192


def test_no_tensor_is_made_elsewhere_than_on_the_device_of_the_network() -> None:
    with torch.device("meta"):
        network, code = SwinTransformer((300, 500)), torch.empty(1, 3, 300, 500)
    image = network(code)  # a tensor made on the CPU would not combine with these
    assert image.shape == (1, 3, 300, 500)
    assert image.device.type == "meta"


def test_initialisation_is_that_of_hugging_face() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = SwinTransformer((17, 30), patch_size=4, width=64, depths=(2, 2), heads=(4, 4))
    for name, parameter in network.named_parameters():
        if name.endswith("bias") or "bias_table" in name:
            assert torch.count_nonzero(parameter) == 0, name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            # The smallest has 3072 entries: a relative standard error of 1.3%; four of them.
            assert parameter.std().item() == pytest.approx(0.02, rel=0.052), name


def reference_for(
    network: SwinTransformer, image_size: object, patch: int = PATCH, **settings: object
) -> nn.Module:
    """Make Hugging Face's network with the weights of ours."""
    # Its modules have these names since version 5.
    transformers = pytest.importorskip("transformers", minversion="5")
    from transformers.models.swin.modeling_swin import SwinRelativePositionBias

    config = transformers.SwinConfig(
        image_size=image_size,
        patch_size=patch,
        num_channels=5,
        embed_dim=6,
        depths=(2, 3),
        num_heads=(2, 3),
        mlp_ratio=1.5,
        qkv_bias=True,
        hidden_act="gelu",
        drop_path_rate=0.0,
        layer_norm_eps=1e-5,
        encoder_stride=2 * patch,
        **settings,
    )
    reference = transformers.SwinForMaskedImageModeling(config)
    # Our code and image may differ in channels; Hugging Face's can't.
    reference.decoder[0] = nn.Conv2d(12, 2 * (2 * patch) ** 2, kernel_size=1)

    state = {
        "swin.embeddings.mask_token": torch.zeros(1, 1, 6),
        "swin.embeddings.patch_embeddings.projection": network.embed,
        "swin.embeddings.norm": network.embed_norm,
        "swin.layernorm": network.norm,
        "decoder.0": network.decoder,
    }
    for stage_index, stage in enumerate(network.stages):
        layers = list(stage)
        if stage_index:  # Hugging Face's stage ends with the merging, ours begins with it
            merging = layers.pop(0)
            name = f"swin.encoder.layers.{stage_index - 1}.downsample"
            state |= {f"{name}.norm": merging.norm, f"{name}.reduction": merging.reduction}
        for block_index, block in enumerate(layers):
            name = f"swin.encoder.layers.{stage_index}.blocks.{block_index}"
            windows = block.attention
            # Where it shrinks a window, Hugging Face (5.23) forgets to shrink the table of biases
            # and fails; Liu et al.'s own code makes the smaller table.
            side = windows.window
            reference.get_submodule(
                f"{name}.attention"
            ).relative_position_bias = SwinRelativePositionBias(
                windows.bias_table.shape[1], (side, side)
            )
            table = "attention.relative_position_bias.relative_position_bias_table"
            state |= {
                f"{name}.layernorm_before": block.norm1,
                f"{name}.layernorm_after": block.norm2,
                f"{name}.{table}": windows.bias_table.detach(),
                f"{name}.attention.o_proj": windows.attention.projection,
                f"{name}.mlp.fc1": block.expand,
                f"{name}.mlp.fc2": block.contract,
            }
            for kind in ("weight", "bias"):
                thirds = getattr(windows.attention.qkv, kind).detach().chunk(3)
                for letter, third in zip("qkv", thirds, strict=True):
                    state[f"{name}.attention.{letter}_proj.{kind}"] = third
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, nn.Module):
            tensors |= {f"{name}.{key}": tensor for key, tensor in value.state_dict().items()}
        else:
            tensors[name] = value
    reference = reference.double().eval()  # before loading, lest the weights be rounded
    tensors["decoder.0.weight"] = tensors["decoder.0.weight"][..., None, None]  # 1 x 1 convolution
    reference.load_state_dict(tensors, strict=True)
    return reference


# Hugging Face's "eager" takes the softmax in float32 whatever the dtype (errors near 1e-7);
# "sdpa" stays in float64, where only the order of sums differs.
@pytest.mark.parametrize(("implementation", "tolerance"), [("eager", 1e-5), ("sdpa", 1e-12)])
@pytest.mark.parametrize("case", GRIDS)
def test_network_equals_hugging_face(case: str, implementation: str, tolerance: float) -> None:
    window, *grid = GRIDS[case]
    image_size = draw_image_size(list(GRIDS).index(case), *grid)
    network = make_network(image_size, seed=1, window=window)
    reference = reference_for(
        network, image_size, window_size=window, attn_implementation=implementation
    )
    code = draw(1, 5, *image_size, seed=2)
    with torch.no_grad():
        image = network(code)
        # Its own decoding assumes a square grid; these two lines are it for any.
        tokens = reference.swin(code).last_hidden_state.transpose(1, 2)
        rows, columns = (side // STRIDE for side in image_size)
        expected = reference.decoder(tokens.unflatten(2, (rows, columns)))
    torch.testing.assert_close(image, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("patch", [2, 3])
@pytest.mark.parametrize(("implementation", "tolerance"), [("eager", 1e-5), ("sdpa", 1e-12)])
def test_square_image_equals_the_reconstruction_of_hugging_face(
    implementation: str, tolerance: float, patch: int
) -> None:
    side = 10 * patch
    network = make_network((side, side), seed=3, patch_size=patch)
    reference = reference_for(
        network, side, patch, window_size=3, attn_implementation=implementation
    )
    code = draw(1, 5, side, side, seed=4)
    with torch.no_grad():
        image, expected = network(code), reference(code).reconstruction
    torch.testing.assert_close(image, expected, rtol=0, atol=tolerance)


def test_derivatives_are_adjoint() -> None:
    image_size = (15, 22)  # padded to 16 x 24; the first stage pads its windows and shifts them
    code = draw(1, 5, *image_size, seed=4)
    network = make_network(image_size, seed=4, depths=(2, 1))
    image, parameters = as_function_of_a_vector(network, code)
    tangent = draw(len(parameters), seed=5)
    output, pushed = jvp(image, (parameters,), (tangent,))
    cotangent = draw(*output.shape, seed=6)
    (pulled,) = vjp(image, parameters)[1](cotangent)
    left, right = torch.sum(cotangent * pushed).item(), torch.dot(pulled, tangent).item()
    assert left == pytest.approx(right, rel=1e-12)

    # And it is the derivative: central differences err by the order of step^2.
    step = 1e-5
    difference = image(parameters + step * tangent) - image(parameters - step * tangent)
    assert torch.linalg.norm(difference / (2 * step) - pushed) < 1e-6 * torch.linalg.norm(pushed)


def test_vmap_over_parameters_equals_separate_runs() -> None:
    image_size = (15, 22)
    code = draw(1, 5, *image_size, seed=7)
    networks = [make_network(image_size, seed) for seed in (8, 9)]
    functions = [as_function_of_a_vector(network, code) for network in networks]
    image = functions[0][0]
    stacked = torch.stack([parameters for _, parameters in functions])
    tangents = draw(*stacked.shape, seed=10)

    def push(parameters: Tensor, tangent: Tensor) -> Tensor:
        return jvp(image, (parameters,), (tangent,))[1]

    images, pushed = vmap(image)(stacked), vmap(push)(stacked, tangents)
    for index, network in enumerate(networks):
        # float64; only the order of sums differs.
        torch.testing.assert_close(images[index], network(code), rtol=1e-12, atol=1e-12)
        separate = push(stacked[index], tangents[index])
        torch.testing.assert_close(pushed[index], separate, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", range(3))
def test_any_size_is_padded_and_cropped(seed: int, dtype: torch.dtype) -> None:
    rng = random.Random(seed)
    rows, columns = rng.sample(range(1, 6), 2)
    padded_size = rows * STRIDE, columns * STRIDE
    # Down to one patch, half a stride.
    height, width = image_size = tuple(side - rng.randrange(1, PATCH + 1) for side in padded_size)
    network = make_network(image_size, seed).to(dtype)
    whole = SwinTransformer(padded_size, **TINY).to(dtype)
    whole.load_state_dict(network.state_dict())

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


def test_mlp_ratio_of_the_registered_prior() -> None:
    def count(**options: object) -> int:
        with torch.device("meta"):
            module = networks.entry("swin").builder((32, 48), 3, **options).factory()
        return sum(p.numel() for p in module.parameters())

    # Each of (2, 2, 6, 2) blocks has two maps of w to ratio * w channels and back, and a bias.
    widths = [192] * 2 + [384] * 2 + [768] * 6 + [1536] * 2
    more = sum(2 * 3 * width**2 + 3 * width for width in widths)
    assert count(mlp_ratio=4.0) - count() == more


def test_it_is_a_function_of_its_parameters_alone() -> None:
    network = make_network((15, 22), seed=0)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    assert any("regions" in name for name, _ in network.named_buffers())  # some window is shifted
    code = draw(1, 5, 15, 22, seed=0)
    assert torch.equal(network.train()(code), network.eval()(code))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": (2, 5)}, "tokens of width 12 have 5 heads"),
        ({"heads": (0, 3)}, "tokens of width 6 have 0 heads"),
        ({"width": 0}, "expected at least 1"),
        ({"heads": (2,)}, r"depths is \(2, 3\) and heads is \(2,\); .* the same length"),
        ({"depths": (), "heads": ()}, r"depths is \(\)"),
        ({"depths": (2, 0)}, r"depths is \(2, 0\)"),
        ({"patch_size": 0}, "patch_size is 0; expected at least 1"),
        ({"window": 0}, "window is 0"),
        ({"mlp_ratio": 0.1}, r"mlp_ratio \* 6 is 0; expected at least 1"),
        ({"channels": 0}, "channels is 0"),
        ({"code_channels": -1}, "code_channels is -1"),
        ({"image_size": (1, 22)}, r"image_size is \(1, 22\); .* at least patch_size = 2"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SwinTransformer(**{"image_size": (15, 22), **TINY, **settings})


@pytest.mark.parametrize("shape", [(1, 5, 22, 15), (1, 4, 15, 22)])
def test_a_code_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"this network expects \(1, 5, 15, 22\)"):
        make_network((15, 22), seed=0)(torch.zeros(shape, dtype=torch.float64))
