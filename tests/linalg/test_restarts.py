"""Restarted block Krylov spaces, and computations that are killed and continued."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
import torch
from torch import Tensor

from dipkernels.base.seeds import generator
from dipkernels.errors import (
    AccuracyWarning,
    DivergenceError,
    InvalidInputError,
    NotSymmetricError,
    OutputError,
)
from dipkernels.linalg import (
    DenseOperator,
    Lanczos,
    SymmetricOperator,
    krylov_probes,
    ritz_pairs,
    top_eigenpairs,
)
from helpers.matrices import close, draw, random_psd, spectrum_of, with_spectrum


class Killed(BaseException):
    """What nobody catches."""


class Mortal(SymmetricOperator):
    """A dense operator whose products are counted, and that is killed at one of them."""

    def __init__(self, matrix: Tensor, last: float = math.inf) -> None:
        self.matrix, self.last, self.calls = matrix, last, 0
        self.shape, self.dtype = (len(matrix), len(matrix)), matrix.dtype
        self.device = matrix.device

    def _matmat(self, block: Tensor) -> Tensor:
        self.calls += 1
        if self.calls > self.last:
            raise Killed
        return self.matrix @ block

    def __repr__(self) -> str:
        return "Mortal"


@pytest.fixture
def save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipkernels.storage.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("dipkernels.storage.checkpoints.SHARE", math.inf)


# Restarts


@pytest.mark.parametrize(("k", "starts", "basis"), [(1, 1, 3), (4, 2, 11), (7, 3, 20), (5, 1, 8)])
def test_restarts_find_what_scipy_finds(k: int, starts: int, basis: int) -> None:
    # Slowly decaying: many restarts.
    matrix = with_spectrum((1 + torch.arange(240, dtype=torch.float64)) ** -0.5, k)
    run = {"tolerance": 1e-11, "max_matvecs": 3000, "starts": starts, "basis": basis}
    pairs = top_eigenpairs(DenseOperator(matrix), k, **run)
    assert pairs.matvecs > 2 * basis
    values, vectors = scipy.sparse.linalg.eigsh(DenseOperator(matrix).to_scipy(), k=k, which="LA")
    close(pairs.values, values[::-1], 1e-12)
    # a residual of 1e-11 over gaps of some 1e-2
    close(
        (pairs.vectors * torch.from_numpy(vectors[:, ::-1].copy())).sum(dim=0).abs(),
        np.ones(k),
        1e-12,
    )
    close(pairs.vectors.T @ pairs.vectors, np.eye(k), 1e-12)
    # the residuals that it gives without having kept a product
    residuals = (matrix @ pairs.vectors - pairs.vectors * pairs.values).norm(dim=0)
    close(pairs.residuals, residuals, 1e-14)
    assert (pairs.residuals <= 1e-11).all()


def test_a_large_basis_needs_fewer_products() -> None:
    matrix = with_spectrum(spectrum_of("power", 300), 3)
    runs = [
        top_eigenpairs(DenseOperator(matrix), 6, tolerance=1e-8, basis=basis)
        for basis in (10, 20, None)
    ]
    assert runs[0].matvecs > runs[1].matvecs >= runs[2].matvecs
    # without a restart: what the union of the starts' own Krylov spaces holds
    starts = torch.randn(2, 300, generator=generator("starts", 0), dtype=torch.float64).T
    spaces = Lanczos(DenseOperator(matrix), starts).extend(runs[2].matvecs // 2).spaces()
    # which leaves out directions of size 1e-5 that its bases nearly share
    close(ritz_pairs(spaces, 6).values, runs[2].values, 1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residuals_are_honest_in_every_type(dtype: torch.dtype) -> None:
    matrix = with_spectrum(spectrum_of("geometric", 130), 9).to(dtype)
    pairs = top_eigenpairs(DenseOperator(matrix), 5, tolerance=0.0, max_matvecs=90, basis=16)
    exact = matrix.double() @ pairs.vectors - pairs.vectors * pairs.values
    # of the products' rounding, and no better
    close(pairs.residuals, exact.norm(dim=0), 1e-6 if dtype == torch.float32 else 1e-13)
    assert pairs.matvecs > 80


class Flat(SymmetricOperator):
    """A large diagonal of a few large values, in place: its products need little memory."""

    def __init__(self, n: int) -> None:
        self.shape, self.dtype, self.device = (n, n), torch.float64, torch.device("cpu")
        self.diagonal_values = torch.linspace(0.0, 1.0, n, dtype=torch.float64) ** 4

    def _matmat(self, block: Tensor) -> Tensor:
        return block * self.diagonal_values[:, None]


def test_memory_does_not_grow_with_the_products() -> None:
    profile = torch.profiler.profile
    peaks = []
    for matvecs in (60, 240):
        with profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as run:
            top_eigenpairs(Flat(20_001), 3, tolerance=0.0, max_matvecs=matvecs, basis=12)
        total = peak = 0
        for event in run.profiler.kineto_results.events():
            if event.name() == "[memory]":
                total += event.nbytes()
                peak = max(peak, total)
        peaks.append(peak / (8 * 20_001))
    # vectors: a basis of 12, 3 results, and blocks of 2 in the making
    assert peaks[0] < 12 + 3 + 20
    assert peaks[1] < 1.05 * peaks[0]


# Symmetry and sign, at no product


def test_lanczos_notices_what_is_not_symmetric() -> None:
    matrix, skew = random_psd(40, 1), draw(40, 40, seed=2)
    for wrong in (matrix + 0.2 * (skew - skew.T), matrix - 0.5 * torch.eye(40).double()):
        with pytest.raises(NotSymmetricError, match="isn't symmetric positive semi-definite"):
            top_eigenpairs(DenseOperator(wrong), 2)
        with pytest.raises(NotSymmetricError, match="isn't symmetric positive semi-definite"):
            krylov_probes(DenseOperator(wrong), 2, 12)
    slightly = DenseOperator(matrix + 1e-5 * (skew - skew.T))
    with pytest.warns(AccuracyWarning, match=r"asymmetric by \d\.\de-0"):
        top_eigenpairs(slightly, 2)
    with pytest.warns(AccuracyWarning, match=r"asymmetric by \d\.\de-0"):
        krylov_probes(slightly, 2, 12)
    for space in krylov_probes(DenseOperator(matrix), 3, 12):
        assert space.symmetry.asymmetry < 1e-13
        assert space.symmetry.matvecs == 12


# Probes


@pytest.mark.parametrize("together", [1, 2, 99])
def test_probes_are_those_of_lanczos(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr("dipkernels.linalg.probing._TOGETHER", together * 8 * 45 * 14)
    operator = DenseOperator(random_psd(45, 4))
    probes = krylov_probes(operator, 5, 14, seed=3)
    expected = Lanczos(operator, operator.rademacher(5, 3)).extend(14).spaces()
    for probe, space in zip(probes, expected, strict=True):
        close(probe.alpha, space.alpha, 1e-13)
        close(probe.beta, space.beta, 1e-13)
        assert probe.norm == space.norm
        assert probe.basis.numel() == 0
    with pytest.raises(InvalidInputError, match="without their products"):
        ritz_pairs(probes, 2)
    with pytest.raises(InvalidInputError, match="without their products"):
        ritz_pairs(
            Lanczos(operator, draw(45, 1, seed=0), keep_products=False).extend(3).spaces(), 2
        )
    for wrong in ((0, 3), (3, 0)):
        with pytest.raises(InvalidInputError, match="at least 1 probe and 1 step"):
            krylov_probes(operator, *wrong)


# Checkpoints


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.usefixtures("save_always")
def test_killed_eigenpairs_continue_bit_by_bit(
    tmp_path: Path, seed: int, dtype: torch.dtype
) -> None:
    # odd, so that rows lie at other alignments
    matrix = with_spectrum((1 + torch.arange(151, dtype=torch.float64)) ** -0.7, seed).to(dtype)
    settings: dict[str, Any] = {
        "tolerance": 1e-6,
        "basis": 15,
        "starts": 1 + seed % 3,
        "seed": seed,
    }
    whole = top_eigenpairs(Mortal(matrix), 5, **settings)
    rng, file = np.random.default_rng(seed), tmp_path / "state"
    deaths = 0
    while True:
        operator = Mortal(matrix, last=int(rng.integers(2, 7)))
        try:
            pairs = top_eigenpairs(operator, 5, checkpoint=file, **settings)
        except Killed:
            deaths += 1
            continue
        break
    assert deaths > 2
    for name in ("values", "vectors", "residuals"):
        assert torch.equal(getattr(pairs, name), getattr(whole, name))
    assert pairs.matvecs == whole.matvecs
    # what is complete costs but the look at the operator, and can be carried on
    again = Mortal(matrix)
    assert torch.equal(top_eigenpairs(again, 5, checkpoint=file, **settings).values, whole.values)
    assert again.calls == 1
    settings["tolerance"] = 3e-7
    further = top_eigenpairs(again, 5, checkpoint=file, **settings)
    assert torch.equal(further.values, top_eigenpairs(Mortal(matrix), 5, **settings).values)
    # with fewer products than have been made already, it is handed out as it is
    fewer = top_eigenpairs(again, 5, checkpoint=file, max_matvecs=4, **settings)
    assert torch.equal(fewer.values, further.values)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("save_always")
def test_killed_probes_continue_bit_by_bit(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dipkernels.linalg.probing._TOGETHER", 2 * 8 * 53 * 11)
    matrix, file = random_psd(53, seed), tmp_path / "state"
    whole = krylov_probes(Mortal(matrix), 5, 11, seed=seed)
    rng, deaths = np.random.default_rng(seed), 0
    while True:
        try:
            operator = Mortal(matrix, last=int(rng.integers(2, 9)))
            spaces = krylov_probes(operator, 5, 11, seed=seed, checkpoint=file)
        except Killed:
            deaths += 1
            continue
        break
    assert deaths > 3
    for space, expected in zip(spaces, whole, strict=True):
        assert np.array_equal(space.alpha, expected.alpha)
        assert np.array_equal(space.beta, expected.beta)
        assert space.norm == expected.norm
        assert space.symmetry == expected.symmetry
    done = Mortal(matrix, last=1)
    assert len(krylov_probes(done, 5, 11, seed=seed, checkpoint=file)) == 5
    with pytest.raises(OutputError, match="products are not those of this operator"):
        krylov_probes(Mortal(random_psd(53, seed + 9)), 5, 11, seed=seed, checkpoint=file)


@pytest.mark.usefixtures("save_always")
def test_checkpoints_of_something_else_are_refused(tmp_path: Path) -> None:
    matrix, file, probes = random_psd(50, 1), tmp_path / "state", tmp_path / "probes"
    top_eigenpairs(Mortal(matrix), 3, checkpoint=file)
    with pytest.raises(OutputError, match=r"of another search for eigenpairs \(basis: 43"):
        top_eigenpairs(Mortal(matrix), 4, checkpoint=file)
    with pytest.raises(OutputError, match="products are not those of this operator"):
        top_eigenpairs(Mortal(random_psd(50, 2)), 3, checkpoint=file)
    with pytest.raises(Killed):
        krylov_probes(Mortal(matrix, last=4), 3, 9, checkpoint=probes)
    with pytest.raises(OutputError, match="products are not those of this operator"):
        krylov_probes(Mortal(random_psd(50, 2)), 3, 9, checkpoint=probes)
    with pytest.raises(OutputError, match=r"another set of probes \(steps: 9 there, 10 now\)"):
        krylov_probes(Mortal(matrix), 3, 10, checkpoint=probes)


def test_an_infinite_product_is_an_error() -> None:
    matrix = random_psd(12, 3)
    matrix[3, 4] = math.inf
    with pytest.raises(DivergenceError, match="NaN or infinite"):
        top_eigenpairs(DenseOperator(matrix), 2)


def test_a_basis_that_is_too_small() -> None:
    with pytest.raises(InvalidInputError, match=r"basis of 8 vectors .* give at least 9"):
        top_eigenpairs(DenseOperator(random_psd(30, 3)), 5, basis=8)
