"""Every registered prior, `ImagePrior` with any module, and the registry's rules."""

import math
import random
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp, vmap
from torch.multiprocessing.reductions import StorageWeakRef

from dipkernels import networks
from dipkernels.errors import InvalidInputError, UnknownNameError
from dipkernels.networks import ImagePrior, scaling

# What makes each registered prior quick; whatever is registered next runs with its defaults.
SMALL: dict[str, dict[str, object]] = {
    "skip": {"width": 6, "skip_channels": 2, "code_channels": 3},
    "deep-decoder": {"width": 7},
    "conv-decoder": {"width": 5},
    "vit": {"width": 12, "depth": 2, "heads": 3, "mlp_width": 10},
    "swin": {"width": 8, "depths": (1, 1), "heads": (2, 2)},
}


def make(name: str, size: tuple[int, int], **settings: object) -> ImagePrior:
    """Make a small prior in float64."""
    prior = networks.create(name, image_size=size, **SMALL.get(name, {}), **settings)
    return prior.to(dtype=torch.float64)


def draw_size(seed: int) -> tuple[int, int]:
    """Draw an odd height and another width."""
    rng = random.Random(seed)
    height = rng.randrange(5, 22, 2)
    return height, rng.choice([side for side in range(4, 22) if side != height])


def perturbed(parameters: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Move all parameters away from special values such as zero biases."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: value + 0.3 * torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for key, value in parameters.items()
    }


def global_random_states() -> tuple[object, ...]:
    """Read torch's and NumPy's, in a form that compares; beartype itself uses Python's."""
    return (
        torch.get_rng_state().tolist(),
        np.random.get_state(legacy=False)["state"]["key"].tolist(),  # noqa: NPY002
    )


@pytest.fixture(params=networks.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# --- Every registered prior -----------------------------------------------------------------


def test_image_is_pure_and_leaves_the_global_random_state(name: str) -> None:
    before = global_random_states()
    prior = make(name, (9, 14))
    parameters = perturbed(prior.init(3), seed=0)
    kept = {key: value.clone() for key, value in parameters.items()}
    first = prior.image(parameters)
    prior.image(prior.init(4))
    assert torch.equal(prior.image(parameters), first)
    assert prior.sample(2, seed=1).shape == (2, 3, 9, 14)
    assert all(torch.equal(parameters[key], kept[key]) for key in kept)
    assert global_random_states() == before


def test_init_depends_on_the_seed_alone(name: str) -> None:
    prior = networks.create(name, image_size=(9, 14), **SMALL.get(name, {}))
    first, other = prior.init(3), prior.init(4)
    torch.manual_seed(1234)
    again = prior.init(3)
    double = prior.to(dtype=torch.float64).init(3)
    for key, value in first.items():
        assert value.dtype == torch.float32
        assert not value.requires_grad
        assert torch.equal(again[key], value)
        # The draws are made in float32 and converted, which is exact.
        assert torch.equal(double[key], value.double())
    assert any(not torch.equal(other[key], first[key]) for key in first)


def test_init_many_stacks_and_vmap_equals_separate_images(name: str) -> None:
    prior = make(name, (9, 14))
    seeds = [5, 2, 11]
    many = prior.init_many(seeds)
    for key, shape in prior.parameter_shapes.items():
        assert many[key].shape == (3, *shape)
    for i, seed in enumerate(seeds):
        for key, value in prior.init(seed).items():
            assert torch.equal(many[key][i], value)
    separate = torch.stack([prior.image(prior.init(seed)) for seed in seeds])
    # Only the order of sums differs between a batch and its members.
    torch.testing.assert_close(vmap(prior.image)(many), separate, rtol=0, atol=1e-12)


def test_forward_and_backward_derivatives_are_adjoint(name: str) -> None:
    prior = make(name, (7, 12))
    parameters = perturbed(prior.init(0), seed=1)
    generator = torch.Generator().manual_seed(2)
    tangents = {
        key: torch.randn(value.shape, generator=generator, dtype=value.dtype)
        for key, value in parameters.items()
    }
    image, forward = jvp(prior.image, (parameters,), (tangents,))
    cotangent = torch.randn(image.shape, generator=generator, dtype=image.dtype)
    (gradient,) = vjp(prior.image, parameters)[1](cotangent)
    along = (forward * cotangent).sum()
    back = sum((gradient[key] * tangents[key]).sum() for key in tangents)
    # Relative to the norms whose product bounds both sides: rounding of float64.
    scale = forward.norm() * cotangent.norm()
    assert scale > 0
    assert abs(along - back) < 1e-12 * scale


@pytest.mark.parametrize("seed", range(3))
def test_any_size_gives_an_image_of_that_size_in_the_open_unit_interval(
    name: str, seed: int
) -> None:
    size = draw_size(seed)
    prior = make(name, size, channels=1 + seed)
    image = prior.image(prior.init(seed))
    assert prior.shape == image.shape == (1 + seed, *size)
    assert 0 < image.min() < image.max() < 1


def test_sigmoid_is_the_only_difference_to_the_bare_network(name: str) -> None:
    prior, bare = make(name, (9, 14)), make(name, (9, 14), sigmoid=False)
    parameters = prior.init(6)
    without = {key.removeprefix("0."): value for key, value in parameters.items()}
    expected = 1 / (1 + torch.exp(-bare.image(without)))
    torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-14)


