"""The MLP-Mixer against a plain evaluation in NumPy, its symmetries, and its shapes."""

import math
import random

import numpy as np
import pytest
import torch
from scipy.special import erf
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.networks.mixer import MLPMixer

PATCH = 3
TINY = {
    "channels": 2,
    "code_channels": 5,
    "patch_size": PATCH,
    "width": 8,
    "depth": 2,
    "token_mlp_width": 7,
    "channel_mlp_width": 11,
}


def draw_image_size(seed: int) -> tuple[int, int]:
    """Draw a non-square size with a part of a patch along both axes."""
    rng = random.Random(seed)
    rows, columns = rng.sample(range(1, 6), 2)
    return rows * PATCH + rng.randrange(1, PATCH), columns * PATCH + rng.randrange(1, PATCH)


def make_network(image_size: tuple[int, int], seed: int, **settings: object) -> MLPMixer:
    """Make a tiny network in float64 with no parameter at a special value."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MLPMixer(image_size, **{**TINY, **settings}).double()
        for parameter in network.parameters():
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return network


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def reference(network: MLPMixer, code: Tensor) -> np.ndarray:
    """Evaluate the mixer in NumPy, token by token where it says so in the paper."""
    p = {name: value.detach().numpy() for name, value in network.named_parameters()}

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * p[f"{name}.weight"] + p[f"{name}.bias"]

    def gelu(x: np.ndarray) -> np.ndarray:
        return x * (1 + erf(x / math.sqrt(2))) / 2

    z = code.numpy()[0]
    height, width = z.shape[1:]
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    z = np.pad(z, [(0, 0), (0, rows * PATCH - height), (0, columns * PATCH - width)], mode="edge")
    tokens = np.empty((rows * columns, len(p["embed.bias"])))
    for row, column in np.ndindex(rows, columns):
        window = z[:, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)]
        tokens[row * columns + column] = (
            np.einsum("dcij,cij->d", p["embed.weight"], window) + p["embed.bias"]
        )
    for block in range(TINY["depth"]):
        name = f"blocks.{block}"
        first, second = (f"{name}.token_mixing.{layer}" for layer in (0, 2))
        hidden = np.einsum("ht,td->hd", p[f"{first}.weight"], norm(tokens, f"{name}.norm1"))
        hidden = gelu(hidden + p[f"{first}.bias"][:, None])
        tokens = tokens + np.einsum("th,hd->td", p[f"{second}.weight"], hidden)
        tokens = tokens + p[f"{second}.bias"][:, None]
        first, second = (f"{name}.channel_mixing.{layer}" for layer in (0, 2))
        hidden = norm(tokens, f"{name}.norm2") @ p[f"{first}.weight"].T + p[f"{first}.bias"]
        tokens = tokens + gelu(hidden) @ p[f"{second}.weight"].T + p[f"{second}.bias"]
    patches = norm(tokens, "norm") @ p["decoder.weight"].T + p["decoder.bias"]
    image = np.empty((TINY["channels"], rows * PATCH, columns * PATCH))
    for row, column in np.ndindex(rows, columns):
        patch = patches[row * columns + column].reshape(-1, PATCH, PATCH)
        image[:, PATCH * row : PATCH * (row + 1), PATCH * column : PATCH * (column + 1)] = patch
    return image[:, :height, :width]


@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_mixer_of_the_paper(seed: int) -> None:
    image_size = draw_image_size(seed)
    network, code = make_network(image_size, seed), draw(1, 5, *image_size, seed=seed)
    # float64; only the order of sums of some 10^2 terms differs.
    np.testing.assert_allclose(
        network(code).detach().numpy()[0], reference(network, code), rtol=1e-12, atol=1e-12
    )


def test_parameter_count_of_the_published_vit_without_attention() -> None:
    with torch.device("meta"):  # shapes without numbers
        network = MLPMixer((512, 512))
    tokens, width, hidden, patch = 256, 192, 192, 3 * 32 * 32
    block = 2 * 2 * width  # two normalisations
    block += (tokens + 1) * hidden + (hidden + 1) * tokens
    block += (width + 1) * hidden + (hidden + 1) * width
    expected = (patch + 1) * width + 5 * block + 2 * width + (width + 1) * patch
    assert sum(p.numel() for p in network.parameters()) == expected == 2_051_456


def test_the_channel_mixing_acts_on_each_token_alone_and_the_token_mixing_on_all() -> None:
    network = make_network((9, 14), seed=0)
    block, tokens = network.blocks[0], draw(1, 15, 8, seed=1)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(2))
    mixed = block.channel_mixing(block.norm2(tokens))
    moved = block.channel_mixing(block.norm2(tokens[:, order]))
    # float64; a matrix product may sum the rows of a block in another order.
    torch.testing.assert_close(moved, mixed[:, order], rtol=1e-12, atol=1e-13)
    # Every token of the output depends on every token of the input, unlike in a convolution.
    jacobian = torch.func.jacrev(block)(tokens)[0, :, :, 0]  # (token, channel, token, channel)
    assert (jacobian.abs().amax(dim=(1, 3)) > 1e-6).all()
    # And their order matters, unlike in attention without positions.
    assert (block(tokens[:, order]) - block(tokens)[:, order]).abs().max() > 0.1


def test_initialisation() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MLPMixer((40, 56), patch_size=4)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert torch.count_nonzero(parameter) == 0, name
        elif "norm" in name:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            # The smallest has 9216 entries: a relative standard error of 0.7%; four of them.
            deviation = parameter[0].numel() ** -0.5
            assert parameter.std().item() == pytest.approx(deviation, rel=0.03), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_a_function_of_its_parameters_alone(dtype: torch.dtype) -> None:
    network, code = make_network((9, 14), seed=0).to(dtype), draw(1, 5, 9, 14, seed=0).to(dtype)
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}
    image = network.train()(code)
    assert torch.equal(image, network.eval()(code))
    assert image.dtype == dtype


def test_no_tensor_is_made_elsewhere_than_on_the_device_of_the_network() -> None:
    with torch.device("meta"):
        network, code = MLPMixer((300, 500)), torch.empty(1, 3, 300, 500)
    image = network(code)  # a tensor made on the CPU would not combine with these
    assert (image.shape, image.device.type) == ((1, 3, 300, 500), "meta")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width is 0; expected at least 1"),
        ({"depth": 0}, "depth is 0"),
        ({"token_mlp_width": 0}, "token_mlp_width is 0"),
        ({"channel_mlp_width": -1}, "channel_mlp_width is -1"),
        ({"patch_size": 0}, "patch_size is 0"),
        ({"image_size": (2, 9)}, r"image_size is \(2, 9\); .* at least patch_size = 3"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        MLPMixer(**{"image_size": (9, 14), **TINY, **settings})


def test_a_code_of_another_shape_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"this network expects \(1, 5, 9, 14\)"):
        make_network((9, 14), seed=0)(torch.zeros(1, 5, 14, 9, dtype=torch.float64))


def test_the_registered_prior_has_the_patches_of_the_vit() -> None:
    for size in ((64, 64), (300, 410)):
        mixer, vit = (networks.entry(name).builder(size, 3) for name in ("mixer", "vit"))
        with torch.device("meta"):
            assert mixer.factory().patch_size == vit.factory().patch_size
        assert mixer.code_shape == vit.code_shape == (3, *size)
