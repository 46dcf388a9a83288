"""Convolutions before and after the vision transformer, against plain operations."""

import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.networks import ImagePrior
from dipkernels.networks.hybrids import ConvolutionStack

VIT = {"width": 12, "depth": 1, "heads": 3, "mlp_width": 10}
TOKEN_FAMILIES = ("vit", "swin", "mixer", "self-attention", "conv1-vit", "vit-conv3")


def make(name: str, **options: object) -> ImagePrior:
    prior = networks.create(
        name, image_size=(9, 14), channels=2, code_channels=5, output="none", **VIT, **options
    )
    return prior.to(dtype=torch.float64)


def convolve(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve 3 x 3 with reflection, as a sum over the nine shifts."""
    rows, columns = ([1, *range(n), n - 2] for n in x.shape[2:])
    padded = x[:, :, rows][..., columns]
    height, width = x.shape[2:]
    shifts = [
        torch.einsum("oc,bchw->bohw", weight[..., i, j], padded[..., i : i + height, j : j + width])
        for i in range(3)
        for j in range(3)
    ]
    return torch.stack(shifts).sum(0) + bias[:, None, None]


def part(parameters: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {k.removeprefix(f"{name}."): v for k, v in parameters.items() if k.startswith(name)}


@pytest.mark.parametrize(
    ("options", "kernels"),
    [
        ({}, [0, 0, 0]),
        ({"tied": True}, [0, 0, 0]),
        ({"tied": False}, [0, 1, 2]),
        ({"tied": False, "conv_channels": 4}, [0, 1, 2]),
        (None, [0]),
    ],
)
@pytest.mark.parametrize("before", [True, False])
def test_hybrids_compose_the_vit_with_convolutions(
    options: dict[str, object] | None, kernels: list[int], before: bool
) -> None:
    conv = f"conv{len(kernels)}"
    prior = make(f"{conv}-vit" if before else f"vit-{conv}", **(options or {}))
    plain = make("vit")
    parameters = prior.init(1)
    stack = part(parameters, "convolutions")
    assert len(stack) == 2 * len(set(kernels))
    if options and "conv_channels" in options:
        assert stack["layers.1.weight"].shape == (4, 4, 3, 3)

    def convolutions(x: Tensor) -> Tensor:
        for i, kernel in enumerate(kernels):
            x = x.clamp(min=0) if i else x
            x = convolve(x, stack[f"layers.{kernel}.weight"], stack[f"layers.{kernel}.bias"])
        return x

    if before:
        assert stack["layers.0.weight"].shape[1] == 5
        plain.code = convolutions(prior.code)
        expected = plain.image(part(parameters, "vit"))
    else:
        assert stack["layers.0.weight"].shape[1] == 2
        assert torch.equal(plain.code, prior.code)
        expected = convolutions(plain.image(part(parameters, "vit"))[None])[0]
    # float64; only the order of sums differs.
    torch.testing.assert_close(prior.image(parameters), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["conv3-vit", "vit-conv3"])
@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 84),  # facts.md: one convolution of 3 to 3 channels, applied three times
        ({"tied": False}, 3 * 84),
        ({"tied": False, "conv_channels": 8}, (27 + 1) * 8 + (72 + 1) * 8 + (72 + 1) * 3),
    ],
)
def test_parameter_counts_at_512_pixels(name: str, options: dict[str, object], count: int) -> None:
    recipe = networks.entry(name).builder((512, 512), 3, **options)
    with torch.device("meta"):  # shapes without numbers
        module = recipe.factory()
    assert sum(p.numel() for p in module.parameters()) == 2_348_352 + count
    assert [name for name, _ in module.named_children()] == (
        ["convolutions", "vit"] if name == "conv3-vit" else ["vit", "convolutions"]
    )


@pytest.mark.parametrize("name", ["conv1-vit", "vit-conv1"])
def test_one_convolution_has_no_options_of_its_own(name: str) -> None:
    recipe = networks.entry(name).builder((512, 512), 3)
    with torch.device("meta"):
        module = recipe.factory()
    assert sum(p.numel() for p in module.parameters()) == 2_348_352 + 84
    for option in ({"tied": True}, {"conv_channels": 8}):
        with pytest.raises(InvalidInputError, match=f"'{name}' has no option"):
            make(name, **option)


def test_options_of_the_vit_reach_it() -> None:
    for name in ("conv1-vit", "conv3-vit", "vit-conv1", "vit-conv3"):
        options = {"patch_size": 3, "width": 8, "depth": 2, "heads": 2, "mlp_width": 6}
        module = networks.entry(name).builder((9, 14), 1, code_channels=4, **options).factory()
        vit = module.get_submodule("vit")
        assert (vit.patch_size, vit.code_shape) == (3, (1, 4, 9, 14))
        assert (vit.norm.weight.numel(), len(vit.blocks)) == (8, 2)
        assert vit.blocks[0].attention.heads == 2
        assert vit.blocks[0].expand.out_features == 6


def test_tied_layers_are_one_and_initialised_as_torch_does() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        stack = ConvolutionStack(3, 3, tied=True)
        torch.manual_seed(3)
        layer = nn.Conv2d(3, 3, 3)
    assert [name for name, _ in stack.named_parameters()] == ["layers.0.weight", "layers.0.bias"]
    assert torch.equal(stack.layers[0].weight, layer.weight)
    assert torch.equal(stack.layers[0].bias, layer.bias)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 3, "tied": True, "conv_channels": 3}, "conv_channels=3 has no effect"),
        ({"count": 1, "tied": True}, "a single convolution has none to be tied to"),
        ({"count": 1, "conv_channels": 3}, "none to be tied to and no channels between"),
        ({"count": 0}, "count must be"),
        ({"count": 3, "conv_channels": 0}, "conv_channels must be"),
    ],
)
def test_options_without_effect_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ConvolutionStack(3, **arguments)


def test_channels_of_tied_convolutions_are_refused_by_name() -> None:
    with pytest.raises(InvalidInputError, match=r"conv_channels=8 has no effect.*tied=False"):
        make("vit-conv3", conv_channels=8)


@pytest.mark.parametrize("name", ["conv1-vit", "vit-conv3"])
def test_reflection_needs_two_pixels_even_where_a_patch_needs_one(name: str) -> None:
    networks.create(name, image_size=(2, 3), patch_size=1, **VIT)
    with pytest.raises(InvalidInputError, match=f"too small for '{name}', which needs at least 2"):
        networks.create(name, image_size=(1, 3), patch_size=1, **VIT)


@pytest.mark.parametrize("name", TOKEN_FAMILIES)
def test_signals_are_referred_to_the_convolutional_priors(name: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"'{name}' .* \(40,\): .* convolutional prior"):
        networks.entry(name).builder((40,), 1)