def test_to_moves_and_keeps_the_original(name: str, device: str) -> None:
    prior = networks.create(name, image_size=(9, 14), **SMALL.get(name, {}))
    double = prior.to(device=device, dtype=torch.float64)
    assert (prior.dtype, prior.device.type) == (torch.float32, "cpu")
    assert (double.dtype, double.device.type) == (torch.float64, device)
    image = double.image(double.init(0))
    assert (image.dtype, image.device.type) == (torch.float64, device)
    # Single precision: some 1e2 roundings of relative size 6e-8 in sums of order 1.
    torch.testing.assert_close(prior.image(prior.init(0)), image.cpu().float(), rtol=0, atol=1e-5)


def test_code_is_uniform_and_depends_on_its_seed_alone(name: str) -> None:
    first, same, other = (make(name, (40, 64), code_seed=seed).code for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert first.shape[0] == 1
    assert 0 <= first.min() < first.max() <= 0.1
    # A uniform variable on [0, 0.1] has the deviation 0.1 / sqrt(12); six standard errors.
    assert abs(first.mean() - 0.05) < 6 * 0.1 / math.sqrt(12 * first.numel())


def test_entry_describes_the_prior(name: str) -> None:
    entry = networks.entry(name)
    assert entry.name == name
    assert entry.summary.endswith(".")
    assert entry.source
    assert entry.iterations > 0
    assert networks.create(name, image_size=16, **SMALL.get(name, {})).learning_rate == (
        entry.learning_rate
    )
    assert set(SMALL.get(name, {})) <= set(entry.options)


def test_repr_names_shape_and_parameters() -> None:
    prior = networks.create("deep-decoder", image_size=(9, 14), width=7)
    count = sum(value.numel() for value in prior.init().values())
    assert prior.parameter_count == count
    assert repr(prior) == f"ImagePrior(deep-decoder, 3x9x14, {count} parameters)"


# --- Parameter counts, topologies, scaling ---------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        # facts.md: F16; with the report's 3-channel code; kate; vase
        ("skip", {}, 2_217_831),
        ("skip", {"code_channels": 3}, 2_184_307),
        ("skip", {"upsampling": "nearest", "skip_channels": 128}, 3_002_627),
        ("skip", {"upsampling": "nearest", "skip_channels": 128, "code_channels": 3}, 2_965_507),
        ("skip", {"upsampling": "nearest", "skip_channels": 0, "code_channels": 2}, 2_157_955),
        ("deep-decoder", {"width": 64}, 25_536),
        ("deep-decoder", {}, 100_224),
        ("conv-decoder", {}, 6 * (9 * 128**2 + 2 * 128) + 3 * 128),
        ("vit", {}, 2_348_352),
        ("swin", {}, 62_791_920),
        # one convolution of 3 to 3 channels, 3x3 and bias, applied three times
        ("conv3-vit", {}, 2_348_352 + 84),
        ("vit-conv3", {}, 2_348_352 + 84),
    ],
)
def test_parameter_counts_at_512_pixels(name: str, options: dict[str, object], count: int) -> None:
    recipe = networks.entry(name).builder((512, 512), 3, **options)
    with torch.device("meta"):  # shapes without numbers
        module = recipe.factory()
    assert sum(p.numel() for p in module.parameters()) == count


