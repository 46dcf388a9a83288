"""`dipkernels sweep` and its tables, as people use and misuse them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from dipkernels import sweep
from helpers.commands import call
from helpers.studies import log, write_study

ROOT = Path(__file__).parents[2]


def test_a_sweep_from_its_list_to_its_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, store = str(write_study(tmp_path, 3)), str(tmp_path / "store")
    assert call("sweep", file, "--output", store, "--dry-run") == 0
    assert "3 runs, 0 of them done" in capsys.readouterr().out
    assert not Path(store).exists()
    (tmp_path / "block-1").touch()
    assert call("sweep", file, "--output", store) == 1
    said = capsys.readouterr().out
    assert "3 runs: 2 done, 0 done before, 1 failed" in said
    assert said.count("ValueError: seed 1 is blocked") == 2  # when it happens, and at the end
    assert "--retry-failed" in said
    assert call("sweep-status", store) == 0
    assert "2 done, 1 failed, 0 running, 0 missing" in capsys.readouterr().out
    (tmp_path / "block-1").unlink()
    assert call("sweep", file, "--output", store, "--retry-failed", "--quiet") == 0
    assert call("sweep", file, "--output", store, "--dry-run") == 0
    assert "3 runs, 3 of them done" in capsys.readouterr().out
    page = Path(store) / "index.html"
    page.unlink()
    assert call("sweep-table", store) == 0
    said = capsys.readouterr()
    assert said.err == f"Report: {page}\n"
    assert "3 runs are done." in page.read_text(encoding="utf-8")
    runs, together = said.out.split("\n\n")
    assert runs.split("\n")[0].split() == ["seed", "seconds", "twice"]
    assert together.startswith("Mean and standard deviation over 3 seeds.\n")
    assert "2 +- 2" in together  # of 0, 2 and 4
    assert call("sweep-table", store, "--csv", str(tmp_path / "out.csv")) == 0
    table = pd.read_csv(tmp_path / "out.csv")
    assert sorted(table["twice"]) == [0, 2, 4]
    assert set(table["prior.width"]) == {4}
    page.unlink()
    page.mkdir()  # where no page can be written, the table still is
    assert call("sweep-table", store) == 0
    said = capsys.readouterr()
    assert "The page wasn't written anew: can't write" in said.err
    assert "2 +- 2" in said.out


def test_seeds_are_put_together_where_nothing_else_differs() -> None:
    columns = {"seed": [0, 0, 1, 0], "width": [4, 8, 4, None], "rule": ["a", "a", "a", None]}
    after = {"seconds": [1.0] * 4, "device": ["cpu"] * 4, "psnr": [20.0, 25.0, 24.0, float("nan")]}
    found = sweep.over_seeds(pd.DataFrame(columns | after | {"words": list("abcd")}))
    assert found["width"].tolist()[:2] == [4, 8]
    assert found["seeds"].tolist() == [2, 1, 1]
    assert found["psnr"].tolist()[:2] == [22.0, 25.0]
    assert found["psnr_spread"].tolist()[0] == pytest.approx(8**0.5)  # of two values 4 apart
    assert found["psnr_spread"].isna().tolist() == [False, True, True]
    assert "words" not in found


@pytest.mark.parametrize("images", [["camera"], ["camera", "coffee"]])
def test_a_table_of_one_seed_says_that_it_has_no_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], images: list[str]
) -> None:
    file, store = write_study(tmp_path, 1, images=images), str(tmp_path / "store")
    assert call("sweep", str(file), "--output", store, "--quiet") == 0
    capsys.readouterr()
    assert call("sweep-table", store) == 0
    table, said = capsys.readouterr().out.rstrip().split("\n\n")
    assert len(table.splitlines()) == 1 + len(images)
    assert said.startswith("One seed: no spread")


@pytest.mark.parametrize(("name", "said"), [("file", "it's a file"), ("folder", "not empty")])
def test_what_is_no_store_is_said_before_the_runs_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    file, taken = str(write_study(tmp_path, 1)), tmp_path / "taken"
    if name == "folder":
        taken.mkdir()
        (taken / "mine.txt").write_text("mine")
    else:
        taken.write_text("mine")
    for more in ([], ["--dry-run"]):
        assert call("sweep", file, "--output", str(taken), *more) == 2
        shown = capsys.readouterr()
        assert said in shown.err
        assert "deep-decoder" not in shown.out


def test_estimates_count_every_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "priors": {"name": "deep-decoder", "options": {"width": 4}},
        "images": "camera",
        "sizes": 8,
        "seeds": [0, 1],
        "measure": [{"name": "fit", "iterations": [2, 3]}, "score"],
    }
    file = tmp_path / "plan.yaml"
    file.write_text(yaml.safe_dump(plan), encoding="utf-8")
    assert call("sweep", str(file), "--dry-run", "--estimate", "--output", str(tmp_path / "s")) == 0
    said = capsys.readouterr().out
    assert "4 fits: about" in said
    assert "2 other runs were not timed" in said
    few = sweep.estimate(sweep.load(plan | {"measure": {"name": "fit", "iterations": 10}}))
    many = sweep.estimate(sweep.load(plan | {"measure": {"name": "fit", "iterations": 10_000}}))
    assert many.seconds > 10 * few.seconds > 0
    assert few.bytes > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.yaml"], "can't read the plan"),
        (["{}", "--scheduler", "tcp://h:1", "--workers", "2"], "no effect with --scheduler"),
        (["{}", "--estimate"], "no effect without --plan"),
        (["{}", "--workers", "0"], "must be at least 1"),
        (["{}", "--device", "tpu"], "no such device"),
    ],
)
def test_misuse_is_said_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    file = str(write_study(tmp_path, 1))
    filled = [each.format(file) for each in arguments]
    assert call("sweep", *filled, "--output", str(tmp_path / "store")) == 2
    error = capsys.readouterr().err
    assert error.startswith("dipkernels: ")
    assert said in error


def test_wrong_plans_exit_with_all_problems(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plan.yaml").write_text("priors: skp\nimages: camra\nsize: 3\n", encoding="utf-8")
    assert call("sweep", str(tmp_path / "plan.yaml")) == 2
    assert "line 3: unknown key 'size': did you mean 'sizes'?" in capsys.readouterr().err
    (tmp_path / "plan.yaml").write_text("priors: skp\nimages: camra\n", encoding="utf-8")
    assert call("sweep", str(tmp_path / "plan.yaml")) == 2
    error = capsys.readouterr().err
    assert "2 problems" in error
    assert "did you mean 'skip'" in error
    assert "did you mean 'camera'" in error


@pytest.mark.slow
def test_ctrl_c_ends_the_processes_and_leaves_no_lock(tmp_path: Path) -> None:
    file = write_study(tmp_path, 4, seconds=60.0)
    command = [sys.executable, "-m", "dipkernels", "sweep", str(file), "--workers", "2"]
    command += ["--output", str(tmp_path / "store")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 90
    while len(log(tmp_path, "start")) < 2:
        assert time.monotonic() < deadline, "no run was begun"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "4 runs: 0 done, 0 done before, 0 failed, 4 left" in said
    for _, worker in log(tmp_path, "start"):
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
    assert list((tmp_path / "store").glob("runs/*/lock.*")) == []
    assert len(sweep.status(tmp_path / "store").missing) == 4
