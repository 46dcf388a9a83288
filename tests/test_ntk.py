"""The empirical NTK against dense Jacobians: of every prior, of other libraries' networks."""

import random

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor, nn

from dipkernels import networks
from dipkernels.errors import DivergenceError, InvalidInputError
from dipkernels.kernels import NTK
from dipkernels.networks import ImagePrior
from dipkernels.priors.memory import activation_bytes, block_columns, parameter_bytes
from helpers.priors import SMALL, draw, perturbed, with_slow_ones


def dense_jacobian(prior: ImagePrior, parameters: dict[str, Tensor]) -> Tensor:
    """Differentiate every output on its own, by reverse mode."""
    blocks = torch.func.jacrev(prior.image)(parameters)
    n = int(np.prod(prior.shape))
    return torch.cat([block.reshape(n, -1) for block in blocks.values()], dim=1)


class Case:
    """A prior, its parameters, its kernel, and the same densely."""

    def __init__(self, prior: ImagePrior, seed: int) -> None:
        self.prior = prior
        self.parameters = perturbed(prior.init(seed), 0, 0.1)
        self.ntk = NTK(prior, self.parameters)
        self.jacobian = dense_jacobian(prior, self.parameters)
        self.dense = self.jacobian @ self.jacobian.T
        self.n = self.dense.shape[0]


@pytest.fixture(scope="module", params=["deep-decoder", "vit"])
def case(request: pytest.FixtureRequest) -> Case:
    """BatchNorm in one, attention in the other."""
    rng = random.Random(request.param)
    size = (rng.randrange(5, 8), rng.randrange(8, 11))
    prior = networks.create(request.param, image_size=size, channels=2, **SMALL[request.param])
    return Case(prior.to(dtype=torch.float64), seed=1)


def assert_kernel_is_dense(prior: ImagePrior, parameters: dict[str, Tensor]) -> None:
    dense = dense_jacobian(prior, parameters)
    dense = dense @ dense.T
    kernel = NTK(prior, parameters).to_dense()
    assert dense.norm() > 0
    # Two sums of products in another order; 1e-15 is met where the network is shallow.
    assert (kernel - dense).norm() < 1e-10 * dense.norm()
    assert torch.linalg.eigvalsh(kernel)[0] > -1e-12 * dense.norm()