def test_parameter_count_of_restore_barbara() -> None:
    recipe = networks.entry("skip").builder((512, 512), 1)
    with torch.device("meta"):
        module = recipe.factory()
    assert sum(p.numel() for p in module.parameters()) == 2_217_573


def reflect_conv(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    pad = weight.shape[-1] // 2
    return nn.functional.conv2d(
        nn.functional.pad(x, (pad,) * 4, mode="reflect"), weight, bias, stride
    )


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Normalise with the statistics of the image."""
    mean = x.mean(dim=(0, 2, 3), keepdim=True)
    variance = (x - mean).square().mean(dim=(0, 2, 3), keepdim=True)
    normal = (x - mean) / (variance + 1e-5).sqrt()
    return normal * weight[:, None, None] + bias[:, None, None]


def upsample_twice(x: Tensor, mode: str) -> Tensor:
    """Double both sides, by a dense matrix for each axis."""
    for axis in (2, 3):
        n = x.shape[axis]
        matrix = torch.zeros(2 * n, n, dtype=x.dtype)
        for i in range(2 * n):
            # pixel centres: i + 1/2 on the fine grid is (i + 1/2) / 2 on the coarse one
            position = min(max((i + 0.5) / 2 - 0.5, 0.0), n - 1.0)
            low = math.floor(position)
            weight = position - low
            if mode == "nearest":
                low, weight = i // 2, 0.0
            matrix[i, low] += 1 - weight
            matrix[i, min(low + 1, n - 1)] += weight
        x = torch.movedim(torch.tensordot(matrix, x, dims=([1], [axis])), 0, axis)
    return x


def reference_skip_net(
    code: Tensor, parameters: dict[str, Tensor], scales: int, mode: str
) -> Tensor:
    """Evaluate the SkipNet as facts.md describes it; parameters by the names of ours."""

    def block(x: Tensor, prefix: str, stride: int = 1) -> Tensor:
        x = reflect_conv(x, *(parameters[f"{prefix}.0.{k}"] for k in ("weight", "bias")), stride)
        x = batch_norm(x, *(parameters[f"{prefix}.1.{k}"] for k in ("weight", "bias")))
        return torch.where(x > 0, x, 0.2 * x)

    def scale(x: Tensor, prefix: str, left: int) -> Tensor:
        if left == 0:
            return x
        deep = block(block(x, f"{prefix}.down.0", stride=2), f"{prefix}.down.1")
        deep = upsample_twice(scale(deep, f"{prefix}.inner", left - 1), mode)
        branches = [deep]
        if f"{prefix}.skip.0.weight" in parameters:
            branches = [block(x, f"{prefix}.skip"), deep]
        height, width = (min(branch.shape[axis] for branch in (x, deep)) for axis in (2, 3))
        cropped = []
        for branch in branches:
            top, left_edge = (branch.shape[2] - height) // 2, (branch.shape[3] - width) // 2
            cropped.append(branch[:, :, top : top + height, left_edge : left_edge + width])
        joined = batch_norm(
            torch.cat(cropped, dim=1),
            parameters[f"{prefix}.merge.0.weight"],
            parameters[f"{prefix}.merge.0.bias"],
        )
        return block(block(joined, f"{prefix}.merge.1"), f"{prefix}.merge.2")

    x = scale(code, "body", scales)
    return reflect_conv(x, parameters["head.weight"], parameters["head.bias"])[0]


@pytest.mark.parametrize("size", [(16, 24), (13, 22), (11, 19), (31, 17)])
@pytest.mark.parametrize(
    ("skip_channels", "mode"), [(4, "bilinear"), (0, "nearest"), (3, "nearest"), (0, "bilinear")]
)
def test_skip_net_is_that_of_ulyanov(size: tuple[int, int], skip_channels: int, mode: str) -> None:
    options = {"width": 6, "scales": 3, "skip_channels": skip_channels, "upsampling": mode}
    prior = networks.create(
        "skip", image_size=size, channels=2, code_channels=5, sigmoid=False, **options
    ).to(dtype=torch.float64)
    parameters = perturbed(prior.init(0), seed=3)
    expected = reference_skip_net(prior.code, parameters, scales=3, mode=mode)
    # Only the order of sums differs.
    torch.testing.assert_close(prior.image(parameters), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 24), (13, 22), (31, 17)])
@pytest.mark.parametrize(
    ("name", "normalise"), [("deep-decoder", True), ("conv-decoder", True), ("conv-decoder", False)]
)
def test_decoders_are_those_of_heckel_and_hand(
    name: str, normalise: bool, size: tuple[int, int]
) -> None:
    options = {"normalise": normalise} if name == "conv-decoder" else {}
    prior = networks.create(
        name, image_size=size, channels=2, width=6, upsamplings=3, sigmoid=False, **options
    ).to(dtype=torch.float64)
    parameters = perturbed(prior.init(0), seed=4)
    values = iter(parameters.values())  # in the order of use
    x = prior.code
    assert x.shape == (1, 6, math.ceil(size[0] / 8), math.ceil(size[1] / 8))
    for block in range(4):
        x = reflect_conv(x, next(values), None)
        if block < 3:
            x = upsample_twice(x, "bilinear")
        x = torch.where(x > 0, x, 0.0)
        if normalise:
            x = batch_norm(x, next(values), next(values))
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    x = x[:, :, top : top + size[0], left : left + size[1]]
    expected = reflect_conv(x, next(values), None)[0]
    assert next(values, None) is None
    # Only the order of sums differs.
    torch.testing.assert_close(prior.image(parameters), expected, rtol=1e-12, atol=1e-12)


def test_tied_convolutions_are_the_published_order_of_conv_and_relu() -> None:
    size = (9, 14)
    before, after, plain = (
        make(name, size, sigmoid=False)
        if name != "vit"
        else networks.create("vit", image_size=size, sigmoid=False).to(dtype=torch.float64)
        for name in ("conv3-vit", "vit-conv3", "vit")
    )

    def three_times(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        for _ in range(2):
            x = reflect_conv(x, weight, bias).clamp(min=0)
        return reflect_conv(x, weight, bias)

    parameters = after.init(0)
    conv = [parameters[f"1.conv.{key}"] for key in ("weight", "bias")]
    inner = {k.removeprefix("0."): v for k, v in parameters.items() if k.startswith("0.")}
    expected = three_times(plain.image(inner)[None], *conv)[0]
    torch.testing.assert_close(after.image(parameters), expected, rtol=1e-12, atol=1e-12)

    parameters = before.init(0)
    conv = [parameters[f"0.conv.{key}"] for key in ("weight", "bias")]
    inner = {k.removeprefix("1."): v for k, v in parameters.items() if k.startswith("1.")}
    plain.code = three_times(before.code, *conv)
    torch.testing.assert_close(before.image(parameters), plain.image(inner), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("published", [4, 32, 48])
def test_lengths_scale_to_the_nearest_power_of_two(published: int) -> None:
    for side in (3, 8, 63, 64, 91, 100, 300, 511, 512, 725, 1100):
        ideal = math.log2(published * side / 512)
        nearest = min((abs(power - ideal), 2**power) for power in range(-10, 12))[1]
        assert scaling.scaled_length(published, (side, 2 * side)) == max(4, nearest)


def test_halvings_keep_two_pixels_on_the_shorter_side() -> None:
    for side in range(3, 140):
        for published in range(8):
            fitting = [h for h in range(published + 1) if math.ceil(side / 2**h) >= 2]
            assert scaling.scaled_halvings(published, (side + 5, side)) == max(fitting)


# --- Errors of the registry -------------------------------------------------------------------


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown prior 'skipp': did you mean 'skip'"):
        networks.create("skipp", image_size=16)
    with pytest.raises(KeyError, match=r"Known: .*vit") as caught:
        networks.entry("?")
    assert "did you mean" not in str(caught.value)


def test_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match="no option depth; it has: width, scales"):
        networks.create("skip", image_size=16, depth=3)


def test_too_small_an_image_says_what_would_do(name: str) -> None:
    with pytest.raises(InvalidInputError, match=rf"1x40 .*too small for '{name}'"):
        networks.create(name, image_size=(1, 40), **SMALL.get(name, {}))


@pytest.mark.parametrize("size", [0, (0, 8), (8, -1), (8,), (8, 8, 8), (8.5, 8.0)])
def test_bad_image_sizes(size: object) -> None:
    untyped: Callable[..., ImagePrior] = networks.create.__wrapped__  # past the checks of shapes
    with pytest.raises(InvalidInputError, match=r"image_size|options"):
        untyped("skip", image_size=size)


def test_channels_must_be_positive() -> None:
    with pytest.raises(InvalidInputError, match="channels positive, got 8 and 0"):
        networks.create("skip", image_size=8, channels=0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("skip", {"width": 0}, "width must be a whole number, at least 1, got 0"),
        ("skip", {"scales": -1}, "halvings must be a whole number, at least 0, got -1"),
        ("skip", {"skip_channels": -1}, "skip_channels must be"),
        ("skip", {"code_channels": 0}, "code_channels must be"),
        ("skip", {"upsampling": "cubic"}, "upsampling must be 'bilinear' or 'nearest'"),
        ("deep-decoder", {"width": 0}, "width must be"),
        ("deep-decoder", {"upsamplings": -1}, "halvings must be"),
        ("vit", {"width": 7}, "width 7 have 8 heads"),
        ("vit", {"patch_size": 64}, "too small for 'vit', which needs at least 64"),
        ("vit", {"depth": "deep"}, "'vit' can't be made with these options"),
        ("swin", {"depths": (1,)}, "give both the same length"),
    ],
)
def test_bad_options(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        networks.create(name, image_size=(16, 24), **options)


# --- ImagePrior with any module ---------------------------------------------------------------


class ConvNet(nn.Module):
    """Convolutions with BatchNorm and dropout, as a user may write them."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 5, 3, padding=1)
        self.norm = nn.BatchNorm2d(5)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Conv2d(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.tanh(self.norm(self.first(x)))))


