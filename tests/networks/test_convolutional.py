"""The convolutional families against independent evaluations, and their published sizes."""

import functools
import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.networks import ImagePrior
from dipkernels.networks.decoders import Decoder, LipschitzDecoder, TransposedDecoder
from dipkernels.networks.generators import ConvNet, FixedConvNet
from dipkernels.networks.resnet import ResNet
from dipkernels.networks.skip import SkipNet
from dipkernels.networks.unet import UNet
from helpers.convolutions import convolve, crop, transposed
from helpers.priors import perturbed
from helpers.references import (
    Reference,
    decoder,
    lipschitz_decoder,
    res_net,
    skip_net,
    u_net,
)

SIZES = [(16, 24), (13, 22), (31, 17), (29,), pytest.param((9, 10, 11), marks=pytest.mark.slow)]


def build(name: str, size: tuple[int, ...], **options: object) -> tuple[ImagePrior, list[Tensor]]:
    """Make a bare network with two channels, and draw parameters in the order of their use."""
    prior = networks.create(name, image_size=size, channels=2, output="none", **options)
    prior = prior.to(dtype=torch.float64)
    return prior, list(perturbed(prior.init(0), seed=3).values())


def check(prior: ImagePrior, values: list[Tensor], reference: Reference, expected: object) -> None:
    image = prior.image(dict(zip(prior.parameter_shapes, values, strict=True)))
    assert reference.finished()
    assert image.std() > 1e-3
    # Only the order of sums differs.
    np.testing.assert_allclose(image.numpy(), expected, rtol=1e-10, atol=1e-10)


# --- Parameter counts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "channels", "count"),
    [  # facts.md, section 1
        ("denoise", 3, 2_217_831),
        ("jpeg", 3, 572_827),
        ("inpaint-vase", 3, 2_157_955),
        ("inpaint-kate", 3, 3_002_627),
        ("library", 3, 2_996_467),
        ("super-resolution", 3, 2_217_831),
        ("restore-barbara", 1, 2_217_573),
        ("restore-kate", 3, 1_027_379),
        ("report-denoise", 3, 2_184_307),
        ("report-inpaint", 3, 2_965_507),
    ],
)
def test_parameter_counts_of_skip_net(variant: str, channels: int, count: int) -> None:
    entry = networks.entry("skip").variant(variant)
    options = dict(entry.options)
    if entry.code == "meshgrid":
        options["code_channels"] = 2
    assert count_parameters(entry, channels, options) == count


@pytest.mark.parametrize(
    ("variant", "upsampling", "downsampling", "rate", "iterations"),
    [  # facts.md, sections 1 and 2
        ("denoise", "bilinear", "stride", 0.01, 3000),
        ("jpeg", "bilinear", "stride", 0.01, 2400),
        ("inpaint-vase", "nearest", "stride", 0.01, 5001),
        ("inpaint-kate", "nearest", "stride", 0.01, 6001),
        ("library", "nearest", "stride", 0.01, 3001),
        ("super-resolution", "bilinear", "stride", 0.01, 2000),
        ("flash", ("nearest",) * 2 + ("bilinear",) * 3, "stride", 0.1, 601),
        ("restore-barbara", "bilinear", "stride", 0.001, 11000),
        ("restore-kate", "bilinear", "average", 0.01, 1000),
        ("report-denoise", "bilinear", "stride", 1e-4, 5000),
        ("report-inpaint", "nearest", "stride", 1e-4, 7000),
    ],
)
def test_settings_of_skip_net_that_no_count_shows(
    variant: str,
    upsampling: str | tuple[str, ...],
    downsampling: str,
    rate: float,
    iterations: int,
) -> None:
    entry = networks.entry("skip").variant(variant)
    assert entry.options["upsampling"] == upsampling
    assert entry.options["downsampling"] == downsampling
    assert (entry.learning_rate, entry.iterations) == (rate, iterations)


