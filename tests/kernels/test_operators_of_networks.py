"""Kernels at several codes, on parameters, and composed, against dense Jacobians by autograd."""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from dipkernels import tasks
from dipkernels.errors import InvalidInputError
from dipkernels.kernels import NTK, GaussNewton, Kernel, adam_metric
from dipkernels.kernels.cross import CrossKernel
from dipkernels.linalg import (
    DiagonalOperator,
    Lanczos,
    conjugate_gradients,
    effective_rank,
    krylov_probes,
    top_eigenpairs,
)
from dipkernels.networks import ImagePrior
from dipkernels.spectra import anisotropy, frequency_response
from dipkernels.theory import expand, kernel_drift, kernel_spectrum, linear_fit
from helpers.priors import draw

SHAPE, COUNT = (2, 5, 7), 2
N = 70


class Net(nn.Module):
    """A small network with what the tangent pass treats specially."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(nn.functional.leaky_relu(self.norm(self.first(x)), 0.1)).sigmoid()


PRIOR = ImagePrior(Net, draw(1, 3, 5, 7))
PARAMETERS = {k: v + 0.1 * draw(*v.shape, seed=i) for i, (k, v) in enumerate(PRIOR.init(0).items())}
CODES = draw(COUNT, 3, 5, 7, seed=9)
METRIC = adam_metric({k: v.square() + 0.1 for k, v in PARAMETERS.items()})


def jacobian(code: Tensor, names: list[str] | None = None) -> Tensor:
    """Differentiate every output of the plain module by itself."""
    module = PRIOR.module(PARAMETERS)
    image = module(code)[0].flatten()
    leaves = [p for k, p in module.named_parameters() if names is None or k in names]
    rows = [torch.autograd.grad(value, leaves, retain_graph=True) for value in image]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


J = jacobian(PRIOR.code)
STACK = torch.cat([jacobian(code[None]) for code in CODES])
ROOT = torch.cat([METRIC[key].flatten() for key in PARAMETERS]).sqrt()


def near(found: Any, expected: Any) -> None:
    """Two sums of products in another order, in float64."""
    found, expected = (np.asarray(x) for x in (found, expected))
    assert found.shape == expected.shape
    assert np.linalg.norm(found - expected) < 1e-12 * np.linalg.norm(expected)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As for a user: annotations are not checked, so that the package's own validation is met."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def ntk() -> NTK:
    return NTK(PRIOR, PARAMETERS)


@pytest.fixture(scope="module")
def several() -> NTK:
    return NTK(PRIOR, PARAMETERS, codes=CODES)


# --- Several codes ------------------------------------------------------------------------------


def test_kernel_of_several_codes_is_that_of_the_stacked_jacobian(several: NTK) -> None:
    assert several.image_shape == (COUNT * 2, 5, 7)
    near(several.image, torch.cat([PRIOR.image(PARAMETERS, code[None]) for code in CODES]))
    near(several.to_dense(), STACK @ STACK.T)
    x = draw(COUNT * N, 2, seed=1)
    near(several @ x, STACK @ (STACK.T @ x))
    near(several.quadratic_form(x), (STACK.T @ x).square().sum(dim=0))
    block = several[range(N), range(N, 2 * N)]
    near(block.to_dense(), STACK[:N] @ STACK[N:].T)
    layers = several.by_layer()
    near(sum(layers[name] @ x for name in layers.names), STACK @ (STACK.T @ x))


def test_cross_kernel_is_the_product_of_two_jacobians(ntk: NTK, several: NTK) -> None:
    dense = J @ STACK.T
    cross = ntk.cross(CODES)
    assert cross.shape == (N, COUNT * N)
    for found in (cross, ntk.cross(several), several.cross(ntk).T):
        near(found.to_dense(), dense)
    x, y = draw(COUNT * N, 2, seed=1), draw(N, 3, seed=2)
    near(cross @ x, dense @ x)
    near(cross.T @ y, dense.T @ y)
    near(cross.H @ y.numpy(), dense.T @ y)
    near(ntk.cross(ntk).to_dense(), J @ J.T)
    values = np.linalg.svd(dense, compute_uv=False)
    found = scipy.sparse.linalg.svds(cross, 3, return_singular_vectors=False)
    np.testing.assert_allclose(np.sort(found)[::-1], values[:3], rtol=1e-10)
    # so that regression on other codes' images can be predicted: K_12 (K_22 + s I)^-1 y
    system = several + 0.3 * DiagonalOperator(torch.ones(COUNT * N, dtype=torch.float64))
    right = draw(COUNT * N, seed=3)
    solved = conjugate_gradients(system, right[None]).x[0]
    matrix = STACK @ STACK.T + 0.3 * torch.eye(COUNT * N, dtype=torch.float64)
    expected = dense @ torch.linalg.solve(matrix, right)
    assert float((cross @ solved - expected).norm()) < 1e-6 * float(expected.norm())


def test_blocks_of_several_codes_are_cross_kernels(several: NTK) -> None:
    first = NTK(PRIOR, PARAMETERS, codes=CODES[:1])
    block = several[range(N), range(N, 2 * N)]
    near(first.cross([CODES[1:]]).to_dense(), block.to_dense())


def test_cross_kernels_keep_metric_and_layers() -> None:
    names = [key for key in PARAMETERS if not key.startswith("first")]
    weights = torch.cat([METRIC[key].flatten() for key in names])
    kernel = NTK(PRIOR, PARAMETERS, metric=METRIC, layers=("last", "norm"), memory_budget=0)
    first, second = (jacobian(code, names) for code in (PRIOR.code, CODES[:1]))
    near(kernel.cross(CODES[:1]).to_dense(), (first * weights) @ second.T)


def test_cross_kernel_between_sizes_and_between_parameters(ntk: NTK) -> None:
    larger = draw(1, 3, 6, 9, seed=4)
    near(ntk.cross(larger).to_dense(), J @ jacobian(larger).T)
    moved = {key: value + 0.05 for key, value in PARAMETERS.items()}
    later = NTK(PRIOR, moved)
    expected = ntk.jacobian(), later.jacobian()
    near(
        ntk.cross(later).to_dense(),
        sum(rows @ expected[1][key].T for key, rows in expected[0].items()),
    )
    with pytest.raises(InvalidInputError, match="images of these codes have sizes"):
        NTK(PRIOR, PARAMETERS, codes=[larger, CODES[:1]])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (CODES[:, :2], r"a code must be like the prior's, \(1, 3, 5, 7\), .* got \(1, 2, 5, 7\)"),
        (CODES.float(), r"torch.float64 on cpu; got \(1, 3, 5, 7\), torch.float32 on cpu"),
        (CODES[0], r"got \(3, 5, 7\)"),
        ([CODES], r"got \(2, 3, 5, 7\)"),
        ([], "no code is given"),
        (3, "other must be an NTK or a Tensor or several tensors, got 3"),
        ("noise", "other must be an NTK or a Tensor or several tensors, got 'noise'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_codes_are_checked(ntk: NTK, codes: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ntk.cross(codes)


def test_kernels_of_other_parameters_have_no_cross_kernel(ntk: NTK) -> None:
    with pytest.raises(InvalidInputError, match="are not kernels of the same parameters"):
        ntk.cross(NTK(PRIOR, PARAMETERS, layers="last"))
    with pytest.raises(InvalidInputError, match="have different metrics"):
        ntk.cross(NTK(PRIOR, PARAMETERS, metric=METRIC))
    with pytest.raises(InvalidInputError, match="is a constant"):
        NTK(PRIOR.linearised(PARAMETERS), PARAMETERS, codes=CODES)


# --- The Jacobian and the Gauss-Newton matrix ---------------------------------------------------


@pytest.mark.parametrize("metric", [None, METRIC], ids=["plain", "metric"])
@pytest.mark.parametrize("weights", [None, "mask", "every"])
def test_gauss_newton_is_the_square_of_the_jacobian(
    metric: dict[str, Tensor] | None, weights: str | None
) -> None:
    mask = torch.rand(5, 7, generator=torch.Generator().manual_seed(1)) > 0.4
    given = {None: None, "mask": mask, "every": draw(*SHAPE, seed=5).abs()}[weights]
    diagonal = torch.ones(N) if given is None else given.expand(SHAPE).flatten()
    factor = J if metric is None else J * ROOT
    dense = factor.T @ (diagonal.double()[:, None] * factor)
    made = NTK(PRIOR, PARAMETERS, metric=metric, memory_budget=0).gauss_newton(given)
    x = draw(J.shape[1], 3, seed=2)
    near(made.to_dense(), dense)
    near(made @ x, dense @ x)
    near(made @ (x[:, 0] + 1j * x[:, 1]), dense.to(torch.complex128) @ (x[:, 0] + 1j * x[:, 1]))
    near(made.quadratic_form(x), (x * (dense @ x)).sum(dim=0))
    near(made.diagonal(None).value, dense.diagonal())
    near((2 * made - made).to_dense(), dense)
    assert made.symmetry().asymmetry < 1e-13


def test_gauss_newton_of_few_parameters_and_many_outputs() -> None:
    prior = ImagePrior(lambda: nn.Conv2d(2, 1, 1), draw(1, 2, 9, 8))
    ntk = NTK(prior, prior.init(0))
    rows = torch.cat(list(ntk.jacobian().values()), dim=1)
    near(ntk.gauss_newton().to_dense(), rows.T @ rows)


def test_lanczos_on_parameters_finds_the_eigenvalues_of_the_kernel(ntk: NTK) -> None:
    values = torch.linalg.eigvalsh(J @ J.T).flip(0)
    made = ntk.gauss_newton()
    start = made @ draw(J.shape[1], 1, seed=3)  # within the range of J^T, as all products are
    nodes = np.sort(Lanczos(made, start).extend(N).spaces()[0].gauss().nodes)[::-1]
    np.testing.assert_allclose(nodes[:20], values[:20], rtol=1e-9)  # those of some size
    pairs = top_eigenpairs(made, 4, tolerance=1e-10)
    np.testing.assert_allclose(pairs.values, values[:4], rtol=1e-10)
    images = ntk.jvp(made.as_parameters(pairs.vectors))
    near(images.norm(dim=0), pairs.values.sqrt())
    assert made.trace(None).value == pytest.approx(float(values.sum()), rel=1e-12)
    ranks = [effective_rank(krylov_probes(each, 4, N)) for each in (made, ntk)]
    difference = float(ranks[0].trace - ranks[1].trace)
    errors = [float(rank.trace_standard_error) for rank in ranks]
    assert abs(difference) < 5 * float(np.hypot(*errors))


def test_the_jacobian_is_an_operator(ntk: NTK) -> None:
    factor = ntk.factor()
    assert factor.shape == (N, J.shape[1])
    near(factor.to_dense(), J)
    near((factor @ factor.T).to_dense(), J @ J.T)
    task = tasks.inpaint(torch.rand(*SHAPE), draw(5, 7, seed=6) > 0)
    mask = DiagonalOperator(task.measured.double().flatten())
    near((factor.T @ mask @ factor).to_dense(), ntk.gauss_newton(task.measured).to_dense())
    weights = NTK(PRIOR, PARAMETERS, metric=METRIC).factor()
    near(weights.to_dense(), J * ROOT)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(N), r"weights must have shape \(2, 5, 7\) or \(5, 7\), got \(70,\)"),
        (-torch.ones(5, 7), "finite and not negative"),
        (torch.full((5, 7), float("inf")), "finite and not negative"),
        (3.0, "weights must be a Tensor or None, got 3.0"),
    ],
)
def test_weights_are_checked(ntk: NTK, weights: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ntk.gauss_newton(weights)
    with pytest.raises(InvalidInputError, match=r"expected shape \(.*,\) or"):
        ntk.gauss_newton().as_parameters(torch.ones(3))


# --- Composed kernels are kernels ---------------------------------------------------------------


ONE = DiagonalOperator(torch.ones(N, dtype=torch.float64))
COMPOSED: dict[str, tuple[Callable[[NTK, NTK], Any], Callable[[Tensor, Tensor], Tensor]]] = {
    "sum": (lambda a, b: a + b, lambda a, b: a + b),
    "mean": (lambda a, b: sum([a, b]) / 2, lambda a, b: (a + b) / 2),
    "multiple": (lambda a, b: 2 * a, lambda a, b: 2 * a),
    "noise": (lambda a, b: a + 0.1 * ONE, lambda a, b: a + 0.1 * torch.eye(N).double()),
    "square": (lambda a, b: a @ a, lambda a, b: a @ a),
    "sandwich": (lambda a, b: a @ b @ a, lambda a, b: a @ b @ a),
}


@pytest.fixture(scope="module")
def other() -> NTK:
    return NTK(PRIOR, {key: value + 0.1 for key, value in PARAMETERS.items()}, metric=METRIC)


@pytest.mark.parametrize("name", COMPOSED)
def test_composed_kernels_are_asked_as_kernels_are(ntk: NTK, other: NTK, name: str) -> None:
    made = COMPOSED[name][0](ntk, other)
    dense = COMPOSED[name][1](ntk.to_dense(), other.to_dense())
    assert isinstance(made, Kernel)
    near(made.to_dense(), dense)
    channel = torch.zeros(SHAPE, dtype=torch.bool)
    channel[1] = True
    near(made.to_dense(channel), dense[35:, 35:])
    near(made[channel].to_dense(), dense[35:, 35:])
    near(made[channel].quadratic_form(torch.ones(35).double()), dense[35:, 35:].sum())
    near(made.rows([3, 40]).to_dense(), dense[[3, 40]])
    near(made[[3, 40], :].T.to_dense(), dense[:, [3, 40]])
    np.testing.assert_allclose(
        made.top_eigenpairs(2, tolerance=1e-10).values,
        torch.linalg.eigvalsh(dense).flip(0)[:2],
        rtol=1e-9,
    )
    spectrum = kernel_spectrum(made)
    np.testing.assert_allclose(spectrum.values[-5:], torch.linalg.eigvalsh(dense)[-5:], rtol=1e-9)
    assert frequency_response(made, edges=[0.2], probes=2).response.min() > 0
    assert made.spectral_density(2, 8).attrs["largest"] > 0


def test_responses_of_sums_are_sums_of_responses(ntk: NTK, other: NTK) -> None:
    edges = [0.1, 0.3]
    single = [frequency_response(each, edges=edges, probes=N).response for each in (ntk, other)]
    both = frequency_response(2 * ntk - other, edges=edges, probes=N).response
    np.testing.assert_allclose(both, 2 * single[0] - single[1], rtol=1e-11)
    oriented = anisotropy(ntk + other, edges=[0.05, 0.5])
    assert np.isfinite(oriented.horizontal_over_vertical).all()


def test_drift_takes_composed_kernels(ntk: NTK) -> None:
    found = kernel_drift(ntk, 3 * ntk)
    assert float(found.relative_change) == pytest.approx(2, rel=1e-12)
    assert float(found.alignment) == pytest.approx(1, rel=1e-12)
    on_parameters = kernel_drift(ntk.gauss_newton(), ntk.gauss_newton() / 2)
    assert float(on_parameters.norm_ratio) == pytest.approx(0.5, rel=1e-12)


def test_spectrum_of_any_symmetric_operator(ntk: NTK) -> None:
    found = kernel_spectrum(ntk.gauss_newton())
    expected = torch.linalg.eigvalsh(J @ J.T)[-10:]
    np.testing.assert_allclose(found.values[-10:], expected, rtol=1e-9)
    assert len(found.values) == J.shape[1]


@pytest.mark.usefixtures("unchecked")
def test_what_needs_another_kind_of_operator_says_so(ntk: NTK, several: NTK) -> None:
    task, cross = tasks.denoise(torch.rand(*SHAPE)), ntk.cross(several)
    with pytest.raises(InvalidInputError, match=r"kernel must be .* got CrossKernel"):
        frequency_response(cross, SHAPE)
    for made in (2 * ntk, ntk.gauss_newton(), cross):
        for function in (expand, linear_fit):
            with pytest.raises(InvalidInputError, match="ntk must be an NTK, got"):
                function(made, task)
    with pytest.raises(InvalidInputError, match="must be a SymmetricOperator, got"):
        kernel_spectrum(cross)
    with pytest.raises(InvalidInputError, match="doesn't know the shape of its images"):
        frequency_response(ntk.gauss_newton())
    with pytest.raises(InvalidInputError, match="must be a SymmetricOperator, got"):
        kernel_drift(cross, ntk)
    with pytest.raises(InvalidInputError, match="must be a SymmetricOperator, got"):
        Lanczos(cross, torch.ones(N, 1).double())


def test_fourier_modes_have_real_forms_of_every_layer(ntk: NTK) -> None:
    waves = np.exp(2j * np.pi * np.arange(7) * 3 / 7)
    mode = torch.from_numpy(np.broadcast_to(waves, SHAPE).reshape(-1, 1).copy())
    dense = (J @ J.T).to(mode.dtype)
    near(ntk.quadratic_form(mode), (mode.conj() * (dense @ mode)).sum(dim=0).real)
    near(ntk @ mode, dense @ mode)
    layers = ntk.by_layer()
    near(layers.quadratic_form(mode).sum(dim=0), ntk.quadratic_form(mode))
    near(layers["last"] @ mode[:, 0] + layers["norm"] @ mode[:, 0] + layers["first"] @ mode[:, 0],
         dense @ mode[:, 0])  # fmt: skip


@pytest.mark.usefixtures("unchecked")
def test_gradients_of_complex_and_foreign_images_are_refused(ntk: NTK) -> None:
    with pytest.raises(InvalidInputError, match=r"of floating-point numbers .* got complex128"):
        ntk.vjp(torch.ones(N, 1, dtype=torch.complex128))
    with pytest.raises(InvalidInputError, match=r"expected torch.float64 .* got torch.float32"):
        ntk.vjp(torch.ones(N, 1))


def test_a_kernel_in_bfloat16_speaks_to_numpy() -> None:
    half = PRIOR.to(dtype=torch.bfloat16)
    kernel = NTK(half, {key: value.to(torch.bfloat16) for key, value in PARAMETERS.items()})
    x = np.exp(2j * np.pi * np.arange(N) / N)
    expected = (J @ J.T).numpy() @ x
    for found in (kernel.to_scipy() @ x, kernel @ x):
        assert found.dtype == np.complex64
        # a dozen roundings of 2^-8 in a row: 1 % measured
        assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


def test_types_and_names(ntk: NTK, several: NTK) -> None:
    assert isinstance(ntk.cross(several), CrossKernel)
    assert isinstance(ntk.gauss_newton(), GaussNewton)
    assert repr(several) == "NTK(Net, 140x140, torch.float64, 2 codes)"
    assert repr(ntk.cross(several)) == "CrossKernel(70x140, torch.float64)"
    size = J.shape[1]
    assert repr(ntk.gauss_newton()) == f"GaussNewton(JacobianFactor(70x{size}, torch.float64))"
