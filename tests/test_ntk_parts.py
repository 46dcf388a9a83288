"""Parts of the empirical NTK: layers, pixels and metrics, against dense Jacobians."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels import fitting, tasks
from dipkernels.errors import AccuracyWarning, DivergenceError, InvalidInputError, NotSymmetricError
from dipkernels.kernels import (
    NTK,
    adam_metric,
    adam_metric_of,
    pixel_indices,
    select_parameters,
)
from dipkernels.kernels.kernel import RestrictedKernel
from dipkernels.kernels.pixels import KernelBlock
from dipkernels.linalg import DenseOperator
from dipkernels.networks import ImagePrior
from dipkernels.spectra import frequency_response
from helpers.priors import draw, perturbed

SHAPE = (2, 5, 9)
N = math.prod(SHAPE)


class Net(nn.Module):
    """Nested modules, a normalisation, a parameter of its own, a bias without effect."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU())
        self.encoder2 = nn.Conv2d(4, 3, 3, padding=1, bias=False)
        self.gain = nn.Parameter(torch.ones(3, 1, 1))
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.gain * self.encoder2(self.encoder(x)))).sigmoid()


PRIOR = ImagePrior(Net, draw(1, 2, 5, 9))
PARAMETERS = perturbed(PRIOR.init(3), 0, 0.1)
METRIC = {key: draw(*value.shape, seed=7).square() for key, value in PARAMETERS.items()}
LAYERS = {
    "gain": ["gain"],
    "encoder.0": ["encoder.0.weight", "encoder.0.bias"],
    "encoder.1": ["encoder.1.weight", "encoder.1.bias"],
    "encoder2": ["encoder2.weight"],
    "head": ["head.weight", "head.bias"],
}


@pytest.fixture(scope="module")
def jacobian() -> dict[str, Tensor]:
    """By reverse mode, output by output."""
    blocks = torch.func.jacrev(PRIOR.image)(PARAMETERS)
    return {key: block.reshape(N, -1) for key, block in blocks.items()}


@pytest.fixture(scope="module", params=[None, METRIC], ids=["plain", "metric"])
def weighted(request: pytest.FixtureRequest) -> NTK:
    return NTK(PRIOR, PARAMETERS, metric=request.param)


@pytest.fixture(scope="module")
def dense(jacobian: dict[str, Tensor], weighted: NTK) -> dict[str, Tensor]:
    """The kernel of every parameter."""
    return {
        key: block * (1 if weighted.metric is None else METRIC[key].flatten()) @ block.T
        for key, block in jacobian.items()
    }


def total(dense: dict[str, Tensor], keys: object = None) -> Tensor:
    return sum(dense[key] for key in keys or dense)  # type: ignore[union-attr, return-value]


def close(actual: Tensor, expected: Tensor) -> None:
    # Sums of products in another order.
    assert expected.norm() > 0
    assert actual.shape == expected.shape
    assert (actual - expected).norm() < 1e-12 * expected.norm()