def count_parameters(entry: networks.Entry, channels: int, options: dict[str, object]) -> int:
    recipe = entry.builder((512, 512), channels, **options)
    with torch.device("meta"):  # shapes without numbers
        module = recipe.factory()
    return sum(p.numel() for p in module.parameters())


def unet_count(widths: list[int], code: int, affine: int, up: int) -> int:
    """Pairs of convolutions down, doublings by kernels of ``up`` pixels, pairs up, a head."""
    total, before = 0, code
    for width in widths:
        total += 9 * before * width + 9 * width**2 + 2 * (1 + affine) * width
        before = width
    for width, below in pairwise(widths):
        total += up * below * width + width + 9 * (2 * width + width) * width + 2 * width
    return total + 3 * widths[0] + 3


@pytest.mark.parametrize(
    ("name", "variant", "options", "channels", "count"),
    [
        ("deep-decoder", None, {"width": 64}, 3, 25_536),
        ("deep-decoder", "compress", {}, 3, 25_536),
        ("deep-decoder", None, {}, 3, 100_224),
        ("deep-decoder", "inpaint", {}, 4, 397_312),
        ("deep-decoder-over", None, {}, 3, 6 * (512**2 + 2 * 512) + 3 * 512),
        ("conv-decoder", None, {}, 3, 6 * (9 * 128**2 + 2 * 128) + 3 * 128),
        ("transposed-decoder", None, {}, 1, 3 * (16 * 85**2 + 2 * 85) + 85),
        ("conv", None, {}, 1, 5 * (9 * 85**2 + 2 * 85) + 85),
        ("fixed-conv", None, {}, 1, 4 * (128**2 + 2 * 128) + 128),
        # two of 3x3 and bias and a learned bias, at six grids, the first from 32 channels
        (
            "lipschitz-decoder", None, {}, 3,
            9 * 128 * (32 + 11 * 128) + 12 * 2 * 128 + 3 * 128 + 3,
        ),
        ("unet", None, {}, 3, unet_count([8, 16, 32, 64, 128, 128], 1, 0, 16)),
        ("unet", "get-net", {}, 3, unet_count([16, 32, 64, 128, 256], 32, 2, 9)),
        # first with bias; 8 x 2 without, with normalisation; one with both; last with bias
        (
            "resnet", None, {}, 3,
            9 * 32 + 32 + 16 * (9 * 32**2 + 64) + (9 * 32**2 + 32 + 64) + 9 * 32 * 3 + 3,
        ),
        # per scale: skip, stride, conv, merged norm, 3x3, 1x1; see facts.md: 49.7 million
        (
            "wide-skip", None, {}, 1,
            sum(
                (4 * (i + 3) + 1024 * (9 * i + 3) + 1024 * (9 * 1024 + 3) + 2 * 1028
                 + 1024 * (9 * 1028 + 3) + 1024 * (1024 + 3))
                for i in (32, 1024)
            ) + 1025,
        ),
    ],
)  # fmt: skip
def test_parameter_counts_of_the_others(
    name: str, variant: str | None, options: dict[str, object], channels: int, count: int
) -> None:
    entry = networks.entry(name)
    entry = entry if variant is None else entry.variant(variant)
    # None stands for as many channels of the code as the width, which the builder knows.
    assert count_parameters(entry, channels, {**entry.options, **options}) == count


# --- Networks --------------------------------------------------------------------------------

