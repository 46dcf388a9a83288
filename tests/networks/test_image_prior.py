"""`ImagePrior` with any module: a user's own, frozen, tied, with attention, or none at all."""

from collections.abc import Callable
from types import SimpleNamespace

import jaxtyping
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.multiprocessing.reductions import StorageWeakRef

from dipkernels.errors import InvalidInputError
from dipkernels.networks import ImagePrior
from helpers.priors import draw as code
from helpers.priors import perturbed


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
    with pytest.warns(UserWarning, match="'frozen' of PartlyFrozen is drawn with the weights"):
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
    assert len(storages) == 24  # six parameters of four modules: two of them for checks
    assert all(storage.expired() for storage in storages)


def test_a_network_without_attention_is_compiled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    parameters = prior.init(0)
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # of shapes, at every call
    compiled = torch.compile(prior.image, backend="eager", fullgraph=True)  # breaks are errors
    assert torch.equal(compiled(parameters), prior.image(parameters))


def test_freezing_some_parameters_leaves_the_others_as_they_were() -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    everything = perturbed(prior.init(3), seed=1)
    frozen = {key: value for key, value in everything.items() if key.startswith("first.")}
    partial_prior = prior.frozen(frozen)
    assert partial_prior.parameter_shapes.keys() == prior.parameter_shapes.keys() - frozen.keys()
    left = {key: everything[key] for key in partial_prior.parameter_shapes}
    assert torch.equal(partial_prior.image(left), prior.image(everything))
    drawn = prior.init(5)
    for key, value in partial_prior.init(5).items():
        assert torch.equal(value, drawn[key])
    assert torch.equal(partial_prior.module(left)(prior.code)[0], prior.image(everything))
    # what is frozen is a copy, and moves with the prior
    expected = partial_prior.image(left)
    frozen["first.weight"].zero_()
    assert torch.equal(partial_prior.image(left), expected)
    single = partial_prior.to(dtype=torch.float32)
    assert single.image({key: value.float() for key, value in left.items()}).dtype == torch.float32
    further = partial_prior.frozen({"last.bias": left.pop("last.bias")})
    assert torch.equal(further.image(left), expected)


def test_freezing_what_isnt_there_or_everything_is_refused() -> None:
    prior = ImagePrior(ConvNet, code(1, 2, 7, 10))
    parameters = prior.init(0)
    with pytest.raises(InvalidInputError, match=r"first\.none isn't one"):
        prior.frozen({"first.none": parameters["last.bias"]})
    with pytest.raises(InvalidInputError, match="another shape"):
        prior.frozen({"first.bias": parameters["last.bias"]})
    with pytest.raises(InvalidInputError, match="not all"):
        prior.frozen(parameters)
    with pytest.raises(InvalidInputError, match="got 0"):
        prior.frozen({})


def test_a_module_of_a_prior_with_frozen_parameters_keeps_them() -> None:
    prior = ImagePrior(lambda: nn.Conv2d(2, 3, 3), code(1, 2, 5, 8))
    parameters = prior.init(4)
    partial = prior.frozen({"bias": parameters["bias"] + 1})
    module = partial.module(partial.init(4))
    trained = {key for key, value in module.named_parameters() if value.requires_grad}
    assert trained == {"weight"}  # an optimiser doesn't move what is frozen
    expected = prior.image({**parameters, "bias": parameters["bias"] + 1})
    torch.testing.assert_close(module(prior.code)[0], expected)
