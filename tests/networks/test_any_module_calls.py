"""Modules that draw, keep and normalise: each right, or refused with the cause.

Right is what a module of plain torch gives, and a Jacobian by plain autograd, in float64.
"""

import collections
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from dipkernels.errors import InvalidInputError
from dipkernels.networks import ImagePrior, create
from helpers.any_module import (
    Forward,
    TwoConvolutions,
    code,
    convolved,
    require_right,
)


@pytest.fixture(autouse=True)
def plain() -> Iterator[None]:
    """Codes and modules are drawn in float64."""
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(torch.float32)


# Randomness, and what a call leaves behind.


@pytest.mark.parametrize(
    ("forward", "where"),
    [
        (lambda net, x: net.b(functional.dropout(net.a(x))), "dropout draws"),
        (lambda net, x: net.b(net.a(x) + torch.randn(1, 3, 1, 1)), "randn draws"),
        (lambda net, x: net.b(net.a(x)) * torch.bernoulli(torch.tensor(0.5)), "bernoulli draws"),
        (lambda net, x: net.b(net.a(x) * float(1 + np.random.random())), "another image"),
        (lambda net, x: net.b(net.a(x) * net.rng.random()), "another image"),
    ],
)
def test_a_random_forward_pass_is_refused_and_moves_nothing(forward: Forward, where: str) -> None:
    def more(net: Any) -> None:
        net.rng = np.random.default_rng()

    before = torch.get_rng_state(), np.random.get_state()[2]
    given = code()
    torch.set_rng_state(before[0])
    with pytest.raises(InvalidInputError, match=where):
        ImagePrior(lambda: TwoConvolutions(forward, more), given)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[2]


@pytest.mark.parametrize(
    "forward",
    [
        lambda net, x: net.b(net.a(x.mul_(1.5))),
        lambda net, x: net.b(net.a(x.data.mul_(1.5))),  # which leaves no trace on the tensor
    ],
)
def test_a_network_that_writes_to_its_input(forward: Forward) -> None:
    given = code()
    kept = given.clone()
    prior = ImagePrior(lambda: TwoConvolutions(forward), given)
    require_right(prior)
    assert torch.equal(given, kept)
    assert torch.equal(prior.code, kept)


