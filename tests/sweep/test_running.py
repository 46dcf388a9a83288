"""Sweeps that are run, resumed, interrupted, retried, and run twice at the same time."""

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from dipkernels import ImagePrior, Task, fit, images, networks, sampling, sweep, tasks
from dipkernels.errors import DipkernelsError, InvalidInputError, OutputError
from dipkernels.stages.registry import find_stage
from dipkernels.stages.stage import as_measured
from dipkernels.stages.subject import Subject
from dipkernels.storage import locks
from dipkernels.sweep import driver
from dipkernels.sweep.store import Store
from dipkernels.sweep.workers import LocalProcesses
from helpers.studies import kill_one, log, rows, wait_for_processes, write_study

ROOT = Path(__file__).parents[2]


def unfit(prior: ImagePrior, task: Task, *, seed: int) -> xr.Dataset:
    """Give what a netCDF file can't hold, for all seeds but the first."""
    attributes = {"comment": None} if seed else {}
    return xr.Dataset({"mean": task.measurement.mean().item()}, attrs=attributes)


sweep.register_measurement("unfit", unfit)


def test_a_run_is_what_the_functions_give_by_hand(tmp_path: Path) -> None:
    plan = sweep.load(
        {
            "priors": {"name": "deep-decoder", "options": {"width": [4, 6]}},
            "tasks": {"name": "denoise", "noise_sigma": 0.2},
            "images": "coffee",
            "sizes": "8x11",
            "seeds": 5,
            "measure": [{"name": "fit", "iterations": 7, "learning_rate": 1e-2}, "score"],
        }
    )
    sweep.run(plan, tmp_path)
    task = tasks.denoise(images.load("coffee", size=(8, 11)), noise_sigma=0.2, seed=5)
    prior = networks.create("deep-decoder", image_size=(8, 11), width=6, code_seed=5)
    wanted = fit(prior, task, iterations=7, learning_rate=1e-2, seed=5)
    table = sweep.table(tmp_path)
    row = table[(table["prior.width"] == 6) & (table["measure"] == "fit")]
    assert row["peak_psnr"].item() == wanted.peak_psnr
    assert row["iterations"].item() == 7
    stored = sweep.load_result(tmp_path, row.index[0])
    for name in ("loss", "psnr_clean", "final"):
        np.testing.assert_array_equal(stored[name].values, wanted[name].values)
    assert stored.run_label == plan.runs[2].label
    scored = table[table["measure"] == "score"]
    assert (scored["score_lower"] <= scored["score"]).all()
    assert row["score"].isna().all()
    dataset = sweep.table(tmp_path, "dataset")
    assert dataset.sizes == {"run": 4}
    for name in ("peak_psnr", "score", "score_lower"):
        assert dataset[name].attrs["units"] == "dB"
    assert "units" not in dataset["score_resolved"].attrs  # yes, no, or missing
    assert set(dataset["measure"].values) == {"fit", "score"}
    with pytest.raises(InvalidInputError, match="kind must be one of"):
        sweep.table(tmp_path, "csv")


@pytest.mark.slow
def test_a_prediction_in_a_sweep_agrees_with_the_exact_kernel(tmp_path: Path) -> None:
    plan: dict[str, Any] = {
        "priors": {"name": "deep-decoder", "options": {"width": 4, "upsamplings": 1}},
        "tasks": {"name": "denoise", "noise_sigma": 0.2},
        "images": "coffee",
        "sizes": "8x10",
        "seeds": 3,
        "measure": [{"name": "prediction", "iterations": 40}, {"name": "score", "method": "dense"}],
    }
    sweep.run(sweep.load(plan), tmp_path)
    table = sweep.table(tmp_path).set_index("measure")
    exact, found = table.loc["score"], table.loc["prediction"]
    # The dense kernel is another road to the peak. Float32 products: their rounding in dB.
    lower, upper = found["predicted_peak_psnr_lower"], found["predicted_peak_psnr_upper"]
    assert lower - 1e-3 <= exact["score"] <= upper + 1e-3
    for option in ("steps", "iterations"):
        wrong = plan | {"measure": {"name": "prediction", option: 1}}
        with pytest.raises(sweep.SweepFileError, match=f"{option} must be at least 2, got 1"):
            sweep.load(wrong)


