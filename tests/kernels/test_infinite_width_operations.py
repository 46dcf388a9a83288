"""Operations that are read at infinite width: against the calculus by hand, and wide networks."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from dipkernels.errors import InvalidInputError
from dipkernels.kernels import infinite_width
from dipkernels.kernels.stationary import (
    StationaryKernel,
    Weights,
    activate,
    activation,
    convolve,
    upsample,
)
from dipkernels.kernels.stationary.branches import translated
from dipkernels.kernels.stationary.normalisation import group_norm
from dipkernels.kernels.stationary.upsampling import pixel_shuffle
from dipkernels.networks import ImagePrior
from helpers.torus import measured, torus_prior

F = nn.functional
NOISE = StationaryKernel.white((8,), variance=1 / 1200, mean=1 / 20)


def code(grid: tuple[int, ...] = (8,), channels: int = 40) -> Tensor:
    return 0.1 * torch.rand(1, channels, *grid, generator=torch.Generator().manual_seed(0))


def conv(into: int, out: int, size: int = 3, dims: int = 1, **options: object) -> nn.Module:
    make = nn.Conv1d if dims == 1 else nn.Conv2d
    options = {"padding": size // 2, "padding_mode": "circular", **options}
    return make(into, out, size, **options)  # type: ignore[arg-type]


def torch_weights(fan_in: int, bias: bool = True) -> Weights:
    return Weights.standard(1 / 3, bias / (3 * fan_in), fan_in=fan_in, bias=bias)


FIRST = convolve(NOISE, 3, torch_weights(120))  # a convolution of 40 channels to 64


def read(*layers: Callable[[], nn.Module], **options: object) -> StationaryKernel:
    def build() -> nn.Module:
        return nn.Sequential(conv(40, 64), *(layer() for layer in layers))

    return infinite_width(ImagePrior(build, code()), drawn_pixels=0, **options).kernel  # type: ignore[arg-type]


def same(found: StationaryKernel, wanted: StationaryKernel) -> None:
    for name in ("covariance_table", "ntk_table", "mean"):
        torch.testing.assert_close(
            getattr(found, name), getattr(wanted, name), rtol=1e-12, atol=1e-14
        )


class Function(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], str, dict[str, float]]] = {
    "softplus": (nn.Softplus, "softplus", {}),
    "softplus of another beta": (lambda: nn.Softplus(3.0), "softplus", {"beta": 3.0}),
    "hardtanh": (nn.Hardtanh, "hardtanh", {}),
    "bounds of hardtanh": (
        lambda: nn.Hardtanh(-0.02, 0.05), "hardtanh", {"low": -0.02, "high": 0.05},
    ),
    "relu6": (nn.ReLU6, "hardtanh", {"low": 0.0, "high": 6.0}),
    "clamp": (
        lambda: Function(lambda x: x.clamp(-0.1, 0.2)), "hardtanh", {"low": -0.1, "high": 0.2},
    ),
    "clamp from below": (lambda: Function(lambda x: x.clamp(min=0)), "relu", {}),
    "gelu with tanh": (lambda: nn.GELU(approximate="tanh"), "gelu-tanh", {}),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_read(name: str) -> None:
    layer, known, options = ACTIVATIONS[name]
    same(read(layer), activate(FIRST, known, **options))


NODES, SHARES = np.polynomial.legendre.leggauss(40)


def normal_nodes(mean: float, spread: float, kinks: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Legendre nodes between standard deviations and kinks, weighted with the density."""
    ends = [mean + spread * t for t in np.arange(-9, 9.5)]
    ends = sorted({*ends, *(t for t in kinks if ends[0] < t < ends[-1])})
    half = np.diff(ends)[:, None] / 2
    x = (np.array(ends)[:-1, None] + half + half * NODES).ravel()
    return x, (half * SHARES).ravel() * stats.norm.pdf(x, mean, spread)


def expectation(function: Callable, q1: float, q2: float, k: float, kinks: list[float]) -> float:
    """E f(x) f(y): over x, and over y given x."""
    x, weights = normal_nodes(0.0, math.sqrt(q1), kinks)
    inner = []
    for value in x:
        y, given = normal_nodes(k / q1 * value, math.sqrt(q2 - k**2 / q1), kinks)
        inner.append(given @ function(y))
    return float(weights @ (function(x) * np.array(inner)))