def clamps(net: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        net.a.weight.clamp_(-0.1, 0.1)
    return net.b(net.a(x))


def grows(net: Any, x: Tensor) -> Tensor:
    if not hasattr(net, "late"):
        net.late = nn.Conv2d(3, 3, 1)
    return net.b(net.late(net.a(x)))


@pytest.mark.parametrize(
    ("forward", "reason"),
    [(clamps, r"writes to its own 'a.weight'"), (grows, r"makes parameters \('late.bias'\)")],
)
def test_a_network_that_changes_its_weights_is_refused(forward: Forward, reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        convolved(forward)


def test_a_hook_on_the_gradient_of_a_parameter_is_refused() -> None:
    def more(net: Any) -> None:
        net.a.weight.register_hook(lambda gradient: 0 * gradient)

    with pytest.raises(InvalidInputError, match=r"'a.weight' of .* has a hook"):
        convolved(lambda net, x: net.b(net.a(x)), more)


def test_an_image_of_complex_numbers_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"returned torch.complex128.*pass output="):
        convolved(lambda net, x: torch.fft.fft2(net.b(net.a(x))))


def stores(net: Any, x: Tensor) -> Tensor:
    net.last = net.a(x)
    net.calls += 1
    net.seen.append(net.last)
    return net.b(net.seen[0]) * net.calls


def test_attributes_that_a_call_changes_are_put_back() -> None:
    prior = convolved(stores, lambda net: net.__dict__.update(calls=0, seen=[]))
    require_right(prior)
    assert prior.structure.calls == 0
    assert prior.structure.seen == []
    assert not hasattr(prior.structure, "last")


def test_hooks_that_the_first_call_installs_are_not_piled_up() -> None:
    """As Hugging Face's networks collect hidden states."""
    seen: list[Tensor] = []

    def forward(net: Any, x: Tensor) -> Tensor:
        if not hasattr(net, "hooked"):
            net.hooked = True
            net.a.register_forward_hook(lambda part, given, made: seen.append(made))
            net.history = collections.deque([0.0], maxlen=3)
        seen.clear()
        y = net.b(net.a(x))
        net.history.append(1.0)
        return y + torch.stack([each.mean() for each in seen]).sum() * sum(net.history)

    prior = convolved(forward)
    require_right(prior)
    require_right(prior)
    assert not prior.structure.a._forward_hooks


def test_a_second_call_that_fails_is_said() -> None:
    calls: list[int] = []

    def forward(net: Any, x: Tensor) -> Tensor:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("the cache is full")
        return net.b(net.a(x))

    with pytest.raises(InvalidInputError, match=r"fails when it's called again.*the cache is full"):
        convolved(forward)


def test_what_is_kept_elsewhere_from_call_to_call_is_refused() -> None:
    calls: list[int] = []

    def forward(net: Any, x: Tensor) -> Tensor:
        calls.append(1)
        return net.b(net.a(x)) * len(calls)

    with pytest.raises(InvalidInputError, match="another image of the same parameters"):
        convolved(forward)


# Seeds.


def numpy_drawn(net: Any) -> None:
    net.a.weight.data = torch.from_numpy(np.random.randn(3, 4, 3, 3))


def test_weights_that_numpy_draws_follow_the_seed() -> None:
    state = np.random.get_state()[1]
    prior = convolved(lambda net, x: net.b(net.a(x)), numpy_drawn)
    one, again, other = (prior.init(seed)["a.weight"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert float((one - other).abs().max()) > 0.1
    assert np.array_equal(state, np.random.get_state()[1])


def test_weights_that_a_private_generator_draws_are_refused() -> None:
    rng = np.random.default_rng(0)

    def more(net: Any) -> None:
        net.b.weight.data = torch.from_numpy(rng.normal(size=(2, 3, 3, 3)))

    with pytest.raises(InvalidInputError, match=r"other weights \('b.weight'\) from the same seed"):
        convolved(lambda net, x: net.b(net.a(x)), more)


def test_equal_weights_at_every_seed_are_said() -> None:
    def seeded() -> nn.Module:
        torch.manual_seed(0)
        return nn.Conv2d(4, 2, 3)

    with pytest.warns(UserWarning, match="Conv2d has the same weights at every seed"):
        ImagePrior(seeded, code())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ImagePrior(seeded, code(), check=False)


def test_drawn_buffers_are_said() -> None:
    def more(net: Any) -> None:
        net.register_buffer("frequencies", torch.randn(3, 1, 1))

    with pytest.warns(UserWarning, match="'frequencies' of TwoConvolutions is drawn"):
        prior = convolved(lambda net, x: net.b((net.a(x) * net.frequencies).sin()), more)
    require_right(prior)


def test_draws_and_images_are_the_same_from_any_thread() -> None:
    prior = create("vit", image_size=(32, 32))
    state = torch.get_rng_state()
    draws = [prior.init(seed) for seed in range(6)]
    images = [prior.image(draw) for draw in draws]
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(prior.init, range(6)))
        pictures = list(pool.map(prior.image, draws))
    assert torch.equal(state, torch.get_rng_state())
    for one, other in zip(draws, others, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)
    for one, other in zip(images, pictures, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["skip", "vit", "siren"])
def test_built_in_priors_pickle(name: str) -> None:
    prior = create(name, image_size=(32, 32))
    other = pickle.loads(pickle.dumps(prior))
    drawn, again = prior.init(1), other.init(1)
    assert all(torch.equal(value, again[key]) for key, value in drawn.items())
    torch.testing.assert_close(prior.image(prior.init(1)), other.image(prior.init(1)))


# Normalisation.


def handmade(net: Any) -> None:
    net.register_buffer("mean", torch.zeros(3))
    net.register_buffer("variance", torch.ones(3))


def normalised_by_hand(net: Any, x: Tensor) -> Tensor:
    h = functional.batch_norm(5 + 9 * net.a(x), net.mean, net.variance, training=net.training)
    return net.b(h)


def test_every_kind_of_normalisation_takes_the_statistics_of_the_image() -> None:
    require_right(convolved(normalised_by_hand, handmade))

    def only(net: Any, x: Tensor) -> Tensor:
        h = 5 + 9 * net.a(x)
        return functional.batch_norm(h, net.mean, net.variance, None, None, net.training)

    by_hand = convolved(only, handmade)
    means = by_hand.image(by_hand.init(1)).mean((1, 2))
    torch.testing.assert_close(means, torch.zeros(3), rtol=0, atol=1e-6)
    kinds = (nn.BatchNorm2d, lambda n: nn.InstanceNorm2d(n, track_running_stats=True))
    for norm in kinds:
        prior = ImagePrior(lambda norm=norm: nn.Sequential(nn.Conv2d(4, 3, 3), norm(3)), code())
        image = prior.image(prior.init(1))
        torch.testing.assert_close(image.mean((1, 2)), torch.zeros(3), rtol=0, atol=1e-6)
        # of a variance v, v / (v + 1e-5) is left
        torch.testing.assert_close(
            image.std((1, 2), correction=0), torch.ones(3), rtol=0, atol=1e-2
        )
        require_right(prior)


def test_normalisation_can_stay_in_evaluation_or_as_the_module_says() -> None:
    def net() -> nn.Module:
        net = nn.Sequential(nn.Conv2d(4, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
        net[1].running_mean.fill_(0.3)
        net[1].running_var.fill_(2.0)
        return net

    def partly() -> nn.Module:
        made = net()
        made[1].eval()
        return made

    for mode, factory in (("evaluation", net), ("module", partly), ("module", net)):
        prior = ImagePrior(factory, code(), normalisation=mode)
        parameters = prior.init(2)
        reference = factory()
        if mode == "evaluation":
            reference.eval()
        reference.load_state_dict({**reference.state_dict(), **parameters})
        with torch.no_grad():
            expected = reference(prior.code)[0]
        torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-12)
        require_right(prior)
    with pytest.raises(InvalidInputError, match="normalisation must be one of image, evaluation"):
        ImagePrior(net, code(), normalisation="batch")


def test_a_single_value_keeps_its_running_statistics() -> None:
    def more(net: Any) -> None:
        net.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 3, 1), nn.BatchNorm2d(3))

    require_right(convolved(lambda net, x: net.b(net.a(x) + net.pooled(x)), more))


def test_a_single_value_without_running_statistics_is_refused() -> None:
    def alone(net: Any, x: Tensor) -> Tensor:
        pooled = functional.batch_norm(x.mean((2, 3), keepdim=True), None, None, training=True)
        return net.b(net.a(x + pooled))

    with pytest.raises(InvalidInputError, match="normalises a single value of each channel"):
        convolved(alone)


def test_group_normalisation_of_channels_last() -> None:
    given = code().contiguous(memory_format=torch.channels_last)
    prior = ImagePrior(
        lambda: nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.Conv2d(6, 2, 1)), given
    )
    require_right(prior)
