"""What the reader of infinite-width kernels refuses, and what it remarks."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.base.seeds import generator
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import infinite_width
from dipkernels.kernels.infinite.codes import code_kernel, recognised
from dipkernels.kernels.stationary import StationaryKernel
from dipkernels.networks import ImagePrior
from dipkernels.networks.hybrids import ConvolutionStack
from dipkernels.priors import codes
from helpers.torus import CircularUpsample


def code_of(kind: str, channels: int = 40, size: tuple[int, ...] = (8, 8)) -> Tensor:
    return codes.DRAWN[kind](channels, size, generator("code", 1))[None]


def test_moments_of_codes_are_about_zero() -> None:
    noise = code_kernel(code_of("noise"), None)
    assert float(noise.covariance[0, 0]) == pytest.approx(1 / 300, rel=1e-12)
    assert float(noise.covariance[3, 1]) == pytest.approx(1 / 400, rel=1e-12)
    assert float(noise.mean) == pytest.approx(0.05)
    phases = code_kernel(code_of("phases"), None)
    assert float(phases.covariance[0, 0]) == 0.5
    assert float(phases.covariance[1, 0]) == 0
    many = code_of("noise", 3000, (8,))
    empirical = code_kernel(many, "empirical").covariance
    # 24,000 values: a standard error of 0.006 of the second moment.
    torch.testing.assert_close(empirical, code_kernel(many, None).covariance, rtol=0.03, atol=0)
    features = code_of("fourier", 20_000, (64,))
    fourier, measured = (code_kernel(features, k).covariance for k in ("fourier", "empirical"))
    assert fourier[0] == 0.5
    # Pairs across the border, which a line doesn't join, are few at short lags.
    torch.testing.assert_close(measured[:4], fourier[:4], rtol=0, atol=0.03)
    given = StationaryKernel.white((8, 8))
    assert code_kernel(code_of("noise"), given) is given


def test_codes_that_are_not_stationary_or_not_known_are_refused() -> None:
    prior = networks.create("skip", image_size=32, variant="inpaint-vase", output="none", width=8)
    with pytest.raises(InvalidInputError, match="meshgrid"):
        infinite_width(prior)
    with pytest.raises(InvalidInputError, match="fourier"):
        recognised(code_of("fourier")[0].double())
    with pytest.raises(InvalidInputError, match="not recognised"):
        recognised(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)).double() ** 4)
    with pytest.raises(InvalidInputError, match="empirical"):
        code_kernel(code_of("noise"), "normal")
    with pytest.raises(InvalidInputError, match="size"):
        code_kernel(code_of("noise"), StationaryKernel.white((4,)))


class Net(nn.Module):
    """A network whose last step is a function of its parts and of rectified features."""

    def __init__(self, end: Callable[["Net", Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(40, 40, 3, padding=1)
        self.second = nn.Conv2d(40, 40, 1)
        self.norm = nn.BatchNorm2d(40)
        self.square = nn.Parameter(torch.randn(8, 8))
        self.grouped = nn.Conv2d(40, 40, 1, groups=2)
        self.end = end

    def forward(self, z: Tensor) -> Tensor:
        return self.end(self, torch.relu(self.first(z)))


F = nn.functional
CONSTANT = torch.randn(5, 40, 1, 1, generator=torch.Generator().manual_seed(0))
REFUSED: dict[str, Callable[[Net, Tensor], Tensor]] = {
    "used before": lambda net, x: net.second(torch.relu(net.second(x))),
    "same layer of weights": lambda net, x: net.second(x + x * 0.5),
    "not Gaussian": lambda net, x: torch.tanh(x),
    "align_corners": lambda net, x: F.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=True
    ),
    "bicubic": lambda net, x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "whole factor": lambda net, x: F.interpolate(x, size=(12, 12)),
    "groups": lambda net, x: net.grouped(x),
    "one filter for each channel": lambda net, x: F.conv2d(x, CONSTANT),
    "product": lambda net, x: x * x,
    "'pixel_unshuffle'": lambda net, x: F.pixel_unshuffle(x, 2),
    "doesn't divide": lambda net, x: F.conv2d(x, net.second.weight, stride=3),
    "don't divide": lambda net, x: F.avg_pool2d(x, 3),
    "side by side": lambda net, x: F.avg_pool2d(x, 2, stride=1),
    "padded or cropped": lambda net, x: net.norm(x[..., 1:, :]),
    "it grows": lambda net, x: F.conv2d(x, net.second.weight, padding=1),
    "different sizes": lambda net, x: torch.cat([F.avg_pool2d(x, 2), x[..., :4, :4]], dim=1),
    "a sum with something": lambda net, x: x + CONSTANT[:1],
    "threshold as low": lambda net, x: F.softplus(net.second(x), threshold=3.0),
    "random in training": lambda net, x: F.dropout(x, 0.5),
    "channels must be the last": lambda net, x: F.linear(x, net.square),
    "permuted or flattened": lambda net, x: net.second(x.permute(0, 1, 3, 2)),
    "another way than": lambda net, x: x.reshape(1, 20, 16, 8),
    "mixes channels and pixels": lambda net, x: x.flatten(1)[:, :, None],
    "for each pixel": lambda net, x: F.layer_norm(x, x.shape[1:], weight=torch.ones(x.shape[1:])),
    "its slopes": lambda net, x: F.prelu(net.second(x), CONSTANT[0, :, 0, 0]),
    "over all pixels": lambda net, x: x.mean(dim=1, keepdim=True),
}


@pytest.mark.parametrize("message", REFUSED)
def test_operations_without_a_limit_are_named(message: str) -> None:
    prior = ImagePrior(lambda: Net(REFUSED[message]), code_of("noise"), check=False)
    with pytest.raises(InvalidInputError, match=message):
        infinite_width(prior, drawn_pixels=0)


def test_the_message_has_the_path() -> None:
    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(40, 40, 1), nn.Sequential(nn.Softsign()))

    with pytest.raises(InvalidInputError, match=r"in '1\.0'"):
        infinite_width(ImagePrior(build, code_of("noise")))
    tied = ImagePrior(lambda: ConvolutionStack(40, 3, tied=True), code_of("noise"))
    with pytest.raises(InvalidInputError, match=r"'layers\.0'"):
        infinite_width(tied)


def test_images_of_wrong_sizes_say_what_to_do() -> None:
    prior = networks.create("skip", image_size=(33, 40), output="none", width=8)
    with pytest.raises(InvalidInputError, match="multiples of all strides"):
        infinite_width(prior)


def test_weights_and_biases_must_have_mean_zero() -> None:
    def shifted(value: str) -> nn.Module:
        layer = nn.Conv2d(40, 40, 1)
        nn.init.constant_(getattr(layer, value), 0.3)
        return layer

    for value in ("weight", "bias"):
        prior = ImagePrior(lambda value=value: shifted(value), code_of("noise"))
        with pytest.raises(InvalidInputError, match=rf"'{value}' starts with mean 0\.3"):
            infinite_width(prior)

    def normed() -> nn.Module:
        layer = nn.BatchNorm2d(40)
        nn.init.constant_(layer.bias, 0.1)
        return nn.Sequential(nn.Conv2d(40, 40, 1), layer)

    with pytest.raises(InvalidInputError, match="start at 0"):
        infinite_width(ImagePrior(normed, code_of("noise")))


@pytest.mark.slow
def test_outputs_and_options() -> None:
    kernels = {
        output: networks.create("conv", image_size=16, output=output)
        for output in ("sigmoid", "255", "none")
    }
    with pytest.raises(InvalidInputError, match="before_output=True"):
        infinite_width(kernels["sigmoid"])
    bare = infinite_width(kernels["none"], drawn_pixels=0)
    for output in ("sigmoid", "255"):
        behind = infinite_width(kernels[output], before_output=True, drawn_pixels=0)
        assert torch.equal(behind.kernel.ntk, bare.kernel.ntk)
        assert any("sigmoid" in note for note in behind.notes)
    for options in (
        {"before_output": True},
        {"parameterisation": "mup"},
        {"max_period": 0},
        {"drawn_pixels": -1},
    ):
        with pytest.raises(InvalidInputError):
            infinite_width(kernels["none"], **{"drawn_pixels": 0, **options})  # type: ignore[arg-type]

    def after(net: Net, x: Tensor) -> Tensor:
        return net.second(torch.sigmoid(net.norm(x)))

    prior = ImagePrior(lambda: Net(after), code_of("noise"))
    # a sigmoid within, of what isn't Gaussian
    with pytest.raises(InvalidInputError, match="its input is not Gaussian"):
        infinite_width(prior, before_output=True, drawn_pixels=0)


def test_narrow_layers_and_small_grids_are_remarked() -> None:
    prior = networks.create("skip", image_size=32, output="none", width=64)
    notes = " ".join(infinite_width(prior, drawn_pixels=0).notes)
    for part in ("skip.0 (4)", "71%", "torus", "4 pixels", "large images"):
        assert part in notes

    def build() -> nn.Module:
        return nn.Sequential(nn.Conv2d(40, 64, 1), nn.Upsample(scale_factor=2), nn.ReLU())

    assert not infinite_width(ImagePrior(build, code_of("noise"))).notes


def test_a_crop_moves_the_phases() -> None:
    class Cropped(nn.Module):
        def __init__(self, start: int) -> None:
            super().__init__()
            self.conv = nn.Conv1d(40, 40, 1)
            self.up = CircularUpsample("nearest")
            self.start = start

        def forward(self, z: Tensor) -> Tensor:
            return self.up(self.conv(z))[..., self.start : self.start + 11]

    code = code_of("noise", size=(8,))
    first, moved = (
        infinite_width(ImagePrior(lambda s=s: Cropped(s), code), max_period=None).kernel
        for s in (0, 3)
    )
    assert first.size == (16,)
    torch.testing.assert_close(moved.covariance_table, first.covariance_table.flip(0))
    # Pixel 0 and 1 are copies of one value; 1 and 2 of two.
    assert float(first.covariance_table[0, 1]) == pytest.approx(1 / 900 + 1 / 120)
    assert float(first.covariance_table[1, 1]) == pytest.approx(1 / 1200 + 1 / 120)
