"""What docs/extending.md shows: parts of a user's own, each a function and a registration."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


HARNESS = PAGE.parents[1] / "experiments" / "harness.py"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def files() -> dict[str, str]:
    """Give the text of each block that has a path for its caption, by the path."""
    block = r"```\{code-block\} \w+\n:caption: (\S+)\n(.*?)```"
    return dict(re.findall(block, PAGE.read_text(encoding="utf-8"), re.DOTALL))


# All in one process, which registers the parts: what takes time is to import torch.
PROGRAM = """
import contextlib, io, json, sys
import my_parts
from dipkernels.cli import main
told = []
for sys.argv[1:] in json.load(sys.stdin):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    told.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(told))
"""


def call(folder: Path, *commands: list[str]) -> list[tuple[int, str, str]]:
    """Give each command's exit code, and what it printed and complained of."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(PAGE.parents[1])])},
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [(code, out, err) for code, out, err in json.loads(ended.stdout)]


@pytest.mark.slow
def test_parts_of_ones_own_run_in_sweeps_and_commands(tmp_path: Path) -> None:
    (tmp_path / "my_parts.py").write_text("\n".join(blocks("python")), encoding="utf-8")
    (plan,) = blocks("yaml")
    (tmp_path / "plan.yaml").write_text(plan, encoding="utf-8")
    for path, text in files().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
    shutil.copy(HARNESS, tmp_path / "experiments")
    study = ["experiment", "how_bright", "--preset", "smoke", "--output", "study"]
    small = ["two-layers", "--image", "camera", "--size", "16"]
    swept, listed, fitted, drawn, counted, studied, again, wrong = call(
        tmp_path,
        ["sweep", "plan.yaml", "--output", "runs"],
        ["sweep-table", "runs", "--csv", "table.csv"],
        ["fit", *small, "--task", "defog", "--fog", "0.1", "--iterations", "30",
         "--stop", "half-loss", "--optimiser", "adamw", "--schedule", "inverse-root",
         "--output", "fit"],
        ["posterior", *small, "--method", "lm", "--iterations", "20", "--start-iterations", "4",
         "--output", "chains"],
        ["size-of", "two-layers"],
        study,
        study,
        ["fit", "two-layers", "--task", "denoise", "--fog", "0.1"],
    )  # fmt: skip
    for code, _, err in (swept, listed, fitted, drawn, counted, studied, again):
        assert code == 0, err
    table = pd.read_csv(tmp_path / "table.csv")
    assert set(table.prior) == {"two-layers"} and set(table.task) == {"defog"}
    assert set(table["prior.width"]) == {4, 8} and set(table["task.fog"]) == {0.2}
    assert table.brightness.notna().sum() == 2
    assert table.final_psnr.notna().sum() == 2
    assert table.mean_psnr.notna().sum() == 2
    assert "half-of-the-loss" in fitted[1]
    assert "the noise of two steps averaged" in drawn[1]
    means = pd.read_csv(tmp_path / "study" / "results.csv")
    assert list(means.network) == ["deep-decoder"] and 0 < means["mean"][0] < 1
    assert "deep-decoder" in studied[1] and "deep-decoder" not in again[1]
    assert int(counted[1]) == 8 * 16 * 9 + 16 + 16 * 3 * 9 + 3
    assert wrong[0] == 2
    assert "--fog has no effect when denoising" in wrong[2]