@pytest.mark.parametrize("name", with_slow_ones(networks.names()))
def test_kernel_of_every_prior_is_that_of_the_dense_jacobian(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    prior = networks.create(name, image_size=(5, 7), channels=1, **SMALL.get(name, {}))
    prior = prior.to(dtype=torch.float64)
    assert_kernel_is_dense(prior, perturbed(prior.init(2), 0, 0.1))
    # torch's C++ complains there of operations that it can't batch, which makes blocks slow.
    assert capfd.readouterr().err == ""


@pytest.mark.slow
def test_kernel_of_a_swin_transformer_of_hugging_face(capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.SwinConfig(
        image_size=8,  # its head makes squares only
        patch_size=2,
        num_channels=1,
        embed_dim=4,
        depths=[2],
        num_heads=[2],
        window_size=3,
        mlp_ratio=1.0,
        encoder_stride=2,
        drop_path_rate=0.1,  # off, because priors run in evaluation mode
    )
    code = draw(1, 1, 8, 8)
    prior = ImagePrior(
        lambda: transformers.SwinForMaskedImageModeling(config),
        code,
        output=lambda out: out.reconstruction,
    )
    parameters = perturbed(prior.init(0), 0, 0.1)
    model = transformers.SwinForMaskedImageModeling(config).double().eval()
    expected = torch.func.functional_call(model, parameters, (code,)).reconstruction[0]
    torch.testing.assert_close(prior.image(parameters), expected, rtol=0, atol=1e-12)
    assert_kernel_is_dense(prior, parameters)
    assert "batching rule" not in capfd.readouterr().err


@pytest.mark.slow
def test_kernel_of_a_vision_transformer_of_hugging_face(capfd: pytest.CaptureFixture[str]) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=(6, 10),
        patch_size=2,
        num_channels=2,
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=6,
    )

    class Painter(nn.Module):
        """Its tokens, without that of the class, each decoded to a patch."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = transformers.ViTModel(config, add_pooling_layer=False)
            self.head = nn.Linear(8, 2 * 2 * 2)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.encoder(x).last_hidden_state[:, 1:]
            patches = self.head(tokens).transpose(1, 2)
            return nn.functional.fold(patches, (6, 10), kernel_size=2, stride=2)

    prior = ImagePrior(Painter, draw(1, 2, 6, 10))
    assert prior.shape == (2, 6, 10)
    assert_kernel_is_dense(prior, perturbed(prior.init(0), 0, 0.1))
    assert "batching rule" not in capfd.readouterr().err


def test_kernel_of_a_user_module_with_all_that_is_awkward() -> None:
    class Awkward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 4, 3, padding=1)
            self.norm = nn.BatchNorm2d(4)
            self.dropout = nn.Dropout(0.5)
            self.layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
            self.tied = nn.Linear(4, 4)
            self.layer.linear1 = nn.Linear(4, 4)
            self.layer.linear2 = nn.Linear(4, 4)
            self.layer.linear2.weight = self.tied.weight
            self.frozen = nn.Linear(4, 1).requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.dropout(self.norm(self.conv(x)))
            tokens = self.tied(self.layer(x.flatten(2).transpose(1, 2)))
            return self.frozen(tokens).transpose(1, 2).unflatten(2, x.shape[2:])

    with pytest.warns(UserWarning, match="'frozen.weight' of Awkward is drawn"):
        prior = ImagePrior(Awkward, draw(1, 2, 4, 7))
    assert_kernel_is_dense(prior, perturbed(prior.init(0), 0, 0.1))


def test_without_a_forward_mode_derivative_backward_passes_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Exponential(torch.autograd.Function):
        """An operation that knows its backward pass only."""

        generate_vmap_rule = True

        @staticmethod
        def forward(x: Tensor) -> Tensor:
            return x.exp()

        @staticmethod
        def setup_context(ctx: object, inputs: tuple[Tensor], output: Tensor) -> None:
            ctx.save_for_backward(output)

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            return gradient * ctx.saved_tensors[0]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return Exponential.apply(self.conv(x)) * 2

    prior = ImagePrior(Net, draw(1, 2, 4, 7))
    parameters = prior.init(0)
    with pytest.raises(NotImplementedError):
        torch.func.jvp(prior.image, (parameters,), (parameters,))
    caplog.set_level("INFO", logger="dipkernels")
    assert_kernel_is_dense(prior, perturbed(parameters, 0, 0.1))
    assert "products with the Jacobian take backward passes" in caplog.text


# --- Products -------------------------------------------------------------------------------


def test_a_block_equals_its_columns(case: Case) -> None:
    block = draw(case.n, 5)
    columns = torch.stack([case.ntk @ column for column in block.T], dim=1)
    # Only the order of sums differs.
    torch.testing.assert_close(case.ntk @ block, columns, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
def test_chunks_change_nothing(case: Case) -> None:
    block = draw(case.n, 5)
    column = parameter_bytes(case.parameters) + 3 * activation_bytes(case.prior, case.parameters)
    tiny = NTK(case.prior, case.parameters, memory_budget=2 * column + 1)
    widths: list[int] = []
    vjp = tiny.tangents.vjp
    tiny.tangents.vjp = lambda images: (widths.append(images.shape[1]), vjp(images))[1]
    torch.testing.assert_close(tiny @ block, case.ntk @ block, rtol=1e-12, atol=1e-12)
    expected = case.ntk.quadratic_form(block)
    torch.testing.assert_close(tiny.quadratic_form(block), expected, rtol=1e-12, atol=1e-12)
    assert widths == [2, 2, 1] * 2


def test_vjp_and_jvp_are_the_jacobian(case: Case) -> None:
    block = draw(case.n, 3)
    gradients = case.ntk.vjp(block)
    assert list(gradients) == list(case.parameters)
    flat = torch.cat([value.flatten(1) for value in gradients.values()], dim=1)
    torch.testing.assert_close(flat.T, case.jacobian.T @ block, rtol=1e-11, atol=1e-11)
    tangents = {key: draw(4, *value.shape, seed=1) for key, value in case.parameters.items()}
    flat = torch.cat([value.flatten(1) for value in tangents.values()], dim=1)
    torch.testing.assert_close(
        case.ntk.jvp(tangents), case.jacobian @ flat.T, rtol=1e-11, atol=1e-11
    )


def test_quadratic_form(case: Case) -> None:
    block = draw(case.n, 4)
    expected = torch.einsum("ik,ij,jk->k", block, case.dense, block)
    torch.testing.assert_close(case.ntk.quadratic_form(block), expected, rtol=1e-11, atol=0)


def test_the_kernel_is_symmetric(case: Case) -> None:
    kernel = case.ntk.to_dense()
    torch.testing.assert_close(kernel, kernel.T, rtol=0, atol=1e-12 * float(kernel.max()))


def test_exact_trace_and_diagonal(case: Case) -> None:
    assert case.ntk.trace(None).value == pytest.approx(float(case.dense.trace()), rel=1e-11)
    diagonal = case.ntk.diagonal(None).value
    torch.testing.assert_close(diagonal, case.dense.diagonal(), rtol=1e-11, atol=1e-12)


def test_estimated_trace_and_diagonal(case: Case) -> None:
    off_diagonal = case.dense - torch.diag(case.dense.diagonal())
    # Rademacher probes: the variances are 2 |off|_F^2 / m and sum_j off_ij^2 / m; six deviations.
    probes = 200
    trace = case.ntk.trace(probes, seed=3)
    deviation = float(off_diagonal.norm()) * (2 / probes) ** 0.5
    assert abs(trace.value - float(case.dense.trace())) < 6 * deviation
    diagonal = case.ntk.diagonal(probes, seed=3).value
    deviations = off_diagonal.norm(dim=1) / probes**0.5
    assert ((diagonal - case.dense.diagonal()).abs() <= 6 * deviations + 1e-10).all()


def test_scipy_finds_its_eigenvalues(case: Case) -> None:
    operator = case.ntk.to_scipy()
    assert operator.shape == (case.n, case.n)
    assert operator.dtype == np.float64
    found = eigsh(operator, k=3, which="LA", return_eigenvectors=False, v0=np.ones(case.n))
    expected = torch.linalg.eigvalsh(case.dense)[-3:].numpy()
    np.testing.assert_allclose(np.sort(found), expected, rtol=1e-10)


@pytest.mark.slow
def test_single_precision_agrees_to_its_accuracy(case: Case) -> None:
    prior = case.prior.to(dtype=torch.float32)
    ntk = NTK(prior, {key: value.float() for key, value in case.parameters.items()})
    block = draw(case.n, 3)
    product = ntk @ block.float()
    assert product.dtype == torch.float32
    expected = case.dense @ block
    # Some ten roundings of relative size 6e-8 in a row: 6e-7 was measured.
    assert (product.double() - expected).norm() < 5e-6 * expected.norm()


def test_attributes(case: Case) -> None:
    assert case.ntk.shape == (case.n, case.n)
    assert case.ntk.T is case.ntk
    expected = case.prior.image(case.parameters)
    torch.testing.assert_close(case.ntk.image, expected, rtol=0, atol=1e-12)  # float64
    assert repr(case.ntk) == f"NTK({case.prior.name}, {case.n}x{case.n}, torch.float64)"


@pytest.mark.slow
def test_leaves_that_require_gradients_and_callers_without_them(case: Case) -> None:
    leaves = {key: v.clone().requires_grad_() for key, v in case.parameters.items()}
    ntk, vector = NTK(case.prior, leaves), draw(case.n)
    product = ntk @ vector
    with torch.no_grad():
        torch.testing.assert_close(ntk @ vector, product, rtol=1e-12, atol=1e-12)  # float64
    torch.testing.assert_close(product, case.dense @ vector, rtol=1e-10, atol=1e-10)
    assert not product.requires_grad
    assert all(leaf.grad is None for leaf in leaves.values())


def test_linearisation_without_gradients() -> None:
    prior = ImagePrior(lambda: nn.Conv2d(2, 3, 3), draw(1, 2, 5, 8))
    parameters = prior.init(0)
    with torch.no_grad():
        kernel = NTK(prior, parameters).to_dense()
    jacobian = dense_jacobian(prior, parameters)
    torch.testing.assert_close(kernel, jacobian @ jacobian.T, rtol=1e-12, atol=1e-12)


def test_columns_of_a_block_follow_from_the_memory_budget() -> None:
    # A linear map keeps its code for the backward pass, 1 * 2 * 3 numbers of 8 bytes, beside its
    # parameters, 3 * 4 + 4 numbers.
    prior = ImagePrior(lambda: nn.Linear(3, 4), draw(1, 1, 2, 3))
    parameters = prior.init()
    assert parameter_bytes(parameters) == 16 * 8
    assert activation_bytes(prior, parameters) == 6 * 8
    column = (16 + 3 * 6) * 8
    for budget, columns in ((0, 1), (column - 1, 1), (5 * column - 1, 4), (5 * column, 5)):
        assert block_columns(prior, parameters, budget) == columns


def test_on_each_device(case: Case, device: str) -> None:
    if case.prior.device.type == device:
        prior, ntk = case.prior, case.ntk
    else:
        prior = case.prior.to(device=device)
        ntk = NTK(prior, {key: value.to(device) for key, value in case.parameters.items()})
    block = draw(case.n, 3)
    product = ntk @ block.to(device)
    assert product.device.type == device
    torch.testing.assert_close(product.cpu(), case.dense @ block, rtol=1e-10, atol=1e-9)


# --- Errors ---------------------------------------------------------------------------------


def test_parameters_of_another_prior(case: Case) -> None:
    missing = dict(list(case.parameters.items())[1:])
    with pytest.raises(InvalidInputError, match=r"not parameters of .*use prior\.init\(\)"):
        NTK(case.prior, missing)
    stacked = case.prior.init_many([0, 1])
    with pytest.raises(InvalidInputError, match="not parameters of"):
        NTK(case.prior, stacked)


def test_parameters_of_another_dtype(case: Case) -> None:
    single = {key: value.float() for key, value in case.parameters.items()}
    with pytest.raises(InvalidInputError, match=r"is torch\.float32 on cpu, the prior torch\.flo"):
        NTK(case.prior, single)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_parameters_that_are_not_finite(case: Case, value: float) -> None:
    parameters = {key: tensor.clone() for key, tensor in case.parameters.items()}
    key = list(parameters)[-1]
    parameters[key].view(-1)[0] = value
    with pytest.raises(DivergenceError, match="holds NaN or infinity"):
        NTK(case.prior, parameters)


def test_an_image_that_is_not_finite() -> None:
    class Overflow(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return (1e3 * super().forward(x)).exp()

    prior = ImagePrior(lambda: Overflow(3, 4), draw(1, 1, 2, 3).abs())
    parameters = {key: torch.full_like(value, 9.0) for key, value in prior.init().items()}
    with pytest.raises(DivergenceError, match=r"the image of .* is not finite"):
        NTK(prior, parameters)


def test_blocks_of_another_shape(case: Case) -> None:
    # The first two would pass for other numbers of images.
    wrong_shapes = [(2 * case.n, 3), (1, case.n), (case.n + 1, 1)]
    for shape in wrong_shapes:
        block = torch.ones(shape, dtype=torch.float64)
        with pytest.raises(InvalidInputError, match=r"expected flattened images, shape \(\d+, k"):
            case.ntk.vjp(block)
        with pytest.raises(InvalidInputError, match=r"expected shape \(\d+,\) or"):
            case.ntk.quadratic_form(block)
    nothing = torch.ones(case.n, 0, dtype=torch.float64)
    with pytest.raises(InvalidInputError, match=r"expected flattened images, shape \(\d+, k"):
        case.ntk.vjp(nothing)
    assert case.ntk.quadratic_form(nothing).shape == (0,)
    with pytest.raises(InvalidInputError, match="expected shape"):
        _ = case.ntk @ torch.ones(2 * case.n, 3, dtype=torch.float64)