@pytest.mark.slow
def test_a_posterior_in_a_sweep_is_that_of_the_functions(tmp_path: Path) -> None:
    chains = {"name": "posterior", "method": "sghmc", "iterations": 60, "chains": 2}
    plan = sweep.load(
        {
            "priors": {"name": "deep-decoder", "options": {"width": 4, "upsamplings": 1}},
            "tasks": {"name": "denoise", "noise_sigma": 0.2},
            "images": "coffee",
            "sizes": "8x10",
            "seeds": 3,
            "measure": chains | {"temperature": [1.0, 0.1]},
        }
    )
    assert sweep.run(plan, tmp_path).done == 2
    options = {"width": 4, "upsamplings": 1, "code_seed": 3}
    prior = networks.create("deep-decoder", image_size=(8, 10), **options)
    task = tasks.denoise(images.load("coffee", size=(8, 10)), noise_sigma=0.2, seed=3)
    table = sweep.table(tmp_path)
    for temperature in (1.0, 0.1):
        target = sampling.WeightPosterior(prior, task, temperature=temperature)
        wanted = sampling.sample(target, method="sghmc", iterations=60, chains=2, seed=3)
        (row,) = table[table["measure.temperature"] == temperature].itertuples()
        assert row.mean_psnr == pytest.approx(float(wanted.psnr_mean[:, -1].mean()), rel=1e-12)
        assert not row.converged and "R-hat" in row.reasons
        stored = sweep.load_result(tmp_path, row.Index)
        np.testing.assert_array_equal(stored["draws"].values, wanted["draws"].values)


def test_a_result_that_no_file_can_hold_is_a_failure_with_its_traceback(tmp_path: Path) -> None:
    plan = sweep.load(
        {"priors": "vit", "images": "camera", "sizes": 8, "seeds": [0, 1], "measure": "unfit"}
    )
    summary = sweep.run(plan, tmp_path)
    assert (summary.done, len(summary.failed)) == (1, 1)
    (failure,) = tmp_path.glob("runs/*/failure.txt")
    assert "Traceback" in failure.read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_done_is_not_run_again_and_what_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan = sweep.load(write_study(tmp_path, 4))
    assert sweep.run(plan, store).done == 4
    again = sweep.run(plan, store)
    assert (again.done, again.skipped) == (0, 4)
    broken = store / "runs" / plan.runs[1].key / "result.json"
    broken.write_text('{"values": {"twi', encoding="utf-8")
    assert sweep.status(store).missing == {plan.runs[1].key: plan.runs[1].label}
    assert sweep.run(plan, store).done == 1
    assert [seed for seed, _ in log(tmp_path, "end")] == [0, 1, 2, 3, 1]
    (kept,) = broken.parent.glob("result.json.unreadable-*")
    assert kept.read_text(encoding="utf-8") == '{"values": {"twi'
    # A larger plan on the same store runs what is new.
    larger = sweep.load(write_study(tmp_path, 6))
    assert sweep.run(larger, store).done == 2
    assert rows(store) == {seed: 2 * seed for seed in range(6)}


def test_a_dataset_that_was_cut_off_counts_as_not_done(tmp_path: Path) -> None:
    fitted = {"name": "fit", "iterations": 2}
    plan = sweep.load({"priors": "vit", "images": "camera", "sizes": 8, "measure": fitted})
    sweep.run(plan, tmp_path)
    file = tmp_path / "runs" / plan.runs[0].key / "result.nc"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match="isn't done"):
        sweep.load_result(tmp_path, plan.runs[0])
    assert sweep.run(plan, tmp_path).done == 1
    assert sweep.load_result(tmp_path, plan.runs[0]).sizes["iteration"] == 3
    (kept,) = file.parent.glob("result.nc.unreadable-*")
    assert kept.stat().st_size == len(whole) // 2


def test_failures_are_listed_kept_and_retried_on_request(tmp_path: Path) -> None:
    store = tmp_path / "store"
    plan = sweep.load(write_study(tmp_path, 3))
    (tmp_path / "block-1").touch()
    told: list[tuple[int, str]] = []
    first = sweep.run(
        plan, store, report=lambda run, found: told.append((run.asked["seed"], found["status"]))
    )
    assert told == [(0, "done"), (1, "failed"), (2, "done")]
    assert (first.done, list(first.failed.values())) == (2, ["ValueError: seed 1 is blocked"])
    folder = store / "runs" / plan.runs[1].key
    assert "raise ValueError" in (folder / "failure.txt").read_text(encoding="utf-8")
    again = sweep.run(plan, store)
    assert (again.done, again.skipped, len(again.failed)) == (0, 2, 1)
    assert len(log(tmp_path, "start")) == 3
    assert list(sweep.status(store).failed.values()) == [
        (plan.runs[1].label, "ValueError: seed 1 is blocked")
    ]
    assert len(sweep.run(plan, store, retry_failed=True).failed) == 1
    assert (folder / "failure.txt.1").exists()
    (tmp_path / "block-1").unlink()
    assert sweep.run(plan, store, retry_failed=True).done == 1
    assert sweep.status(store).failed == {}
    assert len(sweep.table(store)) == 3


