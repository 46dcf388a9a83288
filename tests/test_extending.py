"""What docs/extending.md shows: parts of a user's own, each a function and a registration."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def call(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = "import my_parts; from dipkernels.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PAGE.parents[1])])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_parts_of_ones_own_run_in_sweeps_and_commands(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    (plan,) = blocks("yaml")
    (tmp_path / "plan.yaml").write_text(plan, encoding="utf-8")
    swept = call(tmp_path, "sweep", "plan.yaml", "--output", "runs")
    assert swept.returncode == 0, swept.stderr
    assert call(tmp_path, "sweep-table", "runs", "--csv", "table.csv").returncode == 0
    table = pd.read_csv(tmp_path / "table.csv")
    assert set(table.prior) == {"two-layers"} and set(table.task) == {"defog"}
    assert set(table["prior.width"]) == {4, 8} and set(table["task.fog"]) == {0.2}
    assert table.brightness.notna().sum() == 2
    assert table.final_psnr.notna().sum() == 2
    assert table.mean_psnr.notna().sum() == 2
    fitted = call(
        tmp_path, "fit", "two-layers", "--image", "camera", "--size", "16", "--task", "defog",
        "--fog", "0.1", "--iterations", "30", "--stop", "half-loss", "--output", "fit",
    )  # fmt: skip
    assert fitted.returncode == 0, fitted.stderr
    assert "half-of-the-loss" in fitted.stdout
    drawn = call(
        tmp_path, "posterior", "two-layers", "--image", "camera", "--size", "16", "--method", "lm",
        "--iterations", "20", "--start-iterations", "4", "--output", "chains",
    )  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    assert "the noise of two steps averaged" in drawn.stdout
    counted = call(tmp_path, "size-of", "two-layers")
    assert counted.returncode == 0, counted.stderr
    assert int(counted.stdout) == 8 * 16 * 9 + 16 + 16 * 3 * 9 + 3
    wrong = call(tmp_path, "fit", "two-layers", "--task", "denoise", "--fog", "0.1")
    assert wrong.returncode == 2
    assert "--fog has no effect when denoising" in wrong.stderr