SKIP_CASES: list[dict[str, object]] = [
    {},
    {"skip_channels": 0, "upsampling": "nearest"},
    {"skip_channels": (0, 2, 3), "upsampling": ("nearest", "bilinear", "nearest")},
    {"width": (4, 5, 7), "downsampling": "average", "pointwise": False},
    {"downsampling": "max", "normalisation": "instance", "padding": "circular"},
    {"upsampling": "gaussian", "normalisation": "mean-only", "activation": "swish"},
    {"upsampling": "transposed", "padding": "zero", "activation": "gelu", "kernel_size_up": 5},
    {"normalisation": "none", "bias": False, "activation": "relu", "kernel_size_down": 5},
    {"upsampling": "transposed", "bias": False, "activation": "none"},
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", SKIP_CASES, ids=lambda case: "-".join(map(str, case)) or "default")
def test_skip_net_is_that_of_ulyanov(size: tuple[int, ...], case: dict[str, object]) -> None:
    options = {"width": 6, "skip_channels": 3, "scales": 3, "code_channels": 5, **case}
    prior, values = build("skip", size, **options)
    style = {k: case[k] for k in ("normalisation", "activation", "padding", "bias") if k in case}
    reference = Reference(values, **style)

    # Kernels of 5 need 3 pixels to reflect 2 of them.
    least = 3 if 5 in case.values() else 2
    scales = max(h for h in range(4) if math.ceil(min(size) / 2**h) >= least)

    def each(option: object) -> list:
        return (list(option) if isinstance(option, tuple) else [option] * 3)[:scales]

    expected = skip_net(
        reference,
        prior.code[0].numpy(),
        skip_channels=each(options["skip_channels"]),
        upsampling=each(case.get("upsampling", "bilinear")),
        downsampling=str(case.get("downsampling", "stride")),
        pointwise=bool(case.get("pointwise", True)),
    )
    check(prior, values, reference, expected)


def test_a_small_image_loses_the_coarsest_scales() -> None:
    options = {"width": (3, 4, 5, 6), "skip_channels": (1, 0, 2, 2), "scales": 4}
    prior, values = build("skip", (7, 12), code_channels=2, **options)
    reference = Reference(values)
    expected = skip_net(
        reference,
        prior.code[0].numpy(),
        skip_channels=[1, 0],  # 7 -> 4 -> 2 pixels
        upsampling=["bilinear"] * 2,
        downsampling="stride",
        pointwise=True,
    )
    check(prior, values, reference, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "case",
    [
        {},
        {"upsampling": "bilinear", "normalisation": "batch", "padding": "reflect"},
        {"upsampling": "nearest", "normalisation": "mean-only", "downsampling": "average"},
        {"upsampling": "gaussian", "normalisation": "none", "activation": "tanh"},
    ],
    ids=lambda case: case.get("upsampling", "default"),
)
def test_unet_is_that_of_ulyanov(size: tuple[int, ...], case: dict[str, str]) -> None:
    prior, values = build("unet", size, feature_scale=32, code_channels=3, **case)
    style = {"normalisation": "instance", "activation": "relu", "padding": "zero"}
    reference = Reference(values, **{k: case.get(k, v) for k, v in style.items()})
    halvings = min(5, max(h for h in range(6) if math.ceil(min(size) / 2**h) >= 2))
    expected = u_net(
        reference,
        prior.code[0].numpy(),
        halvings=halvings,
        upsampling=case.get("upsampling", "transposed"),
        downsampling=case.get("downsampling", "max"),
    )
    check(prior, values, reference, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", [None, "reflect", "circular"])
def test_resnet_is_that_of_ulyanov(size: tuple[int, ...], padding: str | None) -> None:
    prior, values = build("resnet", size, blocks=3, width=5, padding=padding, code_channels=2)
    reference = Reference(values, padding=padding or "reflect")
    expected = res_net(reference, prior.code[0].numpy(), blocks=3, inner=padding or "zero")
    check(prior, values, reference, expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("deep-decoder", {}),
        ("deep-decoder", {"upsampling": "gaussian", "code_channels": 3}),
        ("deep-decoder", {"order": "upsample-convolve-activate-normalise"}),
        ("deep-decoder-over", {}),
        ("deep-decoder-over", {"order": "upsample-convolve-normalise-activate", "bias": True}),
        ("conv-decoder", {}),
        ("conv-decoder", {"normalisation": "none", "upsampling": "nearest", "padding": "circular"}),
        ("conv-decoder", {"upsampling": "transposed", "kernel_size": 5, "activation": "sin"}),
    ],
)
def test_decoders_are_those_of_heckel_and_hand(
    name: str, case: dict[str, object], size: tuple[int, ...]
) -> None:
    prior, values = build(name, size, width=6, upsamplings=3, **case)
    defaults = {"normalisation": "batch", "activation": "relu", "padding": "reflect", "bias": False}
    reference = Reference(values, **{k: case.get(k, v) for k, v in defaults.items()})
    order = "convolve-upsample-normalise-activate" if name == "deep-decoder-over" else "convolve"
    order = str(case.get("order", order))
    halvings = 2 if case.get("kernel_size") == 5 and min(size) < 17 else 3
    assert prior.code.shape[2:] == tuple(math.ceil(side / 2**halvings) for side in size)
    expected = decoder(
        reference,
        prior.code[0].numpy(),
        size,
        upsamplings=halvings,
        upsampling=str(case.get("upsampling", "bilinear")),
        convolve_first=order.startswith("convolve"),
        activate_first="normalise-activate" not in order,
    )
    check(prior, values, reference, expected)


@pytest.mark.parametrize("size", SIZES)
def test_transposed_decoder_is_that_of_heckel_and_soltanolkotabi(size: tuple[int, ...]) -> None:
    prior, values = build("transposed-decoder", size, width=5)
    reference = Reference(values, activation="relu", bias=False)
    x = prior.code[0].numpy()
    assert x.shape == (5, *(math.ceil(side / 8) for side in size))
    for _ in range(3):
        x = reference.norm(reference.act(transposed(x, next(reference.values))))
    check(prior, values, reference, reference.conv(crop(x, size)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", ["reflect", "zero", "circular"])
def test_full_resolution_networks_of_heckel_and_soltanolkotabi(
    size: tuple[int, ...], padding: str
) -> None:
    prior, values = build("conv", size, width=5, layers=3, padding=padding, last_kernel_size=3)
    reference = Reference(values, activation="relu", bias=False, padding=padding)
    x = prior.code[0].numpy()
    for _ in range(3):
        x = reference.norm(reference.act(reference.conv(x)))
    check(prior, values, reference, reference.conv(x))

    prior, values = build("fixed-conv", size, width=5, layers=3, padding=padding)
    reference = Reference(values, activation="relu", bias=False)
    x = prior.code[0].numpy()
    line = np.array([1.0, 3.0, 3.0, 1.0]) / 4
    kernel = functools.reduce(np.multiply.outer, [line] * len(size))
    for _ in range(3):
        filtered = [
            convolve(channel[None], kernel[None, None], padding=padding, border=(2, 1))
            for channel in x
        ]
        x = reference.norm(reference.act(reference.conv(np.concatenate(filtered))))
    check(prior, values, reference, reference.conv(x))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("upsampling", ["bilinear", "gaussian"])
@pytest.mark.parametrize("bound", [0.5, 3.0])
def test_lipschitz_decoder_is_that_of_shi(
    size: tuple[int, ...], upsampling: str, bound: float
) -> None:
    prior, values = build(
        "lipschitz-decoder", size, width=5, upsamplings=3, upsampling=upsampling,
        lipschitz=bound, code_channels=4,
    )  # fmt: skip
    reference = Reference(values, normalisation="mean-only", activation="leaky-relu-0.01")
    expected = lipschitz_decoder(
        reference, prior.code[0].numpy(), size, upsamplings=3, upsampling=upsampling, bound=bound
    )
    check(prior, values, reference, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "net"),
    [
        ("skip", SkipNet),
        ("unet", UNet),
        ("resnet", ResNet),
        ("conv", ConvNet),
        ("fixed-conv", FixedConvNet),
        ("deep-decoder", lambda: Decoder((64, 70))),
        ("transposed-decoder", lambda: TransposedDecoder((64, 70))),
        ("lipschitz-decoder", lambda: LipschitzDecoder((64, 70))),
    ],
)
def test_modules_by_default_are_the_registered_networks(
    name: str, net: Callable[[], nn.Module]
) -> None:
    registered = networks.create(name, image_size=(64, 70), output="none")
    plain = ImagePrior(net, registered.code)
    assert torch.equal(plain.image(plain.init(1)), registered.image(registered.init(1)))
