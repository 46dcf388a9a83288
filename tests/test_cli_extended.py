"""A fit that goes on in its folder, and what ``run.json`` says of a run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from dipkernels.base.origin import checkout_commit, command_line
from dipkernels.cli import fitting
from dipkernels.cli.fitting import extend
from dipkernels.errors import OutputError
from dipkernels.storage import RunFolder, load
from helpers.commands import call

FIT = ("fit", "deep-decoder", "--options", "width=4 upsamplings=1", "--size", "8", "--image",
       "camera", "--quiet")  # fmt: skip


def iterate(folder: Path, count: int) -> int:
    return call(*FIT, "--iterations", str(count), "--output", str(folder))


def test_a_fit_goes_on_where_it_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = lambda result, folder, *_: (folder / "stopping.txt").touch()  # noqa: E731
    monkeypatch.setattr(fitting, "write_fit", quick)  # figures take seconds
    assert iterate(tmp_path / "a", 4) == 0
    begun = load(tmp_path / "a" / "fit.nc")
    assert iterate(tmp_path / "a", 7) == 0
    assert "goes on from 4 to 7 iterations; fit-4.nc keeps its result" in capsys.readouterr().out
    longer, kept = load(tmp_path / "a" / "fit.nc"), load(tmp_path / "a" / "fit-4.nc")
    assert np.array_equal(kept.loss, begun.loss) and longer.sizes["iteration"] == 8
    assert np.array_equal(longer.loss[:5], begun.loss)  # it isn't fitted anew
    record = json.loads((tmp_path / "a" / "run.json").read_text())
    assert record["settings"]["iterations"] == 7
    assert [each["settings"]["iterations"] for each in record["amended"]] == [4]


CONSTANT, DONE = {"schedule": "constant"}, {"status": "finished"}


@pytest.mark.parametrize(
    ("settings", "attributes", "asked", "message"),
    [
        (CONSTANT, DONE, 3, "it has 4 already, and 3 are fewer"),
        (CONSTANT, {"status": "stopped"}, 8, "it was stopped by its rule"),
        (CONSTANT, {"status": "diverged"}, 8, "it diverged"),
        ({"schedule": "cosine"}, DONE, 8, "schedule 'cosine' is laid out over 4"),
        (
            {"schedule": "constant", "left": "out"},
            DONE,
            8,
            "checkpoint fit.safetensors isn't there",
        ),
    ],
)
def test_what_cannot_go_on_says_why(
    tmp_path: Path,
    settings: dict[str, str],
    attributes: dict[str, str],
    asked: int,
    message: str,
) -> None:
    folder = RunFolder.open(tmp_path / "a", {"iterations": 4, **settings})
    curve = xr.Dataset({"loss": ("iteration", np.zeros(5))}, attrs=attributes)
    folder.stage("fit", lambda: curve)
    if "left" not in settings:
        folder.checkpoint("fit").touch()
    before = {path: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(OutputError, match=f"{message}.*another --output"):
        extend(folder, {"iterations": asked, **settings})
    extend(folder, {"iterations": asked, **settings, "seed": 1})  # another fit: not its affair
    assert {path: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


def test_a_run_says_what_made_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        sys, "argv", ["/usr/bin/dipkernels", "fit", "skip", "--options", "width=8 b=1"]
    )
    assert command_line() == "dipkernels fit skip --options 'width=8 b=1'"
    monkeypatch.setattr(sys, "argv", ["/there/dipkernels/__main__.py", "list"])
    assert command_line() == "python -m dipkernels list"
    folder = RunFolder.open(tmp_path / "run", {"a": 1})
    assert folder.record["command_line"] == "python -m dipkernels list"
    assert {"version_torch", "version_numpy", "version_dipkernels", "python"} <= set(folder.record)
    assert "finished" not in folder.record
    folder.finish()
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    again = RunFolder.open(tmp_path / "run", {"a": 1}).record
    assert again["command_line"] == "python -m dipkernels list"
    assert [each["command_line"] for each in again["continued"]] == ["mine.py"]
    assert again["started"] <= again["finished"]
    root = Path(__file__).parents[1]
    if (root / ".git").exists():
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True
        )
        assert again["commit"].split()[0] == done.stdout.strip() == checkout_commit().split()[0]


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, dipkernels.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
