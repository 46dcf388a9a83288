"""Plans with networks of the user's own: FILE.py:FACTORY beside the plan, known by their text."""

import json
from pathlib import Path

import pytest

from dipkernels import sweep
from dipkernels.errors import InvalidInputError
from dipkernels.sweep import SweepFileError
from helpers.commands import call

NETS = """
from torch import nn
from dipkernels import ImagePrior
import torch

class Mine(nn.Sequential):
    def __init__(self, width=4):
        super().__init__(nn.Conv2d(6, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 3, 1))

def whole(shape):
    return ImagePrior(lambda: nn.Conv2d(2, shape[0], 1), torch.rand(1, 2, *shape[1:]), name="other")
"""
PLAN = """
priors:
  - {name: "nets.py:Mine", options: {width: [2, 5]}, output: sigmoid}
  - nets.py:whole
images: astronaut
sizes: 8
seeds: 1
measure: {name: fit, iterations: 2}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    """Write a plan and its networks into a folder that isn't the current one."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "nets.py").write_text(NETS)
    (folder / "plan.yaml").write_text(PLAN)
    return folder / "plan.yaml"


@pytest.mark.slow
def test_they_run_and_are_known_by_their_text(plan: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert call("sweep", str(plan), "--output", str(store), "--quiet") == 0
    table = sweep.table(store)
    found = {
        (row.prior, row["prior.width"] if row.prior == "nets.py:Mine" else None, row.parameters)
        for _, row in table.iterrows()
    }
    wide = {("nets.py:Mine", width, 6 * width * 9 + width + 3 * width + 3) for width in (2, 5)}
    assert found == wide | {("nets.py:whole", None, 9)}
    record = json.loads(next(store.glob("runs/*/run.json")).read_text())
    configuration = record.get("settings", record.get("configuration"))
    assert len(configuration["prior"]["content_sha256"]) == 64
    assert sweep.load_result(store, table.index[0]).prior in ("Mine", "whole")
    again = sweep.run(sweep.load(plan), store)
    assert (again.done, again.skipped) == (0, 3)
    moved = plan.parent.rename(tmp_path / "elsewhere") / "plan.yaml"  # is no other network
    assert {run.key for run in sweep.load(moved).runs} == set(table.index)
    (moved.parent / "nets.py").write_text(NETS.replace("ReLU", "GELU"))
    assert not {run.key for run in sweep.load(moved).runs} & set(table.index)


def test_a_file_that_changes_under_a_plan_is_refused(plan: Path) -> None:
    run = sweep.load(plan).runs[0]
    (plan.parent / "nets.py").write_text(NETS + "\n# changed\n")
    with pytest.raises(InvalidInputError, match=r"nets\.py:Mine has changed since"):
        run.make()
    (plan.parent / "nets.py").unlink()
    with pytest.raises(InvalidInputError, match="there is no file"):
        run.make()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("nets.py:Nothing", "has no function 'Nothing'"),
        ("none.py:Mine", "there is no file"),
        ({"name": "nets.py:Mine", "options": {"widht": 3}}, "can't be called as asked"),
        ({"name": "nets.py:Mine", "options": {"width": []}}, "empty list"),
        ({"name": "nets.py:whole", "code": "noise"}, "--code has no effect"),
        ({"name": "nets.py:Mine", "variant": "small"}, "--variant has no effect"),
    ],
)
def test_what_is_wrong_is_said_with_the_plan(
    plan: Path, entry: object, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(plan.parent)
    with pytest.raises(SweepFileError, match=said):
        sweep.load({"priors": entry, "images": "astronaut", "sizes": 8})


OPERATOR = """
def make(shape):
    return lambda image: 2 * image.flatten()[::2]
"""


def test_operators_lie_beside_the_plan_and_are_known_by_their_text(
    plan: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (plan.parent / "own.py").write_text(OPERATOR)
    task = {"name": "operator", "operator": "own.py:make"}
    plan.write_text(PLAN + json.dumps({"tasks": [task]})[1:-1].replace('"tasks"', "tasks") + "\n")
    before = sweep.load(plan).runs
    assert {run.asked["task.operator"] for run in before} == {"own.py:make"}
    made = before[0].make()[1]
    assert made.measurement.shape == (96,)
    (plan.parent / "own.py").write_text(OPERATOR.replace("2 *", "3 *"))
    with pytest.raises(InvalidInputError, match=r"own\.py:make has changed since"):
        before[0].make()
    after = sweep.load(plan).runs
    assert not {run.key for run in before} & {run.key for run in after}
    (plan.parent / "own.py").unlink()
    with pytest.raises(SweepFileError, match=r"there is no file .*own\.py"):
        sweep.load(plan)
