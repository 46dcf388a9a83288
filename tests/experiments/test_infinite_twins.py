"""The experiment on infinitely wide networks and their twins: kernels, a smallest run."""

from pathlib import Path

import pytest
import torch

from dipkernels.bridges import neural_tangents as bridge
from dipkernels.errors import MissingExtraError
from helpers.experiments import script

try:
    bridge.require()
except MissingExtraError:
    pytest.skip("the extra neural-tangents is not installed", allow_module_level=True)


@pytest.mark.filterwarnings("ignore")  # jax and tensorflow warn of each other
def test_smoke(tmp_path: Path) -> None:
    tables = {"results.csv": 2, "eigenvalues.csv": 2 * 25}
    experiment = script("infinite_twins")
    arguments = ["--preset", "smoke", "--output", str(tmp_path)]
    experiment.main(arguments)
    before = {name: (tmp_path / name).read_text(encoding="utf-8") for name in tables}
    assert {path.stem for path in tmp_path.glob("*.png")} == {"spectra", "widths"}
    experiment.main(arguments)  # nothing is left to do
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in tables} == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["convolutions", "attention", "conv-attention"])
def test_finite_kernels_go_to_the_infinite_one(name: str) -> None:
    experiment = script("infinite_twins")
    code = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    limit = bridge.dense_kernel(experiment.infinite(bridge.require()[1], name), code)

    def gap(width: int) -> float:
        prior = experiment.ImagePrior(lambda: experiment.finite(name, 3, width), code, check=False)
        kernels = [experiment.NTK(prior, prior.init(s), check=False).to_dense() for s in range(6)]
        return experiment.difference(sum(kernels) / len(kernels), limit.ntk)

    # like one over the width to one over its root: a half at most, with room for six draws
    assert gap(32) < 0.6 * gap(8) and gap(32) < 0.4
