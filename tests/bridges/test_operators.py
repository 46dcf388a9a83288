"""Operators in curvlinops and linear_operator, against dense matrices; skipped without these."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dipkernels.bridges import operators as bridge
from dipkernels.errors import InvalidInputError, MissingExtraError
from dipkernels.kernels import NTK
from dipkernels.linalg import DenseOperator, DiagonalOperator, LinearOperator
from dipkernels.networks import ImagePrior
from helpers.matrices import close, draw, random_psd

SHAPE, N = (2, 4, 5), 40


@pytest.fixture(scope="module")
def curvlinops() -> Any:
    return imported("curvlinops", bridge.to_curvlinops)


@pytest.fixture(scope="module")
def linear_operator() -> Any:
    return imported("linear_operator", bridge.to_linear_operator)


def imported(name: str, function: Any) -> Any:
    """Import a peer; this very sentence tells the CI which files need it."""
    try:
        function(DenseOperator(torch.eye(2)))
    except MissingExtraError:
        pytest.skip(f"the extra for {name} is not installed")
    return __import__(name)


class Case:
    """The kernel of a small network, and its Jacobian."""

    def __init__(self) -> None:
        def net() -> nn.Module:
            return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 2, 1))

        prior = ImagePrior(net, draw(1, 2, 4, 5, seed=1))
        parameters = prior.init(0)
        self.ntk = NTK(prior, parameters)
        rows = torch.func.jacrev(prior.image)(parameters)
        self.jacobian = torch.cat([rows[key].reshape(N, -1) for key in parameters], dim=1)
        self.dense = self.jacobian @ self.jacobian.T
        self.one: LinearOperator = DiagonalOperator(torch.ones(N, dtype=torch.float64))


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_products_of_curvlinops(case: Case, curvlinops: Any) -> None:
    wrapped = bridge.to_curvlinops(case.ntk)
    block = draw(N, 3, seed=2)
    # float64, sums of a hundred terms in another order; here and below
    close(wrapped @ block, case.dense @ block, 1e-12)
    close(wrapped.adjoint() @ block[:, 0], case.dense @ block[:, 0], 1e-12)
    images = [block.reshape(*SHAPE, 3)]
    close((wrapped @ images)[0].reshape(N, 3), case.dense @ block, 1e-12)
    close((2.0 * wrapped + wrapped @ wrapped) @ block, (2 * case.dense + case.dense @ case.dense)
          @ block, 1e-11)  # fmt: skip
    assert (wrapped.dtype, wrapped.device.type) == (torch.float64, "cpu")
    hessian, factor = case.ntk.gauss_newton(), case.ntk.factor()
    tangents = list(hessian.as_parameters(draw(case.jacobian.shape[1], seed=3)).values())
    moved = bridge.to_curvlinops(hessian) @ tangents
    assert [each.shape for each in moved] == [each.shape for each in tangents]
    flat = torch.cat([each.flatten() for each in tangents])
    found = torch.cat([each.flatten() for each in moved])
    close(found, case.jacobian.T @ (case.jacobian @ flat), 1e-12)
    jacobian = bridge.to_curvlinops(factor)
    close((jacobian @ tangents)[0].flatten(), case.jacobian @ flat, 1e-12)
    close(jacobian.adjoint() @ block, case.jacobian.T @ block, 1e-12)


def test_curvlinops_has_the_same_gauss_newton_matrix(case: Case, curvlinops: Any) -> None:
    prior = case.ntk.prior
    module = prior.module(case.ntk.parameters)
    theirs = curvlinops.GGNLinearOperator(
        module,
        nn.MSELoss(reduction="sum"),
        list(module.parameters()),
        [(prior.code, torch.zeros(1, *SHAPE, dtype=torch.float64))],
        check_deterministic=False,
    )
    x = draw(case.jacobian.shape[1], 2, seed=4)
    close(theirs @ x, 2 * case.ntk.gauss_newton() @ x, 1e-11)  # their loss has no half


def test_estimators_and_inverses_of_curvlinops(case: Case, curvlinops: Any) -> None:
    system = case.ntk + 0.5 * case.one
    dense = case.dense + 0.5 * torch.eye(N, dtype=torch.float64)
    torch.manual_seed(0)  # which curvlinops draws with
    found = curvlinops.xdiag(bridge.to_curvlinops(case.ntk), 38)
    # it sees 19 of 40 dimensions exactly: 1e-2 measured
    assert float((found - case.dense.diagonal()).norm()) < 0.1 * float(case.dense.diagonal().norm())
    inverse = curvlinops.CGInverseLinearOperator(
        bridge.to_curvlinops(system), eps=0, tolerance=1e-9, max_iter=200
    )
    right = draw(N, 2, seed=5)
    solved = inverse @ right
    # the tolerance, times a condition number of some 1e2
    close(solved, torch.linalg.solve(dense, right), 1e-6)
    close(inverse.adjoint() @ right, solved, 1e-12)
    values = np.linalg.eigvalsh(dense.numpy())
    import scipy.sparse.linalg

    leading = scipy.sparse.linalg.eigsh(bridge.to_curvlinops(system).to_scipy(), 2)[0]
    np.testing.assert_allclose(np.sort(leading), values[-2:], rtol=1e-10)


def matrices(case: Case) -> list[tuple[LinearOperator, Tensor]]:
    return [(case.ntk, case.dense), (case.ntk.factor(), case.jacobian)]


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # of sparse tensors of its own
def test_products_of_linear_operator(case: Case, linear_operator: Any) -> None:
    for operator, dense in matrices(case):
        wrapped, (rows, columns) = bridge.to_linear_operator(operator), dense.shape
        assert tuple(wrapped.shape) == (rows, columns)
        block = draw(columns, 3, seed=2)
        close(wrapped @ block, dense @ block, 1e-12)
        close(wrapped @ block[:, 0], dense @ block[:, 0], 1e-12)
        close(wrapped.mT @ draw(rows, 2, seed=3), dense.T @ draw(rows, 2, seed=3), 1e-12)
        batch = draw(2, 3, columns, 4, seed=4)
        close(wrapped @ batch, dense @ batch, 1e-12)
        close(wrapped.to_dense(), dense, 1e-12)
        close(wrapped[[3, 0, 7], [1, 1, 2]], dense[[3, 0, 7], [1, 1, 2]], 1e-12)
        close(wrapped[2:9, 5:7].to_dense(), dense[2:9, 5:7], 1e-12)
        leaf = block.clone().requires_grad_()
        (wrapped @ leaf).square().sum().backward()
        close(leaf.grad, 2 * dense.T @ (dense @ block), 1e-11)
    close(bridge.to_linear_operator(case.ntk).diagonal(), case.dense.diagonal(), 1e-12)


def test_solves_and_evidence_of_linear_operator(case: Case, linear_operator: Any) -> None:
    dense = case.dense + 0.5 * torch.eye(N, dtype=torch.float64)
    right = draw(N, 2, seed=5)
    settings = linear_operator.settings
    quadratic = float((right * torch.linalg.solve(dense, right)).sum())
    # by Cholesky, and by conjugate gradients, which end at residuals of some 1e-6 on their own
    for size, accuracy in ((800, 1e-10), (1, 1e-4)):
        with settings.max_cholesky_size(size), settings.cg_tolerance(1e-5):
            noisy = bridge.to_linear_operator(case.ntk).add_jitter(0.5)
            close(noisy.solve(right), torch.linalg.solve(dense, right), accuracy)
            assert float(noisy.inv_quad(right)) == pytest.approx(quadratic, rel=accuracy)
    found = bridge.to_linear_operator(case.ntk).add_jitter(0.5).logdet()
    assert float(found) == pytest.approx(float(torch.logdet(dense)), rel=1e-10)


def test_a_process_of_gpytorch_takes_the_kernel(case: Case, linear_operator: Any) -> None:
    gpytorch = pytest.importorskip("gpytorch")
    covariance = bridge.to_linear_operator(case.ntk).add_jitter(0.3)
    process = gpytorch.distributions.MultivariateNormal(torch.zeros(N).double(), covariance)
    y = draw(N, seed=6)
    dense = case.dense + 0.3 * torch.eye(N, dtype=torch.float64)
    expected = torch.distributions.MultivariateNormal(torch.zeros(N).double(), dense).log_prob(y)
    assert float(process.log_prob(y)) == pytest.approx(float(expected), rel=1e-9)


@pytest.mark.parametrize("function", [bridge.to_curvlinops, bridge.to_linear_operator])
def test_only_operators_are_wrapped(function: Any) -> None:
    with pytest.raises(InvalidInputError, match="operator must be a LinearOperator, got"):
        function(random_psd(3, 0))


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str) -> None:
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(bridge.importlib, "import_module", missing)
    for make, extra in (
        (bridge._curvlinops_class, "curvlinops"),
        (bridge._linear_operator_class, "gpytorch"),
    ):
        with pytest.raises(MissingExtraError, match=rf"can't be imported .*\[{extra}\]"):
            make.__wrapped__()
