"""Tachella et al.'s filters at their smallest."""

from pathlib import Path

from helpers.experiments import check_smallest_run


def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    tables = {"vanilla.csv": 2, "angles.csv": 4, "along_fit.csv": 8}
    check_smallest_run("non_local", tmp_path, tables, {"filters"})