# --- Jacobian -------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [None, [7, 3, N - 1]], ids=["all", "some"])
def test_the_jacobian_is_that_of_reverse_mode(
    pixels: list[int] | None,
    weighted: NTK,
    jacobian: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent: list[Tensor] = []
    vjp = weighted.tangents.vjp
    monkeypatch.setattr(weighted.tangents, "vjp", lambda x: spent.append(x) or vjp(x))
    found = weighted.jacobian(pixels)
    assert list(found) == list(jacobian)
    for key, block in jacobian.items():
        expected = block if pixels is None else block[pixels]
        # sums in another order; one bias has no effect, and all of its derivatives are rounding
        torch.testing.assert_close(found[key], expected, rtol=1e-10, atol=1e-14)
    assert sum(images.shape[1] for images in spent) == (N if pixels is None else len(pixels))


# --- Metric ---------------------------------------------------------------------------------


def test_the_kernel_in_a_metric(weighted: NTK, dense: dict[str, Tensor]) -> None:
    close(weighted.to_dense(), total(dense))
    block = draw(N, 3, seed=1)
    close(weighted @ block, total(dense) @ block)
    close(weighted.quadratic_form(block), torch.einsum("ik,ij,jk->k", block, total(dense), block))
    assert weighted.symmetry().asymmetry < 1e-13


def test_a_metric_may_be_a_function_of_the_parameters(jacobian: dict[str, Tensor]) -> None:
    ntk = NTK(PRIOR, PARAMETERS, metric=lambda p: {key: value**2 for key, value in p.items()})
    expected = sum(j * PARAMETERS[key].flatten() ** 2 @ j.T for key, j in jacobian.items())
    close(ntk.to_dense(), expected)
    assert repr(ntk) == f"NTK(Net, {N}x{N}, torch.float64, with a metric)"


def adam_after(steps: int) -> tuple[torch.optim.Adam, dict[str, Tensor], Tensor]:
    """An optimiser without momentum, its leaves, and the target of its loss."""
    target = draw(*SHAPE, seed=5).sigmoid()
    leaves = {key: value.clone().requires_grad_() for key, value in PARAMETERS.items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-3, betas=(0.0, 0.99), eps=1e-6)
    for _ in range(steps):
        optimiser.zero_grad()
        (PRIOR.image(leaves) - target).square().mean().backward()
        optimiser.step()
    return optimiser, leaves, target


@pytest.mark.parametrize("steps", [0, 6])
def test_adam_moves_the_image_by_its_kernel(steps: int) -> None:
    before, leaves, target = adam_after(steps)
    parameters = {key: leaf.detach().clone() for key, leaf in leaves.items()}
    state = copy.deepcopy(before.state_dict())
    images, metric = [], {}
    rate = 1e-5
    for maximize in (False, True):  # a step forth and one back: central differences
        moved = {key: value.clone().requires_grad_() for key, value in parameters.items()}
        optimiser = torch.optim.Adam(moved.values())
        optimiser.load_state_dict(copy.deepcopy(state))
        optimiser.param_groups[0] |= {"lr": rate, "maximize": maximize}
        (PRIOR.image(moved) - target).square().mean().backward()
        gradients = {key: leaf.grad.clone() for key, leaf in moved.items()}
        optimiser.step()
        images.append(PRIOR.image(moved).detach())
        metric = adam_metric_of(optimiser, moved)
    residual = (PRIOR.image(parameters) - target).flatten()
    expected = NTK(PRIOR, parameters, metric=metric) @ (2 / N * residual)
    velocity = (images[1] - images[0]).flatten() / (2 * rate)
    # An error of rate^2 times third derivatives.
    assert (velocity - expected).norm() < 1e-7 * expected.norm()
    if steps == 0:
        first = adam_metric({key: g.square() for key, g in gradients.items()}, epsilon=1e-6)
        for key, value in metric.items():
            torch.testing.assert_close(first[key], value, rtol=1e-12, atol=0)


def test_the_metric_of_a_fit_that_was_saved(tmp_path: Path) -> None:
    task = tasks.denoise(draw(*SHAPE, seed=2).sigmoid().float(), noise_sigma=0.1)
    prior, file = PRIOR.to(dtype=torch.float32), tmp_path / "state"
    fitting.fit(prior, task, iterations=4, learning_rate=1e-3, checkpoint=file)
    leaves = {key: value.requires_grad_() for key, value in prior.init(0).items()}
    optimiser = torch.optim.Adam(leaves.values(), lr=1e-3)
    for _ in range(4):
        optimiser.zero_grad()
        task.misfit(prior.image(leaves)).backward()
        optimiser.step()
    expected, found = adam_metric_of(optimiser, leaves), fitting.load_adam_metric(file)
    assert list(found) == list(expected)
    # Root mean squares of gradients, since one that is 0 but for rounding (the bias without effect)
    # is all rounding: absolutely, sums of 100 terms in single precision.
    largest = max(float(1 / value.min()) for value in expected.values())
    for key, value in expected.items():
        torch.testing.assert_close(1 / found[key], 1 / value, rtol=1e-4, atol=1e-6 * largest)
    NTK(prior, fitting.load_parameters(file), metric=found)
    fitting.fit(
        prior, task, iterations=2, optimiser="sgd", learning_rate=0.1, checkpoint=file2(file)
    )
    with pytest.raises(InvalidInputError, match="no second moments"):
        fitting.load_adam_metric(file2(file))


def file2(file: Path) -> Path:
    return file.with_name("other")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda m: m.pop("gain"), InvalidInputError, "no entries for gain"),
        (lambda m: m.update(gain=torch.ones(3)), InvalidInputError, r"shape \(3, 1, 1\), got \(3"),
        (lambda m: m["gain"].neg_(), InvalidInputError, "negative entries"),
        (lambda m: m["gain"].fill_(math.inf), DivergenceError, "gain holds NaN or inf"),
    ],
)
def test_metrics_are_validated(change: object, error: type[Exception], message: str) -> None:
    metric = {key: value.clone() for key, value in METRIC.items()}
    change(metric)  # type: ignore[operator]
    with pytest.raises(error, match=message):
        NTK(PRIOR, PARAMETERS, metric=metric)