def tanh_gelu_slope(x: np.ndarray) -> np.ndarray:
    values = torch.from_numpy(x).requires_grad_()
    (slope,) = torch.autograd.grad(F.gelu(values, approximate="tanh").sum(), values)
    return slope.numpy()


DUALS: dict[str, tuple[dict[str, float], Callable, Callable, list[float]]] = {
    "hardtanh": (
        {"low": -0.7, "high": 1.2},
        lambda x: np.clip(x, -0.7, 1.2),
        lambda x: 1.0 * ((x > -0.7) & (x < 1.2)),
        [-0.7, 1.2],
    ),
    "softplus": (
        {"beta": 2.0},
        lambda x: np.logaddexp(0, 2 * x) / 2,
        lambda x: 1 / (1 + np.exp(-2 * x)),
        [],
    ),
    "gelu-tanh": (
        {},
        lambda x: F.gelu(torch.from_numpy(x), approximate="tanh").numpy(),
        tanh_gelu_slope,
        [],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", DUALS)
@pytest.mark.parametrize("rho", [-0.6, 0.97])
def test_duals_agree_with_another_quadrature(name: str, rho: float) -> None:
    options, function, slope, kinks = DUALS[name]
    dual = activation(name, **options)
    q1, q2 = 1.3, 0.6
    k = rho * math.sqrt(q1 * q2)
    given = [torch.tensor([v], dtype=torch.float64) for v in (q1, q2, k)]
    for found, wanted in (
        (dual.covariance, function),
        (dual.derivative, slope),
        (dual.scale, lambda x: x * slope(x)),
    ):
        # both to rounding; nine standard deviations leave 1e-19
        assert float(found(*given)) == pytest.approx(
            expectation(wanted, q1, q2, k, kinks), abs=1e-11
        )
    x, weights = normal_nodes(0.0, math.sqrt(q1), kinks)
    assert float(dual.mean(given[0])) == pytest.approx(float(weights @ function(x)), abs=1e-11)


def test_hardtanh_is_exact_where_x_is_y() -> None:
    one = torch.ones(1, dtype=torch.float64)
    dual = activation("hardtanh")
    inside = stats.norm.cdf(1) - stats.norm.cdf(-1)
    square = inside - 2 * stats.norm.pdf(1) + 2 * (1 - stats.norm.cdf(1))
    assert float(dual.covariance(one, one, one)) == pytest.approx(square, abs=1e-14)
    assert float(dual.derivative(one, one, one)) == pytest.approx(inside, abs=1e-14)
    assert float(dual.covariance(one, one, -one)) == pytest.approx(-square, abs=1e-12)
    nothing = torch.zeros(1, dtype=torch.float64)
    assert float(dual.covariance(nothing, nothing, nothing)) == 0


def test_a_trained_slope_has_a_part_of_its_own() -> None:
    plain = activate(FIRST, "leaky-relu", slope=0.25)
    below = activate(FIRST, "relu").covariance_table  # min(x, 0) is relu(-x)
    wanted = StationaryKernel(plain.covariance_table, plain.ntk_table + below, plain.mean)
    same(read(lambda: nn.PReLU(64)), wanted)
    same(read(nn.PReLU), wanted)

    def frozen() -> nn.Module:
        return nn.PReLU(64).requires_grad_(False)

    same(read(frozen), plain)
    drawn = infinite_width(
        ImagePrior(lambda: nn.Sequential(conv(40, 64), nn.BatchNorm1d(64), nn.PReLU(64)), code())
    )
    without = infinite_width(
        ImagePrior(
            lambda: nn.Sequential(conv(40, 64), nn.BatchNorm1d(64), nn.LeakyReLU(0.25)), code()
        )
    )
    own = drawn.kernel.ntk - without.kernel.ntk
    # E min(x, 0)^2 of a normalised x; the noise of 131,072 draws of both
    assert float(own[0]) == pytest.approx(0.5, abs=0.03)


def test_group_normalisation_divides_by_what_wide_groups_have() -> None:
    variance = float(FIRST.variances) + 1e-5
    wanted = StationaryKernel(
        FIRST.covariance_table / variance,
        FIRST.ntk_table / variance + FIRST.covariance_table / variance + 1,
        FIRST.mean,
    )
    same(read(lambda: nn.GroupNorm(2, 64)), wanted)
    same(read(lambda: nn.GroupNorm(2, 64)), group_norm(FIRST))
    bare = StationaryKernel(wanted.covariance_table, FIRST.ntk_table / variance, FIRST.mean)
    same(read(lambda: nn.GroupNorm(2, 64, affine=False)), bare)
    same(read(lambda: nn.LayerNorm((64, 8), elementwise_affine=False)), bare)
    instance = read(lambda: nn.GroupNorm(64, 64))
    same(instance, read(lambda: nn.InstanceNorm1d(64, affine=True)))
    # of features with a mean, and of groups that hold channels of two kinds
    rectified = activate(FIRST, "relu")
    moved = group_norm(rectified, own_scale=False, own_bias=False)
    assert float(moved.mean) == pytest.approx(0, abs=1e-14)
    assert float(moved.variances) == pytest.approx(1, rel=0.01)  # epsilon

    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = conv(40, 64), nn.GroupNorm(1, 96, affine=False)

        def forward(self, z: Tensor) -> Tensor:
            x = self.first(z)
            return self.norm(torch.cat([x, 3 * x.narrow(1, 0, 32)], dim=1))

    square = float(FIRST.variances) * (2 / 3 + 9 / 3)
    found = infinite_width(ImagePrior(Both, code()), drawn_pixels=0).kernel.covariance
    scale = (1 + 2 * 0) * (2 / 3 + 9 / 3) / (square + 1e-5)
    torch.testing.assert_close(found, scale * FIRST.covariance, rtol=1e-12, atol=0)


def test_numbers_are_added_and_multiplied() -> None:
    def net(x: Tensor) -> Tensor:
        return -(1 - 2 * (x - 0.3) / 4 + torch.tensor(0.25))

    wanted = translated(FIRST, -0.3)
    scaled = StationaryKernel(wanted.covariance_table / 4, wanted.ntk_table / 4, -wanted.mean / 2)
    scaled = translated(scaled, 1.25)
    wanted = StationaryKernel(scaled.covariance_table, scaled.ntk_table, -scaled.mean)
    same(read(lambda: Function(net)), wanted)
    same(
        read(lambda: Function(lambda x: torch.sub(torch.add(x, 1, alpha=3), 1))),
        translated(FIRST, 2.0),
    )
    code_moved = infinite_width(
        ImagePrior(lambda: nn.Sequential(Function(lambda z: 20 * z - 1), conv(40, 64)), code())
    )
    # uniform on [-1, 1]
    white = StationaryKernel.white((8,), variance=1 / 3)
    same(code_moved.kernel, convolve(white, 3, torch_weights(120)))
    with pytest.raises(InvalidInputError, match="not Gaussian"):
        read(lambda: Function(lambda x: torch.relu(x - 1)))
    small = infinite_width(
        ImagePrior(
            lambda: nn.Sequential(conv(40, 64), Function(lambda x: torch.relu(x - 0.01))), code()
        )
    ).kernel  # on a small grid it is drawn
    q = float(FIRST.variances)
    z = 0.01 / math.sqrt(q)
    mean = math.sqrt(q) * stats.norm.pdf(z) - 0.01 * stats.norm.sf(z)
    assert float(small.mean) == pytest.approx(mean, rel=0.01)  # of 131,072 images of 8 pixels


def test_pixels_that_were_channels_are_independent() -> None:
    noise = StationaryKernel.white((4, 6), variance=1 / 1200, mean=1 / 20)
    first = convolve(noise, 3, Weights.standard(1 / 3, 1 / 1080, fan_in=360))

    def build() -> nn.Module:
        return nn.Sequential(conv(40, 64, dims=2), nn.PixelShuffle(2), conv(16, 32, dims=2))

    prior = ImagePrior(build, code((4, 6)))
    for most in (None, 1):
        found = infinite_width(prior, drawn_pixels=0, max_period=most).kernel
        fine = pixel_shuffle(first, 2, max_period=most)
        assert fine.period == ((1, 1) if most else (2, 2))
        same(found, convolve(fine, 3, torch_weights(144)))
    table = pixel_shuffle(first, 2).covariance_table
    assert torch.equal(table[1, 0, ::2, ::2], first.covariance)
    assert float(table[1, 0, 1::2].abs().max()) == 0
    # of features with a mean, pixels of different channels share it
    rectified = pixel_shuffle(activate(first, "relu"), 2)
    mean = float(activate(first, "relu").mean)
    assert float(rectified.covariance_table[0, 1, 0, 1]) == pytest.approx(mean**2, rel=1e-12)
    zeros = upsample(first, 2, "zero")
    assert float(zeros.variances.sum()) == pytest.approx(float(first.variances))


def test_layers_on_pixels_and_dropout() -> None:
    class Mixer(nn.Module):
        def __init__(self, order: str) -> None:
            super().__init__()
            self.first, self.mix, self.last = conv(40, 64), nn.Linear(64, 50), conv(50, 2, 1)
            self.drop, self.order = nn.Dropout(0.5), order

        def forward(self, z: Tensor) -> Tensor:
            x = self.first(z)
            if self.order == "transpose":
                x = self.drop(torch.relu(self.mix(x.transpose(1, 2)))).transpose(2, 1)
            elif self.order == "movedim":
                x = torch.relu(torch.movedim(self.mix(x.movedim(1, -1)), -1, 1).contiguous())
            else:
                tokens = self.mix(x.flatten(2).permute(0, 2, 1)).relu().permute(0, 2, 1)
                x = tokens.reshape(1, 50, *z.shape[2:])
            return self.last(self.drop(x))

    hidden = activate(convolve(FIRST, 1, torch_weights(64)), "relu")
    wanted = convolve(hidden, 1, torch_weights(50))
    for order in ("transpose", "movedim", "tokens"):
        prior = ImagePrior(lambda order=order: Mixer(order), code())
        same(infinite_width(prior, drawn_pixels=0).kernel, wanted)


def test_frozen_layers_have_a_part_in_the_covariance_alone() -> None:
    def build(freeze: bool) -> nn.Module:
        net = nn.Sequential(conv(40, 64), nn.ReLU(), nn.GroupNorm(2, 64), conv(64, 2, 1))
        for name, value in net.named_parameters():
            value.requires_grad_(not freeze or name not in ("0.weight", "0.bias", "2.bias"))
        return net

    whole = infinite_width(ImagePrior(lambda: build(False), code()), drawn_pixels=0)
    frozen = infinite_width(ImagePrior(lambda: build(True), code(), check=False), drawn_pixels=0)
    assert torch.equal(frozen.kernel.covariance, whole.kernel.covariance)
    hidden = activate(convolve(NOISE, 3, Weights(1 / 3, 1 / 360, 0.0, 0.0)), "relu")
    assert float(hidden.ntk.abs().max()) == 0
    same(frozen.kernel, convolve(group_norm(hidden, own_bias=False), 1, torch_weights(64)))
    assert any("frozen" in note for note in frozen.notes)
    prior = ImagePrior(lambda: build(False), code())
    values = {
        key: value for key, value in prior.init(3).items() if key[0] in "0" or key == "2.bias"
    }
    same(infinite_width(prior.frozen(values), drawn_pixels=0).kernel, frozen.kernel)


def test_a_frozen_scale_is_not_taken_for_a_trained_one_like_it() -> None:
    def build() -> nn.Module:
        first = nn.GroupNorm(2, 64).requires_grad_(False)
        return nn.Sequential(conv(40, 64), first, nn.ReLU(), conv(64, 64, 1), nn.GroupNorm(2, 64))

    found = infinite_width(ImagePrior(build, code()), drawn_pixels=0).kernel
    hidden = activate(group_norm(FIRST, own_scale=False, own_bias=False), "relu")
    same(found, group_norm(convolve(hidden, 1, torch_weights(64))))


CODES: dict[str, tuple[Callable[..., Tensor], float, float]] = {
    "rand": (lambda *a, generator: torch.rand(*a, generator=generator), 0.5, 1 / 12),
    "rand on [-1, 1]": (
        lambda *a, generator: 2 * torch.rand(*a, generator=generator) - 1,
        0.0,
        1 / 3,
    ),
    "rand on [0, 3]": (lambda *a, generator: 3 * torch.rand(*a, generator=generator), 1.5, 0.75),
    "randn": (lambda *a, generator: torch.randn(*a, generator=generator), 0.0, 1.0),
    "0.03 randn": (lambda *a, generator: 0.03 * torch.randn(*a, generator=generator), 0.0, 9e-4),
}


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("shape", [(1, 40, 8), (1, 8, 16, 12)], ids=str)
def test_white_codes_are_recognised(name: str, shape: tuple[int, ...]) -> None:
    draw, mean, variance = CODES[name]
    z = draw(*shape, generator=torch.Generator().manual_seed(4))
    prior = ImagePrior(lambda: conv(shape[1], 8, 1, dims=len(shape) - 2, bias=False), z)
    found = infinite_width(prior)
    expected = StationaryKernel.white(shape[2:], variance=variance, mean=mean).covariance / 3
    torch.testing.assert_close(found.kernel.covariance, expected, rtol=1e-9, atol=1e-12)
    assert any("the code is taken for" in note for note in found.notes)


def test_a_covariance_of_the_code_may_be_given_by_its_lags() -> None:
    lags = torch.tensor([2.0, 1, 0.5, 0, 0, 0, 0.5, 1], dtype=torch.float64)
    prior = ImagePrior(lambda: conv(40, 8, 1, bias=False), code())
    torch.testing.assert_close(infinite_width(prior, code=lags).kernel.covariance, lags / 3)
    with pytest.raises(InvalidInputError, match="grid's shape"):
        infinite_width(prior, code=lags[:4])


def test_unusual_variances_are_measured_with_their_error_or_given() -> None:
    def build() -> nn.Module:
        layer = conv(40, 8, 1, bias=False)
        nn.init.normal_(layer.weight, std=0.3)
        return layer

    prior = ImagePrior(build, code(channels=40))
    found = infinite_width(prior)
    ratio = float(found.kernel.covariance[0]) / (40 * 0.09 / 300)
    assert ratio == pytest.approx(1, abs=0.04)  # to 1 %, as is said
    (note,) = (note for note in found.notes if "'weight'" in note)
    assert "%" in note
    given = infinite_width(prior, variances={"weight": 0.09})
    assert float(given.kernel.covariance[0]) == pytest.approx(40 * 0.09 / 300, rel=1e-12)
    assert not any("'weight'" in note for note in given.notes)
    with pytest.raises(InvalidInputError, match="'head'"):
        infinite_width(prior, variances={"head": 1.0})
    with pytest.raises(InvalidInputError, match="isn't negative"):
        infinite_width(prior, variances={"weight": -1.0})


def grouped(w: int) -> nn.Module:
    layers = [conv(w, w), nn.GroupNorm(1, w), nn.PReLU(w), nn.Dropout(0.3), conv(w, w)]
    return nn.Sequential(*layers, nn.Softplus(), Function(lambda x: 1 - 2 * x), conv(w, 1, 1))


class Shuffled(nn.Module):
    """A pixel shuffle between layers, with a layer on pixels after it."""

    def __init__(self, w: int) -> None:
        super().__init__()
        self.first, self.shuffle = conv(w, 4 * w, dims=2), nn.PixelShuffle(2)
        self.mix, self.last = nn.Linear(w, w), conv(w, 1, dims=2)

    def forward(self, z: Tensor) -> Tensor:
        x = F.hardtanh(self.shuffle(self.first(z)), -0.05, 0.1)
        x = F.gelu(self.mix(x.permute(0, 2, 3, 1)), approximate="tanh")
        return self.last(x.permute(0, 3, 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "grid", "frozen"),
    [(grouped, (10,), ()), (grouped, (10,), ("0.", "4.")), (Shuffled, (3, 2), ())],
    ids=["groups", "frozen", "shuffle"],
)
def test_the_limit_agrees_with_wide_networks(
    build: Callable[[int], nn.Module], grid: tuple[int, ...], frozen: tuple[str, ...]
) -> None:
    width, samples = 48, 80

    def prior(seed: int) -> ImagePrior:
        made = torus_prior(lambda: build(width), width, grid, seed)
        kept = {k: v for k, v in made.init(seed).items() if k.startswith(frozen)} if frozen else {}
        return made.frozen(kept) if kept else made

    kernel = infinite_width(prior(0), max_period=None).kernel
    covariance, ntk = measured(prior, range(samples), kernel.period[0])
    scale, size = kernel.variances.mean(), kernel.ntk_table.abs().max()
    # as of the other networks: sqrt(2/samples) of the variance is the covariance's standard error
    assert (covariance - kernel.to_dense()).square().mean().sqrt() < 0.3 * scale
    assert (ntk - kernel.to_dense("ntk")).square().mean().sqrt() < 0.1 * size
