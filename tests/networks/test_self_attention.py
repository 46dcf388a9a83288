"""Local self-attention against a loop over pixels and neighbours, and the hourglass made of it."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.networks.self_attention import LocalSelfAttention, SelfAttentionNet


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make_attention(in_channels: int, width: int, kernel: int, heads: int) -> LocalSelfAttention:
    """Make it in float64, with logits of order 1."""
    attention = LocalSelfAttention(in_channels, width, kernel, heads).double()
    state = {
        name: 0.7 * draw(*value.shape, seed=i)
        for i, (name, value) in enumerate(attention.named_parameters())
    }
    attention.load_state_dict(state)
    return attention


def by_loops(attention: LocalSelfAttention, x: Tensor) -> Tensor:
    """Evaluate equation 3 of the paper pixel by pixel, neighbour by neighbour."""
    weight = attention.qkv.weight.detach()[..., 0, 0]
    embeddings = attention.row_embedding.detach(), attention.column_embedding.detach()
    height, width = x.shape[1:]
    channels = len(weight) // 3
    per_head, radius = channels // attention.heads, attention.kernel_size // 2
    output = torch.empty(channels, height, width, dtype=x.dtype)
    for head in range(attention.heads):
        mine = slice(head * per_head, (head + 1) * per_head)
        to_query, to_key, to_value = (part[mine] for part in weight.chunk(3))
        for i in range(height):
            for j in range(width):
                logits, values = [], []
                for a in range(max(0, i - radius), min(height, i + radius + 1)):
                    for b in range(max(0, j - radius), min(width, j + radius + 1)):
                        row, column = a - i + radius, b - j + radius
                        offset = [embeddings[0][head, :, row], embeddings[1][head, :, column]]
                        key = to_key @ x[:, a, b] + torch.cat(offset)
                        logits.append(torch.dot(to_query @ x[:, i, j], key))
                        values.append(to_value @ x[:, a, b])
                weights = torch.exp(torch.stack(logits) - torch.logsumexp(torch.stack(logits), 0))
                output[mine, i, j] = weights @ torch.stack(values)
    return output


@pytest.mark.parametrize(
    ("size", "kernel", "heads"),
    [((5, 8), 3, 2), ((7, 4), 5, 1), ((3, 6), 7, 3), ((1, 5), 3, 2), ((4, 3), 1, 2)],
)
def test_attention_equals_a_loop_over_pixels_and_neighbours(
    size: tuple[int, int], kernel: int, heads: int
) -> None:
    attention = make_attention(5, 4 * heads, kernel, heads)
    x = draw(2, 5, *size, seed=10)
    expected = torch.stack([by_loops(attention, image) for image in x])
    # float64; sums of at most 49 terms in another order.
    torch.testing.assert_close(attention(x), expected, rtol=1e-12, atol=1e-13)


def test_attention_reaches_its_neighbourhood_and_no_further() -> None:
    attention, x = make_attention(3, 8, 5, 2), draw(1, 3, 9, 11, seed=11)
    jacobian = torch.func.jacrev(lambda x: attention(x)[0, :, 4, 5])(x)[:, 0]
    reached = jacobian.abs().amax(dim=(0, 1)) > 1e-12
    expected = torch.zeros(9, 11, dtype=torch.bool)
    expected[2:7, 3:8] = True
    assert torch.equal(reached, expected)


def test_attention_commutes_with_shifts_away_from_the_border() -> None:
    attention, x = make_attention(3, 8, 5, 2), draw(1, 3, 12, 15, seed=12)
    down, right = 3, 2
    shifted = attention(x.roll((down, right), dims=(2, 3)))
    interior = attention(x)[..., 2 : 10 - down, 2 : 13 - right]
    # The same sums at another place: vectorised alike or not, rounding is all that differs.
    torch.testing.assert_close(
        shifted[..., 2 + down : 10, 2 + right : 13], interior, rtol=1e-13, atol=1e-13
    )


def test_constant_values_stay_constant_up_to_the_border() -> None:
    # A softmax over the neighbours that exist averages; zeros beyond the border would dim it.
    attention, x = make_attention(3, 8, 5, 2), draw(1, 3, 1, 1, seed=13).expand(1, 3, 6, 7)
    value = attention.qkv.weight[16:, :, 0, 0] @ x[0, :, 0, 0]
    torch.testing.assert_close(
        attention(x), value[None, :, None, None].expand(1, 8, 6, 7), rtol=1e-13, atol=1e-13
    )


def reference_net(parameters: dict[str, Tensor], code: Tensor, settings: dict[str, int]) -> Tensor:
    """Evaluate the hourglass by its description, with the attention tested above."""

    def finish(x: Tensor, name: str) -> Tensor:
        x = normalise(x, f"{name}.1")
        return torch.where(x > 0, x, 0.2 * x)

    def normalise(x: Tensor, name: str) -> Tensor:
        mean = x.mean(dim=(0, 2, 3), keepdim=True)
        variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
        scale, shift = (parameters[f"{name}.{k}"][:, None, None] for k in ("weight", "bias"))
        return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift

    def attend(x: Tensor, name: str) -> Tensor:
        mine = {k: parameters[f"{name}.0.{k}"] for k in ("qkv.weight", "row_embedding")}
        mine["column_embedding"] = parameters[f"{name}.0.column_embedding"]
        attention = LocalSelfAttention(
            x.shape[1], settings["width"], settings["kernel_size"], settings["heads"]
        ).double()
        return finish(functional_call(attention, mine, (x,)), name)

    def mix(x: Tensor, name: str) -> Tensor:
        weight, bias = parameters[f"{name}.weight"][..., 0, 0], parameters[f"{name}.bias"]
        return torch.einsum("oc,bchw->bohw", weight, x) + bias[:, None, None]

    def halve(x: Tensor) -> Tensor:
        rows, columns = (math.ceil(side / 2) for side in x.shape[2:])
        return torch.stack(
            [
                torch.stack(
                    [
                        x[..., 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean(dim=(2, 3))
                        for j in range(columns)
                    ],
                    dim=-1,
                )
                for i in range(rows)
            ],
            dim=-2,
        )

    def double(x: Tensor, axis: int) -> Tensor:
        # A pixel splits in two halves, each drawn by a quarter to the neighbour on its side.
        count = x.shape[axis]
        here = x.movedim(axis, 0)
        before = here[[0, *range(count - 1)]]
        after = here[[*range(1, count), count - 1]]
        both = torch.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], dim=1)
        return both.flatten(0, 1).movedim(0, axis)

    def scale(x: Tensor, name: str, left: int) -> Tensor:
        if not left:
            return x
        deep = attend(halve(attend(x, f"{name}.down.0")), f"{name}.down.2")
        deep = double(double(scale(deep, f"{name}.inner", left - 1), 2), 3)
        both = [deep[..., : x.shape[2], : x.shape[3]]]
        if settings["skip_channels"]:
            both.insert(0, finish(mix(x, f"{name}.skip.0"), f"{name}.skip"))
        merged = attend(normalise(torch.cat(both, dim=1), f"{name}.merge.0"), f"{name}.merge.1")
        return finish(mix(merged, f"{name}.merge.2.0"), f"{name}.merge.2")

    return mix(scale(code, "body", settings["scales"]), "head")


@pytest.mark.parametrize(("size", "skip_channels"), [((12, 8), 3), ((7, 10), 0), ((9, 5), 2)])
def test_the_network_is_what_it_says(size: tuple[int, int], skip_channels: int) -> None:
    settings = {"width": 8, "scales": 2, "skip_channels": skip_channels}
    settings |= {"kernel_size": 3, "heads": 2}
    prior = networks.create(
        "self-attention", image_size=size, channels=2, code_channels=5, output="none", **settings
    ).to(dtype=torch.float64)
    parameters = {
        name: value + 0.2 * draw(*value.shape, seed=i)
        for i, (name, value) in enumerate(prior.init(0).items())
    }
    expected = reference_net(parameters, prior.code, settings)[0]
    # float64; normalisation amplifies rounding by the inverse of the smallest deviation, ~10.
    torch.testing.assert_close(prior.image(parameters), expected, rtol=1e-11, atol=1e-11)


def test_parameters_do_not_grow_with_the_kernel_but_for_the_embeddings() -> None:
    def count(kernel_size: int, **settings: int) -> int:
        with torch.device("meta"):
            net = SelfAttentionNet(kernel_size=kernel_size, **settings)
        return sum(p.numel() for p in net.parameters())

    # Three attentions of 128 channels in each of five scales; a row and a column of half of them.
    assert count(7) - count(5) == 3 * 5 * 2 * (128 // 2) * 2
    skip, width = 4, 128
    first = 32 * skip + skip + 2 * skip + 3 * 32 * width  # skip branch; attention to the code
    rest = 4 * (width * skip + skip + 2 * skip + 3 * width**2)
    every = 3 * width**2 + 3 * width * (width + skip) + 3 * 3 * width  # attentions and embeddings
    every += 2 * (width + skip) + 2 * 3 * width + width * (width + 1) + 2 * width
    assert count(3) == first + rest + 5 * every + 3 * (width + 1) == 805_479


def test_it_has_no_convolution_larger_than_a_pixel() -> None:
    net = SelfAttentionNet(width=8, heads=2, scales=3)
    kernels = [m.kernel_size for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert len(kernels) == 3 * 5 + 1
    assert set(kernels) == {(1, 1)}


def test_initialisation() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attention = LocalSelfAttention(40, 256, 9, 8)
    for embedding in (attention.row_embedding, attention.column_embedding):
        # 1152 entries each: a relative standard error of 2.1%; four of them.
        assert embedding.std().item() == pytest.approx(32**-0.5, rel=0.085)
    weight = attention.qkv.weight  # uniform on +-1 / sqrt(fan-in)
    assert weight.abs().max().item() == pytest.approx(40**-0.5, rel=1e-3)


def test_no_tensor_is_made_elsewhere_than_on_the_device_of_the_network() -> None:
    with torch.device("meta"):
        network, code = SelfAttentionNet(), torch.empty(1, 32, 90, 150)
    image = network(code)  # a tensor made on the CPU would not combine with these
    assert (image.shape, image.device.type) == ((1, 3, 90, 150), "meta")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kernel_size": 4}, "kernel_size is 4; expected an odd number, .* take 3 or 5"),
        ({"kernel_size": 0}, "kernel_size must be"),
        ({"width": 24, "heads": 8}, r"width 24 is no multiple of 2 \* heads = 16"),
        ({"heads": 0}, "heads must be"),
        ({"scales": 0}, "scales must be a whole number, at least 1, got 0"),
        ({"skip_channels": -1}, "skip_channels must be"),
        ({"code_channels": 0}, "code_channels must be"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        SelfAttentionNet(**settings)
    with pytest.raises(InvalidInputError, match=message):
        networks.create("self-attention", image_size=(16, 24), **settings)
