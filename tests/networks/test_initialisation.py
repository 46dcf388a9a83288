"""Initialisation schemes: the distributions that they promise, and what they leave alone."""

import math

import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from dipkernels.networks import ImagePrior
from dipkernels.priors.initialisation import SCHEMES
from helpers.priors import draw


class Net(nn.Module):
    """A layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(20, 30, 3, padding=1)
        self.norm = nn.BatchNorm2d(30)
        self.up = nn.ConvTranspose2d(30, 16, 4, 2, 1, groups=2)
        self.linear = nn.Linear(18, 40)
        self.frozen = nn.Conv2d(16, 16, 1).requires_grad_(False)
        self.scale = nn.Parameter(torch.full((1,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(self.frozen(self.up(self.norm(self.conv(x)))))


def prior(scheme: object = "default") -> ImagePrior:
    code = draw(1, 20, 7, 9)
    # unchecked: a warning would say that the frozen layer is drawn, too
    return ImagePrior(Net, code, initialisation=scheme, check=False)  # type: ignore[arg-type]


FANS = {
    "conv": (20 * 9, 30 * 9),
    "up": (15 * 16, 16 * 16),
    "linear": (18, 40),
}  # in, out: as torch counts them


@pytest.mark.parametrize("scheme", SCHEMES)
def test_weights_have_the_promised_distribution(scheme: str) -> None:
    drawn, default = prior(scheme).init(3), prior().init(3)
    for layer, (inputs, outputs) in FANS.items():
        weight = drawn[f"{layer}.weight"]
        variance = {
            "kaiming": 2 / inputs,
            "xavier": 2 / (inputs + outputs),
            "normal": 0.02**2,
            "orthogonal": None,
        }[scheme.split("-")[0]]
        if variance is None:
            if layer == "up":  # (inputs, outputs of a group): two groups of 15 and 8
                weight = torch.cat([half.transpose(0, 1) for half in weight.split(15)])
            matrix = weight.flatten(1)
            gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
            # Rounding of single precision, in which weights are drawn.
            torch.testing.assert_close(gram, torch.eye(len(gram)).double(), rtol=0, atol=1e-5)
            continue
        # The fourth moment of a normal variable is 3 sigma^4, of a uniform one 9/5: six standard
        # errors of the mean square.
        spread = 0.8 if scheme.endswith("uniform") else 2.0
        error = 6 * variance * math.sqrt(spread / weight.numel())
        assert abs(float(weight.square().mean()) - variance) < error
        if scheme.endswith("uniform"):
            assert weight.abs().max() <= math.sqrt(3 * variance) * (1 + 1e-6)
        else:
            assert weight.abs().max() > 2.5 * math.sqrt(variance)
    for key, value in drawn.items():
        if key.endswith("bias"):
            assert torch.equal(value, torch.zeros_like(value))
        elif key in ("norm.weight", "scale"):
            assert torch.equal(value, default[key])
    assert not any(key.startswith("frozen") for key in drawn)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_draws_depend_on_the_seed_alone(scheme: str) -> None:
    made = prior(scheme)
    before = torch.get_rng_state()
    first, again, other = made.init(1), made.init(1), made.to(dtype=torch.float32).init(2)
    assert torch.equal(torch.get_rng_state(), before)
    for layer in FANS:
        assert torch.equal(first[f"{layer}.weight"], again[f"{layer}.weight"])
        assert not torch.equal(first[f"{layer}.weight"].float(), other[f"{layer}.weight"])


def test_frozen_layers_are_as_the_module_made_them() -> None:
    parameters = prior().init(0)
    # The default draws come first under the same seed, so the frozen weights are the same, too.
    assert torch.equal(prior("normal").image(parameters), prior().image(parameters))


def test_a_function_may_do_what_it_likes() -> None:
    def le_cun(module: nn.Module) -> None:
        for layer in module.modules():
            if isinstance(layer, nn.Conv1d):
                inputs = layer.weight[0].numel()
                nn.init.normal_(layer.weight, std=1 / math.sqrt(inputs))

    # The convolutions of Cheng et al. 2019 in 1D: weights of variance 1/fan-in.
    made = networks.create(
        "conv", image_size=(64,), channels=1, width=32, layers=4, last_kernel_size=3,
        normalisation="none", output="none", initialisation=le_cun,
    )  # fmt: skip
    weights = [value for value in made.init(0).values() if value.shape[:2] == (32, 32)]
    drawn = torch.cat([value.flatten() for value in weights])
    # Six standard errors of the mean square.
    assert abs(float(drawn.var()) * 96 - 1) < 6 * math.sqrt(2 / drawn.numel())


def test_the_autoencoder_of_cheng_is_reached_by_options() -> None:
    made = networks.create(
        "skip", image_size=(64,), channels=1, width=32, scales=3, skip_channels=0,
        downsampling="average", normalisation="none", activation="relu", bias=False,
        output="none", initialisation="kaiming-normal",
    )  # fmt: skip
    assert all(key.endswith("weight") and len(s) == 3 for key, s in made.parameter_shapes.items())
    assert made.image(made.init(0)).shape == (1, 64)


def test_schemes_that_do_nothing_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="initialisation must be one of default, kaiming-n"):
        prior("he")
    with pytest.raises(InvalidInputError, match="BatchNorm2d has no convolution and no linear map"):
        ImagePrior(lambda: nn.BatchNorm2d(2), draw(1, 2, 7, 9), initialisation="orthogonal")