def test_adam_without_a_step_has_no_metric() -> None:
    leaves = {key: value.clone().requires_grad_() for key, value in PARAMETERS.items()}
    with pytest.raises(InvalidInputError, match="no second moments of gain"):
        adam_metric_of(torch.optim.Adam(leaves.values()), leaves)
    optimiser = torch.optim.Adam(leaves.values(), amsgrad=True)
    PRIOR.image(leaves).sum().backward()
    optimiser.step()
    with pytest.raises(InvalidInputError, match="AMSGrad"):
        adam_metric_of(optimiser, leaves)
    for bad in (torch.tensor([1.0, -1.0]), torch.tensor([math.nan])):
        with pytest.raises(InvalidInputError, match="negative or NaN: a"):
            adam_metric({"a": bad})
    with pytest.raises(InvalidInputError, match="epsilon must be positive"):
        adam_metric({"a": torch.ones(2)}, epsilon=0.0)


# --- Layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("encoder", ["encoder.0.weight", "encoder.0.bias", "encoder.1.weight", "encoder.1.bias"]),
        (["head.bias", "gain"], ["gain", "head.bias"]),
        ("*.bias", ["encoder.0.bias", "encoder.1.bias", "head.bias"]),
        (["encoder.[01].w*"], ["encoder.0.weight", "encoder.1.weight"]),
    ],
)
def test_a_kernel_restricted_to_layers(
    patterns: str | list[str], chosen: list[str], jacobian: dict[str, Tensor]
) -> None:
    names = list(PARAMETERS)
    assert select_parameters(names, patterns) == sorted(chosen, key=names.index)
    ntk = NTK(PRIOR, PARAMETERS, layers=patterns, metric=METRIC)
    close(ntk.to_dense(), sum(jacobian[k] * METRIC[k].flatten() @ jacobian[k].T for k in chosen))
    assert repr(ntk).endswith(f", {len(chosen)} parameter tensors, with a metric)")


@pytest.mark.parametrize("patterns", ["enc", "", [], "encoder.*.nothing"])
def test_layers_that_are_not_there(patterns: str | list[str]) -> None:
    with pytest.raises(InvalidInputError, match=r"no layer is|no parameter's name is"):
        NTK(PRIOR, PARAMETERS, layers=patterns)


def test_layers_sum_to_the_whole(weighted: NTK, dense: dict[str, Tensor]) -> None:
    layers, block = weighted.by_layer(), draw(N, 3, seed=2)
    assert layers.groups == LAYERS
    assert layers.names == list(LAYERS)
    expected = torch.stack([total(dense, keys) for keys in LAYERS.values()])
    matvecs, forms = layers.products(block), layers.quadratic_form(block)
    close(matvecs, expected @ block)
    close(matvecs.sum(dim=0), weighted @ block)
    close(forms, torch.einsum("ik,lij,jk->lk", block, expected, block))
    close(forms.sum(dim=0), weighted.quadratic_form(block))
    chosen = [3, 40, 17, 3]
    close(layers.to_dense(chosen), expected[:, chosen][:, :, chosen])
    close(layers.diagonal(chosen), expected[:, chosen, chosen])
    for name, matrix in zip(LAYERS, expected, strict=True):
        close(layers[name].to_dense(), matrix)
        close(layers[name].quadratic_form(block), torch.einsum("ik,ij,jk->k", block, matrix, block))
        assert repr(layers[name]) == f"LayerKernel({name} of {weighted!r})"


