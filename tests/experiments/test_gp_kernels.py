"""Cheng et al.'s figure at its smallest."""

from pathlib import Path

import pytest

from helpers.experiments import check_smallest_run


@pytest.mark.long
def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    tables = {"covariances.csv": 4, "width.csv": 2, "with_normalisation.csv": 4}
    check_smallest_run("gp_kernels", tmp_path, tables, {"covariances", "samples"})