def code(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_batch_norm_normalises_with_the_image() -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    parameters = perturbed(prior.init(0), seed=1)
    reference = ConvNet().double().train()
    expected = functional_call(reference, parameters, (prior.code,))[0]
    for _ in range(2):  # no running statistics change between calls
        torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-13)


def test_running_statistics_are_irrelevant() -> None:
    def trained() -> nn.Module:
        net = ConvNet()
        net.norm.running_mean.fill_(17.0)
        net.norm.running_var.fill_(0.01)
        return net

    fresh, used = (ImagePrior(factory, code(1, 2, 7, 10)) for factory in (ConvNet, trained))
    assert torch.equal(fresh.image(fresh.init(2)), used.image(used.init(2)))


def test_dropout_is_off() -> None:
    prior = ImagePrior(lambda: ConvNet(dropout=0.5), code(1, 2, 7, 10))
    without = ImagePrior(ConvNet, code(1, 2, 7, 10))
    assert torch.equal(prior.image(prior.init(0)), without.image(without.init(0)))


class Tied(nn.Module):
    """An autoencoder of each pixel, whose second map is the first one's weight again."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(4, 4, bias=False)
        self.decode = nn.Linear(4, 4, bias=False)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(torch.tanh(self.encode(x)))


def test_tied_weights_stay_tied() -> None:
    prior = ImagePrior(Tied, code(1, 3, 5, 4))
    parameters = perturbed(prior.init(0), seed=1)
    assert list(parameters) == ["encode.weight"]
    assert prior.parameter_count == 16
    weight = parameters["encode.weight"]
    expected = torch.tanh(prior.code[0] @ weight.T) @ weight.T
    torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-14)


class PartlyFrozen(nn.Module):
    """A frozen random filter behind a trainable one, with a buffer and an integer constant."""

    def __init__(self, record: list[Tensor]) -> None:
        super().__init__()
        self.trainable = nn.Conv2d(2, 4, 1, bias=False)
        self.frozen = nn.Parameter(torch.randn(3, 4, 1, 1), requires_grad=False)
        self.order = nn.Parameter(torch.tensor([2, 0, 1]), requires_grad=False)
        self.register_buffer("offset", torch.randn(3, 1, 1), persistent=False)
        record += [self.frozen.detach().clone(), self.offset.clone()]

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.conv2d(self.trainable(x), self.frozen)
        return x[:, self.order] + self.offset


def test_frozen_parameters_and_buffers_are_constants_of_the_first_module() -> None:
    record: list[Tensor] = []
    prior = ImagePrior(lambda: PartlyFrozen(record), code(1, 2, 5, 8))
    frozen, offset = (value.double() for value in record[:2])
    parameters = prior.init(7)
    assert not torch.equal(record[2], record[0])  # a later module drew others
    assert list(parameters) == ["trainable.weight"]
    mixed = torch.einsum(
        "oc,ci,ihw->ohw",
        frozen[..., 0, 0],
        parameters["trainable.weight"][..., 0, 0],
        prior.code[0],
    )
    expected = mixed[[2, 0, 1]] + offset
    torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-13)


class CountsItsCalls(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 1)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.conv(x) * self.calls


def test_a_module_that_writes_to_a_buffer_is_still_pure() -> None:
    prior = ImagePrior(CountsItsCalls, code(1, 2, 5, 8))
    parameters = prior.init(0)
    net = CountsItsCalls().double()
    expected = functional_call(net, parameters, (prior.code,))[0]  # its first call
    for _ in range(2):
        torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-14)


class Attention(nn.Module):
    """torch's own attention, between a token for each row of the code and the image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.attention(tokens, tokens, tokens, need_weights=False)[0][:, None]