def test_layers_share_one_pass_in_chunks(dense: dict[str, Tensor]) -> None:
    ntk = NTK(PRIOR, PARAMETERS, memory_budget=60_000)
    assert 1 < ntk.chunk < 7
    calls: dict[str, list] = {"vjp": [], "jvp": []}
    for name, method in (("vjp", ntk.tangents.vjp), ("jvp", ntk.tangents.jvp)):
        setattr(ntk.tangents, name, lambda x, n=name, m=method: (calls[n].append(x), m(x))[1])
    block, layers = draw(N, 7, seed=4), ntk.by_layer()
    layers.quadratic_form(block)
    assert sum(x.shape[1] for x in calls["vjp"]) == 7
    assert not calls["jvp"]
    close(layers.products(block).sum(dim=0), ntk.to_dense() @ block)
    assert max(len(tangents["gain"]) for tangents in calls["jvp"]) <= ntk.chunk


def test_traces_and_responses_of_all_layers(weighted: NTK) -> None:
    layers = weighted.by_layer({"lower": ["encoder", "encoder2"], "upper": ["gain", "head"]})
    traces, whole = layers.trace(40, seed=2), weighted.trace(40, seed=2)
    assert float(traces.trace.sum()) == pytest.approx(whole.value, rel=1e-12)
    assert float(traces.share.sum()) == pytest.approx(1, rel=1e-12)
    assert traces.matvecs == 20
    rings = frequency_response(layers, SHAPE, probes=2)
    assert rings.response.dims == ("layer", "frequency")
    for name in layers.names:
        single = frequency_response(layers[name], SHAPE, probes=2)
        for key in ("response", "standard_error"):
            np.testing.assert_allclose(
                rings[key].sel(layer=name), single[key], rtol=1e-10, atol=1e-15
            )
        assert float(rings.half_power_frequency.sel(layer=name)) == pytest.approx(
            single.half_power_frequency, rel=1e-9
        )
        trace = weighted.by_layer({name: layers.groups[name]})[name].trace(40, seed=2)
        assert float(traces.standard_error.sel(layer=name)) == pytest.approx(
            trace.standard_error, rel=1e-9
        )


def test_layers_are_validated() -> None:
    ntk = NTK(PRIOR, PARAMETERS)
    with pytest.raises(InvalidInputError, match=r"in one layer only: encoder\.0\.bias"):
        ntk.by_layer({"biases": "*.bias", "rest": "encoder"})
    with pytest.raises(InvalidInputError, match="no layer is chosen"):
        ntk.by_layer({})
    with pytest.raises(InvalidInputError, match=r"no layer 'tail'; there are gain, enc"):
        _ = ntk.by_layer()["tail"]


# --- Pixels ---------------------------------------------------------------------------------


def test_a_kernel_restricted_to_pixels(weighted: NTK, dense: dict[str, Tensor]) -> None:
    whole, mask = total(dense), torch.zeros(SHAPE[1:], dtype=torch.bool)
    mask[1, 2:7] = mask[4, 8] = True
    for pixels in (mask, mask.numpy(), mask.expand(SHAPE), torch.tensor([7, 2, 80]), [5, 88, 5]):
        indices = pixel_indices(pixels, SHAPE)
        expected = whole[indices][:, indices]
        part = weighted[pixels]
        assert isinstance(part, RestrictedKernel)
        assert part.shape == expected.shape == (len(indices), len(indices))
        block = draw(len(indices), 4, seed=6)
        close(part @ block, expected @ block)
        close(part @ block[:, 0], expected @ block[:, 0])
        close(part.quadratic_form(block), torch.einsum("ik,ij,jk->k", block, expected, block))
        close(part.to_dense(), expected)
        close(weighted.to_dense(pixels), expected)
        close(part.diagonal(None).value, expected.diagonal())
    assert (
        pixel_indices(mask, SHAPE).tolist() == mask.expand(SHAPE).flatten().nonzero()[:, 0].tolist()
    )
    twice = weighted[mask][[3, 1]]
    close(
        twice.to_dense(),
        whole[pixel_indices(mask, SHAPE)[[3, 1]]][:, pixel_indices(mask, SHAPE)[[3, 1]]],
    )
    close(weighted[mask].to_dense([3, 1]), twice.to_dense())


