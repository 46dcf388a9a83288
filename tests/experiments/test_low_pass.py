"""Heckel & Soltanolkotabi's figures at their smallest."""

from pathlib import Path

from helpers.experiments import check_smallest_run

TABLES = {
    "dual_kernels.csv": 6,
    "jacobian_norms.csv": 8,
    "jacobian_along_fit.csv": 8,
    "fitting_speed.csv": 8,
}


def test_smallest_run_writes_its_tables_and_resumes(tmp_path: Path) -> None:
    figures = {"dual_kernels", "jacobian_norms", "jacobian_along_fit", "fitting_speed"}
    check_smallest_run("low_pass", tmp_path, TABLES, figures)