def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    plan = sweep.load(write_study(tmp_path, 5, seconds=0.01))

    def interrupt(run: sweep.Run, found: dict[str, Any]) -> None:
        if run.asked["seed"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(sweep.SweepInterrupted) as caught:
        sweep.run(plan, tmp_path / "store", report=interrupt)
    assert (caught.value.summary.done, caught.value.summary.left) == (2, 3)
    assert len(sweep.status(tmp_path / "store").missing) == 3
    assert sweep.run(plan, tmp_path / "store").done == 3
    assert sorted(seed for seed, _ in log(tmp_path, "start")) == list(range(5))


@pytest.mark.slow
def test_a_lost_process_costs_one_run_and_is_replaced(tmp_path: Path) -> None:
    plan = sweep.load(write_study(tmp_path, 6))
    (tmp_path / "hold").touch()
    with LocalProcesses(2) as executor:
        killer = threading.Thread(target=kill_one, args=(tmp_path, 2))
        killer.start()
        summary = sweep.run(plan, tmp_path / "store", executor=executor)
        killer.join()
    assert (summary.done, summary.failed) == (6, {})
    assert rows(tmp_path / "store") == {seed: 2 * seed for seed in range(6)}
    assert len(log(tmp_path, "start")) == 7
    assert len({process for _, process in log(tmp_path, "start")}) == 3
    assert executor.processes() == []


@pytest.mark.slow
def test_two_sweeps_on_one_store_run_everything_once(tmp_path: Path) -> None:
    file = write_study(tmp_path, 8)
    (tmp_path / "hold").touch()
    command = [sys.executable, "-m", "dipkernels", "sweep", str(file)]
    command += ["--output", str(tmp_path / "store"), "--quiet"]
    both = [
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    wait_for_processes(tmp_path, 2)
    (tmp_path / "hold").unlink()
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert all("8 runs" in text and "0 failed" in text for text in said)
    assert sorted(seed for seed, _ in log(tmp_path, "start")) == list(range(8))
    assert len({process for _, process in log(tmp_path, "end")}) == 2
    assert rows(tmp_path / "store") == {seed: 2 * seed for seed in range(8)}


def named_oddly(prior: ImagePrior, task: Task, *, seed: int, subject: float = 1.0) -> dict:
    """Have an option of a name that the package uses itself."""
    return {"twice": 2 * subject}


def test_options_of_ones_own_may_have_any_name() -> None:
    sweep.register_measurement("named-oddly", named_oddly)
    prior = networks.create("deep-decoder", image_size=(8, 8), width=2)
    subject = Subject(prior, tasks.denoise(torch.rand(3, 8, 8)))
    assert find_stage("named-oddly").measure(subject, subject=2.0).values == {"twice": 4.0}


def test_what_measurements_return_is_read_or_refused() -> None:
    curve = xr.Dataset({"peak": 3.0, "curve": ("iteration", [1.0, 3.0])})
    assert as_measured("own", curve).values == {"peak": 3.0}
    found = as_measured("own", {"a": np.float32(0.5), "b": torch.tensor(2), "c": True, "d": "x"})
    assert found.values == {"a": 0.5, "b": 2, "c": True, "d": "x"}
    assert found.dataset is None
    for wrong in (None, 3.0, {"a": np.zeros(3)}, {"a": torch.zeros(2)}, {"a": None}):
        with pytest.raises(InvalidInputError, match="'own'"):
            as_measured("own", wrong)
    for taken in ("size", "seconds", "prior.width"):  # would replace what was run in the table
        with pytest.raises(InvalidInputError, match=f"'own' gave '{taken}'.*another name"):
            as_measured("own", {taken: 1.0})


class Losing(Executor):
    """Loses the first calls, as a worker that is killed does."""

    def __init__(self, losses: int) -> None:
        self.losses = losses

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        if self.losses:
            self.losses -= 1
            future.set_exception(driver.WorkerLostError("its process was ended by SIGKILL"))
        else:
            future.set_result(fn(*args, **kwargs))
        return future


def test_a_run_that_loses_every_worker_fails_in_the_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = sweep.load(write_study(tmp_path, 1))
    summary = sweep.run(plan, tmp_path / "store", executor=Losing(driver.LOSSES))
    assert list(summary.failed.values()) == ["its process was ended by SIGKILL, 3 times"]
    caplog.clear()
    fewer = sweep.run(plan, tmp_path / "other", executor=Losing(driver.LOSSES - 1))
    assert fewer.done == 1
    told = [r.getMessage() for r in caplog.records if r.name == "dipkernels.sweep.driver"]
    assert len(told) == driver.LOSSES - 1
    assert told[0].endswith(" goes to another worker: its process was ended by SIGKILL")


def test_any_executor_serves_and_one_that_is_gone_is_said(tmp_path: Path) -> None:
    plan = sweep.load(write_study(tmp_path, 3))
    with ThreadPoolExecutor(2) as threads:
        assert sweep.run(plan, tmp_path / "store", executor=threads).done == 3
    with pytest.raises(DipkernelsError, match="takes no more runs"):
        sweep.run(plan, tmp_path / "other", executor=threads)


def test_a_run_that_another_is_at_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "POLL", 0.05)
    plan = sweep.load(write_study(tmp_path, 2))
    folder = Store.open(tmp_path / "store", create=True).folder(plan.runs[0].key).path
    folder.mkdir()
    held, go = threading.Event(), threading.Event()

    def other() -> None:
        with locks.claim(folder) as mine:
            assert mine
            held.set()
            go.wait(30)

    thread = threading.Thread(target=other)
    thread.start()
    held.wait(30)
    assert list(sweep.status(tmp_path / "store", plan).running) == [plan.runs[0].key]
    threading.Timer(0.3, go.set).start()
    summary = sweep.run(plan, tmp_path / "store")  # it lets go without a result
    thread.join()
    assert summary.done == 2
    assert [seed for seed, _ in log(tmp_path, "end")] == [1, 0]


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    plan = sweep.load(write_study(tmp_path, 1))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(OutputError, match="holds no sweep"):
        sweep.run(plan, tmp_path / "full")
    with pytest.raises(OutputError, match="holds no sweep"):
        sweep.table(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match="no effect on an executor"):
        sweep.run(plan, tmp_path / "store", executor=ThreadPoolExecutor(1), workers=2)
    with pytest.raises(InvalidInputError, match="no effect on this process"):
        sweep.run(plan, tmp_path / "store", threads=2)
    with pytest.raises(DipkernelsError, match="no CUDA GPU"):
        sweep.run(plan, tmp_path / "store", device="cuda")


def test_an_answer_that_cannot_be_read_does_not_stop_its_process(tmp_path: Path) -> None:
    (tmp_path / "only_there.py").write_text("class Answer: pass\n", encoding="utf-8")
    made = f"__import__('sys').path.append({str(tmp_path)!r}) or __import__('only_there').Answer()"
    executor = LocalProcesses(1)
    try:
        future = executor.submit(eval, made)
        assert isinstance(future.exception(timeout=120), ModuleNotFoundError)
        assert executor.submit(abs, -2).result(timeout=120) == 2
    finally:
        executor.shutdown(wait=False)


def test_processes_that_were_shut_down_take_no_calls(tmp_path: Path) -> None:
    executor = LocalProcesses(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -2)
    plan = sweep.load(write_study(tmp_path, 1))
    with pytest.raises(DipkernelsError, match="takes no more runs"):  # else it waited for ever
        sweep.run(plan, tmp_path / "store", executor=executor)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no signals of real time")
def test_a_process_ended_by_a_signal_without_a_name_is_lost_like_others() -> None:
    executor = LocalProcesses(1)
    try:
        found = executor.submit(abs, -2).exception(timeout=120)  # one is there now
        assert found is None
        (process,) = executor.processes()
        future = executor.submit(time.sleep, 60)
        while not future.running():
            time.sleep(0.01)
        os.kill(process, signal.SIGRTMIN + 3)
        assert f"signal {signal.SIGRTMIN + 3}" in str(future.exception(timeout=120))
    finally:
        executor.shutdown()
