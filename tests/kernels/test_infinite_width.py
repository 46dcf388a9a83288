"""Kernels read off torch modules: against hand-built calculus and against finite widths."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK, infinite_width
from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    added,
    average_pool,
    convolve,
    mixed,
    stride,
    upsample,
)
from dipkernels.kernels.stationary.maps import filtered
from dipkernels.kernels.stationary.normalisation import centred
from dipkernels.networks import ImagePrior
from dipkernels.networks.decoders import Decoder, LipschitzDecoder
from dipkernels.networks.generators import ConvNet, FixedConvNet
from dipkernels.networks.layers import Style
from dipkernels.networks.resnet import ResNet
from dipkernels.networks.skip import SkipNet
from helpers.torus import measured, torus_prior

CONVOLUTIONAL = (
    "skip",
    "wide-skip",
    "unet",
    "resnet",
    "conv",
    "fixed-conv",
    "deep-decoder",
    "deep-decoder-over",
    "conv-decoder",
    "transposed-decoder",
    "lipschitz-decoder",
)
NOISE = StationaryKernel.white((8,), variance=1 / 1200, mean=1 / 20)


def code(channels: int = 40, grid: tuple[int, ...] = (8,)) -> Tensor:
    return 0.1 * torch.rand(1, channels, *grid, generator=torch.Generator().manual_seed(0))


def prior_of(*layers: nn.Module) -> ImagePrior:
    return ImagePrior(lambda: nn.Sequential(*(fresh(layer) for layer in layers)), code())


def fresh(layer: nn.Module) -> nn.Module:
    """Copy a layer, with weights of its own."""
    made = copy.deepcopy(layer)
    if hasattr(made, "reset_parameters"):
        made.reset_parameters()
    return made


def conv(into: int, out: int, size: int = 3, **options: object) -> nn.Conv1d:
    options = {"padding": size // 2, "padding_mode": "circular", **options}
    return nn.Conv1d(into, out, size, **options)  # type: ignore[arg-type]


def same(found: StationaryKernel, wanted: StationaryKernel) -> None:
    for name in ("covariance_table", "ntk_table"):
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-14
        )


def torch_weights(fan_in: int, bias: bool = True) -> Weights:
    return Weights.standard(1 / 3, bias / (3 * fan_in), fan_in=fan_in, bias=bias)


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVOLUTIONAL)
@pytest.mark.parametrize("size", [(32, 64), (32,)], ids=str)
def test_every_convolutional_prior_of_the_registry_is_read(
    name: str, size: tuple[int, ...]
) -> None:
    options: dict[str, object] = {"unet": {"feature_scale": 16}}.get(name, {})
    if name in ("skip", "wide-skip", "lipschitz-decoder"):
        options = {"width": 16}
    prior = networks.create(name, image_size=size, output="none", **options)
    found = infinite_width(prior, drawn_pixels=0)
    assert found.kernel.size == size
    assert found.operations
    for which in ("covariance", "ntk"):
        values = found.kernel.spectrum(which)
        assert values.isfinite().all()
        assert values.min() > -1e-9 * values.max()


@pytest.mark.parametrize(
    ("name", "part"),
    [("vit", "'cat'"), ("mixer", "channels must be the last axis"), ("self-attention", "body")],
)
def test_what_has_no_rule_is_named_with_its_path(name: str, part: str) -> None:
    prior = networks.create(name, image_size=32, output="none")
    with pytest.raises(InvalidInputError, match=part):
        infinite_width(prior)


def test_both_parameterisations_of_a_plain_network() -> None:
    prior = prior_of(conv(40, 50), nn.GELU(), conv(50, 2, 1, bias=False))
    hidden = activate(convolve(NOISE, 3, torch_weights(120)), "gelu")
    same(infinite_width(prior).kernel, convolve(hidden, 1, torch_weights(50, bias=False)))
    hidden = activate(convolve(NOISE, 3, Weights.ntk(1 / 3, 1 / 360)), "gelu")
    found = infinite_width(prior, parameterisation="ntk").kernel
    same(found, convolve(hidden, 1, Weights.ntk(1 / 3)))


@pytest.mark.parametrize(
    ("scheme", "variance"),
    [
        ("kaiming-normal", 2.0),
        ("kaiming-uniform", 2.0),
        ("xavier-normal", 240 / 270),
        ("orthogonal", 1.0),
        ("normal", 120 * 0.02**2),
    ],
)
def test_variances_are_those_of_the_initialiser(scheme: str, variance: float) -> None:
    prior = ImagePrior(lambda: conv(40, 50), code(), initialisation=scheme)
    same(
        infinite_width(prior).kernel,
        convolve(NOISE, 3, Weights.standard(variance, fan_in=120)),
    )


def test_an_unusual_variance_is_measured() -> None:
    def build() -> nn.Module:
        layer = conv(40, 200)
        nn.init.normal_(layer.weight, std=0.3)
        return layer

    covariance = infinite_width(ImagePrior(build, code())).kernel.covariance[0]
    # 8 x 24,000 normal numbers: a standard error of 0.3 %.
    assert float((covariance - 1 / 360) * 300) == pytest.approx(120 * 0.09, rel=0.015)


def test_resampling_concatenation_and_sums_of_modules() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = conv(40, 64)
            self.second = conv(64, 32, stride=2)
            self.across = conv(64, 96, 1)
            self.last = conv(128, 128)
            self.same = conv(128, 128, 1, bias=False)
            self.pool = nn.AvgPool1d(2)
            self.head = conv(128, 1, 1)

        def forward(self, z: Tensor) -> Tensor:
            x = torch.nn.functional.leaky_relu(self.first(z), 0.3)
            deep = nn.functional.pad(torch.sin(self.second(x)), (1, 1), mode="circular")
            deep = nn.functional.interpolate(deep, scale_factor=2, mode="linear")[..., 2:-2]
            both = torch.cat([self.across(x).relu(), deep * 0.5], dim=1)
            y = torch.tanh(self.last(both))
            return self.head(self.pool(y + torch.cos(self.same(y))))

    found = infinite_width(ImagePrior(Net, code()), max_period=None)
    x = activate(convolve(NOISE, 3, torch_weights(120)), "leaky-relu", slope=0.3)
    deep = upsample(activate(stride(convolve(x, 3, torch_weights(192)), 2), "sin"), 2, "bilinear")
    deep = StationaryKernel(deep.covariance_table / 4, deep.ntk_table / 4, deep.mean / 2)
    across = activate(convolve(x, 1, torch_weights(64)), "relu")
    y = activate(convolve(mixed([across, deep], [96, 32]), 3, torch_weights(384)), "tanh")
    z = activate(convolve(y, 1, torch_weights(128, bias=False)), "cos")
    same(found.kernel, convolve(average_pool(added(y, z), 2), 1, torch_weights(128)))
    names = {operation.name for operation in found.operations}
    assert {"conv1d", "interpolate", "cat", "add", "avg_pool1d"} <= names
    assert any(operation.path == "across" for operation in found.operations)


def test_fixed_filters_mean_only_normalisation_and_transposed_convolutions() -> None:
    taps = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 4
    style = Style(1, "mean-only", "relu", padding="circular")
    prior = ImagePrior(lambda: FixedConvNet(2, 40, width=30, layers=1, style=style), code())
    hidden = convolve(filtered(NOISE, taps, before=2), 1, torch_weights(40))
    hidden = centred(activate(hidden, "relu"), learned_bias=True)
    same(infinite_width(prior).kernel, convolve(hidden, 1, torch_weights(30)))
    up = prior_of(nn.ConvTranspose1d(40, 30, 4, stride=2, padding=1))
    # torch takes the outgoing channels for the fan-in of a transposed convolution: 30 x 4.
    weights = Weights.standard(160 / 360, 1 / 360, fan_in=160)
    spread = convolve(upsample(NOISE, 2, "zero"), 4, weights, before=2)
    same(infinite_width(up, max_period=None).kernel, spread)
    odd = nn.ConvTranspose1d(40, 30, 3, stride=2, padding=1, output_padding=1, bias=False)
    white = StationaryKernel.white((8,))
    variances = infinite_width(prior_of(odd), code=white, max_period=None).kernel.variances
    # A checkerboard: one tap on even pixels, two on odd ones.
    assert float(variances[1] / variances[0]) == pytest.approx(2)


CIRCULAR = {"padding": "circular"}


def nearest_decoder(w: int) -> nn.Module:
    style = Style(1, "none", "relu", bias=False, **CIRCULAR)
    return Decoder(
        (32,), 1, width=w, upsamplings=2, kernel_size=3, upsampling="nearest", style=style
    )


def tanh_decoder(w: int) -> nn.Module:
    style = Style(1, "mean-only", "tanh", **CIRCULAR)
    return Decoder((32,), 1, width=w, upsamplings=2, kernel_size=3, style=style)


def bounded_decoder(w: int) -> nn.Module:
    style = Style(1, "mean-only", "leaky-relu-0.01", **CIRCULAR)
    return LipschitzDecoder((16,), 1, code_channels=w, width=w, upsamplings=1, style=style)


def residual(w: int) -> nn.Module:
    return ResNet(1, w, width=w, blocks=1, style=Style(1, **CIRCULAR), inner_padding="circular")


def skip(w: int, dims: int = 1) -> nn.Module:
    style = Style(dims, **CIRCULAR)
    mode = "bilinear" if dims == 1 else "nearest"
    return SkipNet(1, w, width=w, scales=1, skip_channels=w, upsampling=mode, style=style)


def pooled(w: int) -> nn.Module:
    layers = [conv(w, w), nn.ReLU(), nn.MaxPool1d(2), conv(w, w), nn.LeakyReLU(), conv(w, 1, 1)]
    return nn.Sequential(*layers)


NETS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "convolutions": (
        lambda w: ConvNet(1, w, width=w, layers=2, style=Style(1, activation="relu", **CIRCULAR)),
        (16,),
    ),
    "fixed filters": (
        lambda w: FixedConvNet(1, w, width=w, layers=2, style=Style(1, **CIRCULAR)),
        (16,),
    ),
    "residual": (residual, (16,)),
    "nearest decoder": (nearest_decoder, (8,)),
    "deep decoder": (
        lambda w: Decoder((32,), 1, width=w, upsamplings=2, style=Style(1, activation="relu")),
        (8,),
    ),
    "tanh decoder": (tanh_decoder, (8,)),
    "bounded decoder": (bounded_decoder, (8,)),
    "skip": (skip, (16,)),
    "skip 2D": (lambda w: skip(w, 2), (6, 4)),
    "max pooling": (pooled, (12,)),
}


MARKS = {
    **dict.fromkeys(("skip 2D", "deep decoder", "bounded decoder"), pytest.mark.long),
    **dict.fromkeys(("skip", "tanh decoder", "residual", "nearest decoder"), pytest.mark.slow),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS.get(n, ())) for n in NETS])
def test_the_limit_agrees_with_wide_networks(name: str) -> None:
    build, grid = NETS[name]
    width, samples = 32, 100

    def prior(seed: int) -> ImagePrior:
        return torus_prior(lambda: build(width), width, grid, seed)

    kernel = infinite_width(prior(0), max_period=None).kernel
    covariance, ntk = measured(prior, range(samples), kernel.period[0])
    scale, size = kernel.variances.mean(), kernel.ntk_table.abs().max()
    # Where few shifts are independent, sqrt(2/samples) = 0.14 of the variance is one standard
    # error of the covariance; the tangent kernel sums over channels and has about 0.03.
    assert (covariance - kernel.to_dense()).square().mean().sqrt() < 0.3 * scale
    assert (ntk - kernel.to_dense("ntk")).square().mean().sqrt() < 0.1 * size


@pytest.mark.slow
def test_the_average_of_measured_tangent_kernels_is_the_limit() -> None:
    total, samples = 0, 8
    for seed in range(samples):
        prior = torus_prior(lambda: nearest_decoder(128), 128, (8,), seed)
        ntk = NTK(prior, prior.init(seed)).to_dense()
        total = total + ntk / samples
    # torch.func.linearize has read memory that circular padding leaves empty (torch 2.13).
    one = measured(lambda _: prior, range(seed, seed + 1), 32)[1]
    torch.testing.assert_close(ntk, one, rtol=0, atol=1e-12 * float(one.max()))
    dense = infinite_width(prior, max_period=None).kernel.to_dense("ntk")
    # About 1.3/sqrt(width x samples) for each of three layers (measured), times two.
    assert (total - dense).square().mean().sqrt() < 0.14 * dense.max()


def exponent(dims: int, widths: list[int], samples: int, repeats: int, tangent: bool) -> float:
    """Exponent of the root mean square error in the width."""
    grid = (8,) if dims == 1 else (4, 3)
    # Without biases, whose share of the kernel is constant and falls with the width.
    style = Style(dims, "none", "relu", bias=False, **CIRCULAR)
    errors = []
    for width in widths:

        def prior(seed: int, width: int = width) -> ImagePrior:
            return torus_prior(
                lambda: ConvNet(1 if tangent else width, width, width=width, layers=2, style=style),
                width,
                grid,
                seed,
                initialisation="kaiming-normal",
            )

        exact = infinite_width(prior(0)).kernel.to_dense("ntk" if tangent else "covariance")
        squares = []
        for repeat in range(repeats):
            seeds = range(repeat * samples, (repeat + 1) * samples)
            found = measured(prior, seeds, 1, tangent=tangent)[tangent]
            squares.append(float(((found - exact) / exact.max()).square().mean()))
        errors.append(math.sqrt(np.mean(squares)))
    return float(np.polyfit(np.log(widths), np.log(errors), 1)[0])


@pytest.mark.long
@pytest.mark.parametrize("tangent", [False, True], ids=["covariance", "ntk"])
def test_errors_fall_with_the_root_of_the_width(tangent: bool) -> None:
    # Forty repeats know each error to about 15 %, so the exponent over a factor 9 to 0.1.
    assert exponent(1, [16, 48, 144], 3, 40, tangent) == pytest.approx(-0.5, abs=0.2)


@pytest.mark.long
@pytest.mark.parametrize("tangent", [False, True], ids=["covariance", "ntk"])
@pytest.mark.parametrize("dims", [1, 2])
def test_errors_fall_with_the_root_of_the_width_up_to_256(dims: int, tangent: bool) -> None:
    found = exponent(dims, [16, 32, 64, 128, 256], 8, 40, tangent)
    assert found == pytest.approx(-0.5, abs=0.15)


@pytest.mark.long
def test_errors_fall_with_the_root_of_the_samples() -> None:
    errors = []
    exact = infinite_width(torus_prior(lambda: residual(64), 64, (16,), 0)).kernel.to_dense("ntk")
    for samples in (4, 64):
        squares = []
        for repeat in range(12):
            seeds = range(repeat * samples, (repeat + 1) * samples)
            ntk = measured(lambda s: torus_prior(lambda: residual(64), 64, (16,), s), seeds, 1)[1]
            squares.append(float((ntk - exact).square().mean()))
        errors.append(math.sqrt(np.mean(squares)))
    # A factor of 4, but for the bias of a finite width, of order 1/64.
    assert 2 < errors[0] / errors[1] < 6