class Encoder(nn.Module):
    """torch's own transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(6, 2, 10, batch_first=True)  # dropout 0.1

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layer(tokens)[:, None]


@pytest.mark.parametrize("net", [Attention, Encoder])
def test_attention_of_torch_is_differentiable_in_forward_mode(net: type[nn.Module]) -> None:
    prior = ImagePrior(net, code(1, 5, 6))
    parameters = perturbed(prior.init(0), seed=1)
    plain = net().double().eval()
    expected = functional_call(plain, parameters, (prior.code,))[0]
    torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-13)

    tangents = perturbed({key: torch.zeros_like(v) for key, v in parameters.items()}, seed=2)
    _, forward = jvp(prior.image, (parameters,), (tangents,))
    step = 1e-5

    def moved(sign: float) -> Tensor:
        return prior.image({k: v + sign * step * tangents[k] for k, v in parameters.items()})

    difference = (moved(1.0) - moved(-1.0)) / (2 * step)
    # Central differences: an error of step^2 times third derivatives, and of 1e-16 / step.
    torch.testing.assert_close(forward, difference, rtol=1e-7, atol=1e-8)
    assert torch.backends.mha.get_fastpath_enabled()  # the user's setting is back


def test_output_picks_the_image() -> None:
    class Model(ConvNet):
        def forward(self, x: Tensor) -> SimpleNamespace:
            return SimpleNamespace(image=super().forward(x))

    prior = ImagePrior(Model, code(1, 2, 7, 10), output=lambda out: out.image)
    plain = ImagePrior(ConvNet, code(1, 2, 7, 10))
    assert prior.name == "Model"
    assert torch.equal(prior.image(prior.init(3)), plain.image(plain.init(3)))
    with pytest.raises(InvalidInputError, match=r"returned SimpleNamespace, not a tensor.*output="):
        ImagePrior(Model, code(1, 2, 7, 10))
    with pytest.raises(InvalidInputError, match="output= failed on the SimpleNamespace that Model"):
        ImagePrior(Model, code(1, 2, 7, 10), output=lambda out: out.reconstruction)


def test_volumes_and_integer_codes_work() -> None:
    volume = ImagePrior(lambda: nn.Conv3d(2, 1, 3, padding=1), code(1, 2, 3, 4, 5))
    assert volume.image(volume.init()).shape == (1, 3, 4, 5)
    tokens = torch.arange(12).reshape(1, 3, 4)
    embedding = ImagePrior(lambda: nn.Embedding(12, 5), tokens).to(dtype=torch.float64)
    image = embedding.image(embedding.init())
    assert (image.shape, image.dtype) == ((3, 4, 5), torch.float64)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: 3, "factory returned int, not a torch.nn.Module"),
        (nn.Identity, "Identity has no trainable parameters"),
        (lambda: nn.LazyConv2d(1, 1), "LazyConv2d has lazy layers"),
        (lambda: nn.Conv2d(3, 1, 1), r"Conv2d failed on a code of shape \(1, 2, 7, 10\)"),
        (lambda: nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten()), r"returned shape \(1, 70\)"),
    ],
)
def test_modules_that_are_no_priors(factory: Callable[[], nn.Module], message: str) -> None:
    untyped: Callable[..., ImagePrior] = ImagePrior
    with pytest.raises(InvalidInputError, match=message):
        untyped(factory, code(1, 2, 7, 10))


def test_a_module_that_exists_already_is_refused_and_left_alone() -> None:
    net = ConvNet()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(InvalidInputError, match="returned the same ConvNet twice"):
        ImagePrior(lambda: net, code(1, 2, 7, 10))
    assert net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_wrong_parameters_are_refused() -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    parameters = prior.init(0)
    with pytest.raises(
        InvalidInputError, match=r"not the parameters of .*other missing or too man"
    ):
        prior.image({**parameters, "other": code(3)})
    del parameters["last.bias"]
    with pytest.raises(InvalidInputError, match=r"last\.bias missing or too many"):
        prior.image(parameters)


@pytest.mark.parametrize("n", [0, -2])
def test_at_least_one_sample(n: int) -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    with pytest.raises(InvalidInputError, match=f"at least 1 sample must be drawn, got {n}"):
        prior.sample(n)


def test_samples_are_independent_and_reproducible() -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    few, many, other = prior.sample(2, seed=0), prior.sample(4, seed=0), prior.sample(2, seed=1)
    assert torch.equal(many[:2], few)
    images = torch.cat([many, other])
    distances = (images[:, None] - images[None]).flatten(2).norm(dim=2)
    assert distances[~torch.eye(6, dtype=torch.bool)].min() > 0.1


def test_the_prior_holds_no_copy_of_the_parameters() -> None:
    storages: list[StorageWeakRef] = []

    def factory() -> nn.Module:
        net = ConvNet()
        storages.extend(StorageWeakRef(p.untyped_storage()) for p in net.parameters())
        return net

    prior = ImagePrior(factory, code(1, 2, 7, 10))
    parameters = prior.init(0)
    prior.image(parameters)
    assert len(storages) == 12  # six parameters of two modules
    assert all(storage.expired() for storage in storages)
