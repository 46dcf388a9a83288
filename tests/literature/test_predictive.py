"""Kernels between inputs against dense Jacobians, and regression against leaving out one by one."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.base.seeds import derive, generator
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.literature.predictive import (
    Encoder,
    faces,
    input_kernel,
    kernel_regression,
    shift_invariance,
    standardised,
)
from dipkernels.literature.regression import ridge_predictions
from dipkernels.networks import ImagePrior
from helpers.priors import SMALL, draw, make

# Where the features of each family are, and how many there are.
FEATURES = {
    "skip": ("body.inner.inner.down", 6),
    "wide-skip": ("body.inner.down", 7),
    "unet": ("down.3", 16),
    "resnet": ("blocks", 5),
    "conv": ("13", 6),
    "fixed-conv": ("14", 6),
    "vit": ("norm", 12),
    "swin": ("norm", 16),
    "mixer": ("norm", 10),
    "self-attention": ("body.inner.down", 8),
    "conv1-vit": ("vit.norm", 12),
    "vit-conv1": ("vit.norm", 12),
    "conv3-vit": ("vit.norm", 12),
    "vit-conv3": ("vit.norm", 12),
}


def encoding(name: str, size: tuple[int, int] = (12, 15)) -> ImagePrior:
    return make(name, size, channels=2, output="none", code_channels=2)


@pytest.mark.parametrize("name", FEATURES)
def test_features_are_the_means_of_the_named_modules_output(name: str) -> None:
    prior = encoding(name)
    encoder = Encoder(prior)
    assert (encoder.path, encoder.width) == FEATURES[name]
    parameters = prior.init(3)
    image = draw(2, 12, 15, seed=1)
    found = encoder(parameters, image)
    seen: list[Tensor] = []
    module = dict(prior.structure.named_modules())[encoder.path]
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    prior.image(parameters, image[None])  # the whole network
    handle.remove()
    output = seen[0][0]
    if "vit" in name:
        expected = output[1:].mean(dim=0)
    elif name == "swin":
        expected = output.mean(dim=(0, 1))
    else:
        expected = output.mean(dim=0 if name == "mixer" else (1, 2))
    # float64; means over pixels that may lie in another order in memory
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.std() > 1e-4


def test_own_networks_have_encoders_by_path() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 3, padding=1)
            self.unused = nn.Conv2d(1, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.first(x).tanh())

    prior = ImagePrior(Net, torch.zeros(1, 1, 6, 7))
    encoder = Encoder(prior, "first")
    assert encoder.width == 3
    assert Encoder(prior, "first", channels_last=True).width == 7
    with pytest.raises(InvalidInputError, match="pass path="):
        Encoder(prior)
    with pytest.raises(InvalidInputError, match="no module 'second'"):
        Encoder(prior, "second")
    with pytest.raises(InvalidInputError, match="doesn't call its module 'unused'"):
        Encoder(prior, "unused")
    with pytest.raises(InvalidInputError, match="no effect without path"):
        Encoder(encoding("vit"), channels_last=True)
    for name in set(networks.names()) - set(FEATURES):  # those with codes on a coarse grid
        with pytest.raises(InvalidInputError, match="no encoder of images"):
            Encoder(make(name, (12, 15)))
    tiny = networks.create("skip", image_size=3, scales=0, code_channels=2)
    with pytest.raises(InvalidInputError, match="without scales"):
        Encoder(tiny)


@pytest.mark.parametrize("name", ["skip", "vit", "swin", "mixer"])
@pytest.mark.parametrize("budget", [2**30, 1])
def test_kernels_are_those_of_features_and_dense_jacobians(name: str, budget: int) -> None:
    prior = encoding(name)
    inputs = draw(3, 2, 12, 15, seed=2)
    encoder = Encoder(prior)
    nngp = input_kernel(prior, inputs, samples=2, seed=5)
    ntk = input_kernel(prior, inputs, kind="ntk", samples=2, seed=5, memory_budget=budget)
    for i in range(2):
        parameters = prior.init(derive(f"sample-{i}", 5))
        features = torch.stack([encoder(parameters, image) for image in inputs])
        gram = (features @ features.T).numpy()
        assert np.allclose(nngp.kernel[i], gram / encoder.width, rtol=1e-12)
        random = generator(f"read-out-{i}", 5)
        weights = torch.randn(encoder.width, generator=random, dtype=torch.float64)
        rows = []
        for image in inputs:
            blocks = torch.func.jacrev(lambda p, image=image: encoder(p, image))(parameters)
            jacobian = torch.cat([b.reshape(encoder.width, -1) for b in blocks.values()], dim=1)
            rows.append(weights @ jacobian / encoder.width**0.5)
        stacked = torch.stack(rows)
        dense = gram + (stacked @ stacked.T).numpy()
        assert np.allclose(ntk.kernel[i], dense, rtol=1e-9, atol=1e-12 * np.abs(dense).max())
    pair = nngp.kernel.values
    assert np.allclose(nngp.mean_kernel, pair.mean(axis=0), rtol=1e-14)
    error = np.abs(pair[0] - pair[1]) / 2
    assert np.allclose(nngp.mean_kernel_standard_error, error, atol=1e-14)


def circular(layers: int) -> ImagePrior:
    return networks.create(
        "conv", image_size=(8, 10), channels=1, code_channels=1, width=6, layers=layers,
        padding="circular", normalisation="none",
    ).to(dtype=torch.float64)  # fmt: skip


@pytest.mark.parametrize("kind", ["nngp", "ntk"])
def test_pooled_circular_convolutions_are_invariant_to_shifts(kind: str) -> None:
    found = shift_invariance(circular(2), draw(4, 1, 8, 10, seed=3), (1, 3), kind=kind, samples=2)
    # exact but for the order of sums
    assert np.abs(found.invariance.values - 1).max() < 1e-9
    assert np.abs(found.cosine.values - 1).max() < 1e-9
    assert (found.cosine_between < 1 - 1e-4).all()


def test_invariance_is_one_less_the_ratio_of_squared_distances() -> None:
    prior = encoding("vit")
    inputs = draw(3, 2, 12, 15, seed=4)
    found = shift_invariance(prior, inputs, (2,), samples=1, seed=6)
    encoder, parameters = Encoder(prior), prior.init(derive("sample-0", 6))

    def encode(image: Tensor) -> Tensor:
        return encoder(parameters, image)

    moved = np.mean([float((encode(x) - encode(x.roll(2, -1))).square().sum()) for x in inputs])
    others = [
        float((encode(x) - encode(y)).square().sum())
        for i, x in enumerate(inputs)
        for j, y in enumerate(inputs)
        if i != j
    ]
    assert found.invariance.item() == pytest.approx(1 - moved / np.mean(others), rel=1e-8)
    assert found.invariance.item() < 0.999
    cosines = [
        float(torch.cosine_similarity(encode(x), encode(x.roll(2, -1)), dim=0)) for x in inputs
    ]
    assert found.cosine.item() == pytest.approx(np.mean(cosines), rel=1e-9)
    with pytest.raises(InvalidInputError, match="at least 1 shift"):
        shift_invariance(prior, inputs, ())


def test_nothing_is_invariant_where_all_inputs_look_alike() -> None:
    prior = encoding("vit")
    same = draw(1, 2, 1, 1, seed=1).expand(3, 2, 12, 15)
    found = shift_invariance(prior, same, (1,), samples=2)
    assert np.isnan(found.invariance.values).all()


def test_ridge_predictions_are_those_of_least_squares() -> None:
    """Against the primal problem with an intercept, and against refits without each input."""
    features = draw(14, 5, seed=7).numpy()
    targets = draw(14, 2, seed=8).numpy()
    kernel = features @ features.T
    learned = np.arange(14) % 3 != 0
    found, left_out, ridge = ridge_predictions(kernel, targets, learned, [0.3])
    own = features[learned]
    centred = own - own.mean(axis=0)
    penalty = 0.3 * np.trace(centred @ centred.T) / len(own)

    def refit(rows: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
        matrix = rows - rows.mean(axis=0)
        weights = np.linalg.solve(matrix.T @ matrix + penalty * np.eye(5), matrix.T @ y)
        return y.mean(axis=0) + (at - rows.mean(axis=0)) @ weights

    assert ridge == 0.3
    assert np.allclose(found, refit(own, targets[learned], features), atol=1e-11)
    for i in range(len(own)):
        rest = np.arange(len(own)) != i
        expected = refit(own[rest], targets[learned][rest], own[i])
        assert np.allclose(left_out[i], expected, atol=1e-11)


def test_regression_takes_the_ridge_of_the_least_left_out_error() -> None:
    features = draw(30, 20, seed=9).numpy()
    targets = features[:, :1] + 0.5 * draw(30, 1, seed=10).numpy()
    learned = np.arange(30) < 25
    kernel, ridges = features @ features.T, [1e-6, 0.1, 1e3]
    losses = []
    for ridge in ridges:
        _, left_out, _ = ridge_predictions(kernel, targets, learned, [ridge])
        losses.append(((targets[learned] - left_out) ** 2).mean())
    assert ridge_predictions(kernel, targets, learned, ridges)[2] == ridges[np.argmin(losses)]
    assert np.argmin(losses) == 1


def test_faces_are_told_from_other_pieces() -> None:
    inputs, labels = faces()
    assert tuple(inputs.shape) == (200, 1, 25, 25)
    assert sum(labels) == 100
    inputs = standardised(inputs)
    assert float(inputs.mean()) == pytest.approx(0, abs=1e-5)
    assert float(inputs.std()) == pytest.approx(1, rel=1e-5)
    chosen = list(range(0, 200, 4))
    prior = networks.create("resnet", image_size=25, channels=1, output="none", **SMALL["resnet"])
    kernels = input_kernel(prior, inputs[chosen], samples=3)
    found = kernel_regression(kernels, [labels[i] for i in chosen], splits=5)
    assert 0.8 < found.attrs["accuracy"] <= 1
    assert found.attrs["accuracy"] == pytest.approx(float(found.accuracy.mean()))
    assert found.accuracy_standard_error == pytest.approx(
        float(found.accuracy.std(ddof=1)) / 3**0.5
    )
    # labels that have nothing to do with the inputs can't be predicted: 1/2 +- 0.1 of 25 guesses
    shuffled = [labels[i] for i in np.random.default_rng(1).permutation(chosen)]
    assert 0.3 < kernel_regression(kernels, shuffled, splits=10).attrs["accuracy"] < 0.7


def test_what_is_no_kernel_between_inputs_is_refused() -> None:
    prior = encoding("vit")
    inputs = draw(4, 2, 12, 15)
    with pytest.raises(InvalidInputError, match="kind must be one of nngp, ntk"):
        input_kernel(prior, inputs, kind="rbf")
    with pytest.raises(InvalidInputError, match="2 inputs of the code's shape"):
        input_kernel(prior, inputs[:, :1])
    with pytest.raises(DivergenceError, match="isn't finite for sample 0"):
        input_kernel(prior, inputs * torch.nan)
    kernels = input_kernel(prior, inputs, samples=1)
    with pytest.raises(InvalidInputError, match="4 labels of at least two classes"):
        kernel_regression(kernels, [0, 0, 0, 0])
    with pytest.raises(InvalidInputError, match="ridges must be positive"):
        kernel_regression(kernels, [0, 1, 0, 1], ridges=[0.0])
    with pytest.raises(InvalidInputError, match="leaves nothing to learn from"):
        kernel_regression(kernels, [0, 1, 0, 1], train=0.1)
