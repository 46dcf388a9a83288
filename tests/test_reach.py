"""The values that a network can reach, against what its outputs are."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dipkernels import ImagePrior, fit, images, networks, tasks
from dipkernels.errors import UnitWarning
from dipkernels.priors.reach import output_range
from dipkernels.sampling import WeightPosterior
from dipkernels.tasks.misfits import Poisson, Weighted

INF = math.inf
ENDS = {
    "linear": (lambda x: x, (-INF, INF)),
    "sigmoid": (torch.sigmoid, (0, 1)),
    "method": (lambda x: x.sigmoid(), (0, 1)),
    "module": (nn.Sigmoid(), (0, 1)),
    "in place": (lambda x: x.clone().sigmoid_(), (0, 1)),
    "tanh to unit": (lambda x: (torch.tanh(x) + 1) / 2, (0, 1)),
    "tanh by words": (lambda x: 0.5 * x.tanh() + 0.5, (0, 1)),
    "bytes": (lambda x: 255 * torch.sigmoid(x), (0, 255)),
    "signed": (lambda x: 2 * torch.sigmoid(x) - 1, (-1, 1)),
    "negative": (lambda x: 1 - torch.sigmoid(x) * 3, (-2, 1)),
    "relu": (functional.relu, (0, INF)),
    "relu of sigmoid": (lambda x: functional.relu(torch.sigmoid(x) - 0.5), (0, 0.5)),
    "clamp": (lambda x: x.clamp(-0.25, 0.75), (-0.25, 0.75)),
    "clamp above": (lambda x: torch.clamp(x, max=2), (-INF, 2)),
    "hardtanh": (nn.Hardtanh(-2, 3), (-2, 3)),
    "softplus": (functional.softplus, (0, INF)),
    "softmax": (lambda x: x.softmax(dim=1), (0, 1)),
    "shapes": (lambda x: torch.sigmoid(x).flatten(1).reshape(1, 2, 8, 8).flip(-1), (0, 1)),
    "larger": (
        lambda x: functional.interpolate(torch.sigmoid(x), scale_factor=1.0, mode="bilinear"),
        (0, 1),
    ),
    "overshooting": (
        lambda x: functional.interpolate(torch.sigmoid(x), scale_factor=1.0, mode="bicubic"),
        (-INF, INF),
    ),
    "both": (lambda x: torch.cat([torch.sigmoid(x[:, :1]), torch.tanh(x[:, 1:])], 1), (-1, 1)),
    "one unknown": (lambda x: torch.cat([torch.sigmoid(x[:, :1]), x[:, 1:]], 1), (-INF, INF)),
    "residual": (lambda x: torch.sigmoid(x) + x, (-INF, INF)),
    "convolved": (lambda x: functional.avg_pool2d(torch.sigmoid(x), 1), (0, 1)),
}  # fmt: skip


class Ending(nn.Module):
    def __init__(self, end) -> None:
        super().__init__()
        self.body, self.end = nn.Conv2d(1, 2, 1), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(30 * self.body(x))


@pytest.mark.parametrize("case", ENDS)
def test_ends_of_networks(case: str) -> None:
    end, expected = ENDS[case]
    code = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prior = ImagePrior(lambda: Ending(end), code)
    low, high = output_range(prior)
    assert (low, high) == expected
    with torch.no_grad():
        image = prior.image(prior.init(1))
    assert low - 1e-6 <= image.min()
    assert image.max() <= high + 1e-6


@pytest.mark.parametrize(("output", "expected"), [
    ("sigmoid", (0, 1)), ("none", (-INF, INF)), ("255", (0, 255)),
])  # fmt: skip
@pytest.mark.parametrize("name", ["deep-decoder", "mixer", "siren"])
def test_registered_networks(name: str, output: str, expected: tuple[float, float]) -> None:
    prior = networks.create(name, image_size=(16, 16), output=output)
    assert output_range(prior) == expected


def test_linearised_networks_reach_everything() -> None:
    prior = ImagePrior(lambda: Ending(torch.sigmoid), torch.rand(1, 1, 4, 4))
    assert output_range(prior.linearised(prior.init(0))) == (-INF, INF)


CAMERA = images.load("camera", size=16)
DECODER = {"image_size": (16, 16), "channels": 1, "width": 8}


def radon() -> tasks.Operator:
    return tasks.Radon(CAMERA.shape, 30)


def blur() -> tasks.Operator:
    return tasks.Blur(CAMERA.shape, tasks.gaussian_psf(1.0))


def frequencies() -> tasks.Operator:
    return tasks.Fourier(CAMERA.shape, tasks.line_mask((16, 16), known=0.4))


def differences() -> tasks.Operator:
    return tasks.as_operator(lambda x: x.diff(dim=-1), CAMERA.shape)


def seen_by(
    operator: tasks.Operator,
    factor: float = 1.0,
    shift: float = 0.0,
    *,
    noise: float = 0.0,
    said: float | None = None,
    weighted: bool = False,
) -> tasks.Task:
    """What was measured of a photograph that nobody has, in some unit."""
    exact = operator.forward(factor * CAMERA + shift)
    random = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1))
    seen, level = exact + noise * random, noise if said is None else said
    misfit = Weighted(1 + random.square()) if weighted else "squares"
    return tasks.measure(operator, measurement=seen, noise_sigma=level, misfit=misfit)


def photons(operator: tasks.Operator | None = None) -> tasks.Task:
    """A few of them, so that many pixels have more than white."""
    operator = operator or tasks.as_operator(torch.ones(16, 16, dtype=torch.bool), CAMERA.shape)
    drawn = tasks.measure(operator, CAMERA, misfit=Poisson(3)).measurement
    assert float(drawn.max()) > 1.5
    return tasks.measure(operator, measurement=drawn, misfit=Poisson(3))


TOO_FAR = {
    "times 12": (lambda: tasks.denoise(12 * CAMERA), "sigmoid", "from 0.367 to 10.29"),
    "bytes": (lambda: tasks.denoise(255 * CAMERA), "sigmoid", "no fit comes nearer"),
    "signed": (lambda: tasks.denoise(2 * CAMERA - 1), "sigmoid", "no fit comes nearer"),
    "in range": (lambda: tasks.denoise(CAMERA).in_range(255.0), "sigmoid", "no fit comes nearer"),
    "wide": (lambda: tasks.denoise(CAMERA), "255", r"task.in_range\(255\)"),
    "measured": (
        lambda: tasks.denoise(measurement=5 * CAMERA, noise_sigma=0.1),
        "sigmoid",
        "the measurement has values",
    ),
    "projections in pixels": (
        lambda: seen_by(radon(), 16.0),
        "sigmoid",
        "of mean brightness [78]\\.",
    ),
    "bytes, blurred": (lambda: seen_by(blur(), 255.0), "sigmoid", "no fit comes nearer"),
    "signed, blurred": (lambda: seen_by(blur(), 2.0, -1.0), "sigmoid", "no fit comes nearer"),
    "weighted": (lambda: seen_by(blur(), 255.0, weighted=True), "sigmoid", "no fit comes nearer"),
    "wide, projected": (lambda: seen_by(radon()), "255", r"task.in_range\(255\)"),
    "small": (lambda: tasks.super_resolve(measurement=9 * CAMERA[:, ::4, ::4]), "sigmoid", "meas"),
}
NEAR = {
    "projected": (lambda: seen_by(radon()), "sigmoid"),
    "projected in range": (lambda: seen_by(radon()).in_range(255.0), "255"),
    "blurred": (lambda: seen_by(blur()), "sigmoid"),
    # more numbers than pixels: most of such noise no image has
    "noise of unknown level": (lambda: seen_by(radon(), noise=0.3, said=0.0), "sigmoid"),
    "frequencies": (lambda: seen_by(frequencies(), noise=0.1), "sigmoid"),
    "differences": (lambda: seen_by(differences(), 50.0), "sigmoid"),  # which see no brightness
    "combinations": (lambda: seen_by(tasks.RandomSensing(CAMERA.shape, 64)), "sigmoid"),
    "photons": (lambda: photons(), "sigmoid"),
    "photons, blurred": (lambda: photons(blur()), "sigmoid"),
    "free, projected": (lambda: seen_by(radon(), 64.0), "none"),
    "unit": (lambda: tasks.denoise(CAMERA), "sigmoid"),
    "noisy": (lambda: tasks.denoise(CAMERA, noise_sigma=1.0), "sigmoid"),
    "noisy alone": (
        lambda: tasks.denoise(measurement=tasks.denoise(CAMERA).measurement, noise_sigma=25 / 255),
        "sigmoid",
    ),
    "black": (lambda: tasks.denoise(0 * CAMERA), "sigmoid"),
    "free": (lambda: tasks.denoise(12 * CAMERA), "none"),
    "in range": (lambda: tasks.denoise(CAMERA).in_range(255.0), "255"),
    "dark in range": (lambda: tasks.denoise(0.05 * CAMERA).in_range(255.0), "255"),
    "bytes": (lambda: tasks.denoise(255 * CAMERA), "255"),
}


@pytest.mark.parametrize("case", TOO_FAR)
def test_fits_of_what_can_not_be_reached_are_warned_of(case: str) -> None:
    make, output, words = TOO_FAR[case]
    prior = networks.create("deep-decoder", output=output, **DECODER)
    with pytest.warns(UnitWarning, match=words):
        fit(prior, make(), iterations=1)


@pytest.mark.parametrize("case", NEAR)
def test_fits_of_what_can_be_reached_are_not(case: str) -> None:
    make, output = NEAR[case]
    fit(networks.create("deep-decoder", output=output, **DECODER), make(), iterations=1)


def test_posteriors_of_what_can_not_be_reached_are_warned_of() -> None:
    prior = networks.create("deep-decoder", **DECODER)
    with pytest.warns(UnitWarning, match="no fit comes nearer"):
        WeightPosterior(prior, tasks.denoise(12 * CAMERA))
