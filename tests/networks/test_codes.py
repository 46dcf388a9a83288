"""Codes: their values, and which network takes which."""

import numpy as np
import pytest
import torch
from torch import Tensor

from dipkernels import networks
from dipkernels.errors import InvalidInputError
from helpers.priors import SMALL, draw

SIZE = (9, 14)


def code(name: str, kind: str | Tensor, size: tuple[int, ...] = SIZE, **settings: object) -> Tensor:
    options = {k: v for k, v in SMALL[name].items() if k != "code_channels"}
    return networks.create(name, image_size=size, code=kind, **options, **settings).code


def test_meshgrid_is_that_of_ulyanov() -> None:
    made = code("skip", "meshgrid")
    expected = np.meshgrid(np.arange(14) / 13, np.arange(9) / 8)  # horizontal first
    assert made.shape == (1, 2, *SIZE)
    np.testing.assert_allclose(made[0].numpy(), expected, atol=1e-7)  # single precision
    line = code("skip", "meshgrid", (9,))
    np.testing.assert_allclose(line[0].numpy(), np.arange(9)[None] / 8, atol=1e-7)
    assert code("deep-decoder", "meshgrid", (32, 48)).shape == (1, 2, 2, 3)  # on the coarse grid


def test_fourier_features_are_waves_of_normal_frequencies() -> None:
    drawn, other = (
        code("conv", "fourier", (90, 141), code_channels=80, code_seed=seed)[0] for seed in (0, 1)
    )
    assert not torch.equal(drawn, other)
    made = drawn.double()
    waves = torch.complex(made[:40], made[40:])
    # Unit circle, in single precision of phases up to some hundreds.
    torch.testing.assert_close(waves.abs(), torch.ones(40, 90, 141).double(), rtol=0, atol=1e-6)
    down, right = (
        (waves.narrow(axis, 1, n - 1) / waves.narrow(axis, 0, n - 1)).angle() * (n - 1) / 2 / np.pi
        for axis, n in ((1, 90), (2, 141))
    )
    for steps in (down, right):  # the frequency is the same everywhere
        frequency = steps.mean(dim=(1, 2))
        assert (steps - frequency[:, None, None]).abs().max() < 0.01
        # Deviation 10; six standard errors of 40 draws.
        assert abs(float(frequency.std()) - 10) < 6 * 10 / np.sqrt(80)


def test_phases_are_sines_and_cosines_of_independent_phases() -> None:
    prior = networks.create("lipschitz-decoder", image_size=(320, 512), width=2)
    made = prior.code[0].double()
    assert made.shape == (32, 10, 16)
    # Unit circle in single precision.
    torch.testing.assert_close(
        made[:16] ** 2 + made[16:] ** 2, torch.ones(16, 10, 16).double(), rtol=0, atol=1e-6
    )
    # Six standard errors of means and of a correlation, of variance 1/2 each.
    n = made[:16].numel()
    for mean in (made[:16].mean(), made[16:].mean(), (made[:, 1:] * made[:, :-1]).mean()):
        assert abs(float(mean)) < 6 * np.sqrt(0.5 / n)
    assert abs(float((made[:16] ** 2).mean()) - 0.5) < 6 * np.sqrt(1 / 8 / n)


def test_an_image_is_a_code() -> None:
    flash = draw(3, *SIZE).abs()
    prior = networks.create("skip", image_size=SIZE, variant="flash", code=flash, width=4)
    assert torch.equal(prior.code[0], flash.float())
    assert prior.learning_rate == 0.1
    assert prior.parameter_shapes["0.body.down.0.0.weight"] == (4, 3, 3, 3)
    both = torch.stack([flash, flash / 2])
    many = networks.create("skip", image_size=SIZE, code=both, images=2, width=4)
    assert torch.equal(many.code[0], both.flatten(0, 1).float())
    assert many.shape == (6, *SIZE)
    assert code("vit", draw(3, *SIZE)).shape == (1, 3, *SIZE)


def test_default_codes_are_the_published_ones() -> None:
    vase = networks.create("skip", image_size=SIZE, variant="inpaint-vase", width=4)
    assert torch.equal(vase.code, code("skip", "meshgrid"))
    noise = networks.create("skip", image_size=SIZE, variant="inpaint-vase", code="noise", width=4)
    assert noise.code.shape == (1, 32, *SIZE)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("skip", {"code": "perlin"}, "code must be one of noise, fourier, phases, meshgrid, or"),
        ("skip", {"code": "meshgrid", "code_channels": 4}, "code_channels=4 has no effect: this"),
        ("skip", {"code": "meshgrid", "images": 2}, "would have the same code, a meshgrid"),
        ("skip", {"code": "fourier", "code_channels": 5}, "an even number of channels, got 5"),
        ("skip", {"code": draw(3, 8, 14)}, r"shape \(3, 8, 14\), but this network takes 3x9x14"),
        ("skip", {"code": draw(3, 9, 14), "images": 2}, "this network takes 2 of 3x9x14"),
        ("skip", {"code": draw(9, 14)}, r"a code must be an image .* got shape \(9, 14\)"),
        ("skip", {"code": draw(3, 9, 14), "code_channels": 3}, "code_channels=3 has no effect"),
        ("deep-decoder", {"code": draw(3, 9, 14)}, "but this network takes 3x2x2"),
        ("skip", {"variant": "flash"}, "variant 'flash' of 'skip' takes an image for its code"),
        ("vit", {"code": "phases"}, "an even number of channels, got 3"),
        ("vit", {"code": draw(3, 9, 13)}, "but this network takes 3x9x14"),
    ],
)
def test_codes_that_a_network_cannot_take(
    name: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        networks.create(name, image_size=SIZE, **settings)
