"""Both biases at their smallest, and the tasks that measure the predictive one."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from helpers.experiments import check_smallest_run, script


@pytest.mark.long
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    rows = {"fits.csv": 6, "encoders.csv": 3, "biases.csv": 3}
    check_smallest_run("generative_and_predictive", tmp_path, rows, {"biases"})
    both = pd.read_csv(tmp_path / "out" / "biases.csv").set_index("prior")
    assert both.faces[["conv", "vit"]].between(0, 1).all()
    assert both.faces.isna()["deep-decoder"]  # it has no encoder


def test_textures_are_standardised_patches_that_do_not_overlap() -> None:
    script("generative_and_predictive")
    from experiments.generative_and_predictive.measures import textures

    inputs, labels = textures(50, seed=3)
    assert inputs.shape == (150, 3, 25, 25)
    assert labels == [0] * 50 + [1] * 50 + [2] * 50
    torch.testing.assert_close(inputs.mean(dim=(1, 2, 3)), torch.zeros(150), atol=1e-5, rtol=0)
    flat = inputs[:, 0].flatten(1)
    torch.testing.assert_close(flat.std(dim=1), torch.ones(150))
    apart = torch.cdist(flat, flat) + 1e6 * torch.eye(150)
    assert apart.min() > 1