def test_small_budgets_change_no_part(dense: dict[str, Tensor], weighted: NTK) -> None:
    tiny = NTK(PRIOR, PARAMETERS, metric=weighted.metric, memory_budget=0)
    close(tiny.to_dense([8, 3, 40]), total(dense)[[8, 3, 40]][:, [8, 3, 40]])


def test_rows_and_columns_may_differ(weighted: NTK, dense: dict[str, Tensor]) -> None:
    whole, rows, columns = total(dense), [4, 80, 9], [30, 1, 2, 88, 30]
    block = weighted[rows, columns]
    assert isinstance(block, KernelBlock)
    assert block.shape == (3, 5)
    expected = whole[rows][:, columns]
    x = draw(5, 2, seed=8)
    close(block @ x, expected @ x)
    close(block @ x[:, 1], expected @ x[:, 1])
    close(block.T @ draw(3, seed=9), expected.T @ draw(3, seed=9))
    close(block.to_dense(), expected)
    close(block.T.to_dense(), expected.T)
    close(weighted.rows(rows).to_dense(), whole[rows])
    close(weighted[:, columns].to_dense(), whole[:, columns])
    with pytest.raises(InvalidInputError, match=r"expected shape \(5,\) or \(5, k\), got \(4,\)"):
        _ = block @ draw(4)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.ones(9, 5, dtype=torch.bool), r"shape \(2, 5, 9\) or \(5, 9\), got \(9, 5\)"),
        (torch.zeros(5, 9, dtype=torch.bool), "no pixel is chosen"),
        ([], r"no pixel is chosen|got torch.float32"),
        ([3, 90], "must be in 0 to 89, got 3 to 90"),
        ([-1, 5], "must be in 0 to 89, got -1"),
        (torch.ones(5, 9), r"bool or a list of integers, got torch.float32"),
        (torch.ones(2, 2, dtype=torch.int64), "bool or a list of integers"),
        (slice(0, 5), "of slices only : is understood"),
    ],
)
def test_pixels_are_validated(pixels: object, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        pixel_indices(pixels, SHAPE)  # type: ignore[arg-type]


# --- Symmetry and sign ----------------------------------------------------------------------


def test_operators_that_are_not_what_they_should_be() -> None:
    root = draw(30, 30, seed=1)
    matrix = root @ root.T / 30
    found = DenseOperator(matrix).symmetry()
    assert found.asymmetry < 1e-14  # sums of 30 terms
    assert found.negativity == 0
    assert found.matvecs == 4
    with pytest.warns(AccuracyWarning, match=r"much for torch\.float64: .* no more digits"):
        DenseOperator(matrix + 1e-5 * root).symmetry()
    for wrong in (matrix + root, -matrix):
        with pytest.raises(NotSymmetricError, match="isn't symmetric positive semi-definite"):
            DenseOperator(wrong).symmetry()
    with pytest.raises(InvalidInputError, match="probes must be at least 2"):
        DenseOperator(matrix).symmetry(1)
    # exactly what the projection shows
    probed = DenseOperator(matrix + 1e-9 * root).symmetry()
    assert 1e-10 < probed.asymmetry < 1e-8


def test_a_network_in_single_precision_is_symmetric_enough() -> None:
    prior = PRIOR.to(dtype=torch.float32)
    found = NTK(prior, {key: value.float() for key, value in PARAMETERS.items()}).symmetry()
    assert 0 < found.asymmetry < 1e-5
    assert found.negativity < 1e-6
