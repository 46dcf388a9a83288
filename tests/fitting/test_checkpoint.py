"""Checkpoints: a fit that was killed continues with the bits of one that wasn't."""

import dataclasses
import math
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save_file
from torch import Tensor

from dipkernels import networks, tasks
from dipkernels.base.seeds import derive
from dipkernels.errors import InvalidInputError, OutputError
from dipkernels.fitting import FitInterrupted, FitSettings, fit, load_parameters
from dipkernels.fitting.descent import Descent
from dipkernels.networks import ImagePrior
from dipkernels.stopping.published import WindowedVarianceRule
from dipkernels.storage import netcdf as results
from dipkernels.storage.checkpoints import load_checkpoint, read_checkpoint, save_checkpoint

SIZE = (9, 14)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def make_task(seed: int = 0) -> tasks.Task:
    return tasks.denoise(draw(2, *SIZE, seed=seed), noise_sigma=0.1)


def make_prior(**settings: Any) -> ImagePrior:
    options = {"width": 6, "scales": 2, "skip_channels": 2, "code_channels": 3} | settings
    return networks.create("skip", image_size=SIZE, channels=2, **options)


@pytest.fixture(autouse=True)
def save_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dipkernels.storage.checkpoints.SECONDS", 0.0)
    monkeypatch.setattr("dipkernels.storage.checkpoints.SHARE", math.inf)


class Killed(BaseException):
    """What nobody catches."""


def die_at(*iterations: int) -> Any:
    def callback(iteration: int, image: Tensor, parameters: dict[str, Tensor]) -> None:
        if iteration in iterations:
            raise Killed

    return callback


def assert_identical(one: xr.Dataset, other: xr.Dataset) -> None:
    for name in other.data_vars:
        floats = np.issubdtype(other[name].dtype, np.floating)
        assert np.array_equal(one[name], other[name], equal_nan=floats), name
    assert set(one.data_vars) == set(other.data_vars)
    for name in ("status", "peak_psnr", "peak_iteration"):
        assert one.attrs.get(name) == other.attrs.get(name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"channels_last": True},
        {"input_noise": 0.05, "schedule": "cosine", "weight_decay": 1e-3},
        {"learning_rate": 0.1, "backtracking": 0.5, "gradient_clip": 0.1},
        {"optimiser": "sgd", "momentum": 0.9, "learning_rate": 0.1},
        {"optimiser": "gradient-descent"},
        {"optimiser": "l-bfgs"},
        {"seed": [2, 5], "input_noise": 0.05},
    ],
    ids=lambda settings: "-".join(map(str, settings)) or "adam",
)
def test_a_killed_fit_continues_bit_by_bit(settings: dict[str, Any], tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    whole = fit(prior, task, iterations=70, **settings)
    for moment in (random.Random(str(settings)).randrange(2, 50), 55, 70):
        with pytest.raises(Killed):
            fit(
                prior,
                task,
                iterations=70,
                checkpoint=file,
                callback=die_at(moment),
                **settings,
            )
    assert_identical(fit(prior, task, iterations=70, checkpoint=file, **settings), whole)
    # Once more, from the end: nothing is left to do, and nothing changes.
    seen: list[int] = []
    again = fit(
        prior,
        task,
        iterations=70,
        checkpoint=file,
        callback=lambda iteration, *_: seen.append(iteration),
        **settings,
    )
    assert_identical(again, whole)
    assert not seen


# The import takes longest, and is shared: each child is another process, the first two are killed.
SCRIPT = """
import math
import os
import sys
from dipkernels.storage import checkpoints
checkpoints.SECONDS, checkpoints.SHARE = 0.0, math.inf
sys.path.insert(0, {folder!r})
from test_checkpoint import fit, make_prior, make_task, results
for _ in range(3):
    child = os.fork()
    if child:
        print(os.waitpid(child, 0)[1], flush=True)
        continue
    print(os.getpid(), flush=True)
    result = fit(make_prior(), make_task(), iterations=400, input_noise=0.01, checkpoint={file!r})
    results.save(result, {output!r})
    os._exit(0)
"""


@pytest.mark.slow
def test_kill_9_at_any_instant(tmp_path: Path) -> None:
    file, output = str(tmp_path / "state.safetensors"), str(tmp_path / "fit.nc")
    script = SCRIPT.format(folder=str(Path(__file__).parent), file=file, output=output)
    # One thread, since a forked child has none of its parent's, and waits for them; bits depend on
    # their number.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    rng = random.Random(7)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        for kill in (True, True, False):
            child = int(parent.stdout.readline())
            if kill:
                time.sleep(rng.uniform(0.2, 0.8))
                os.kill(child, signal.SIGKILL)
            ended = int(parent.stdout.readline())
            assert ended == (signal.SIGKILL if kill else 0)
            assert Path(output).exists() != kill
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = fit(make_prior(), make_task(), iterations=400, input_noise=0.01)
    torch.set_num_threads(threads)
    assert_identical(results.load(output), whole)
    assert [path.name for path in tmp_path.glob(".*")] == []  # no partial files are left


def test_a_full_disk_is_an_error_and_the_last_checkpoint_stays_whole(tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    fit(prior, task, iterations=5, checkpoint=file)
    kept = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, hard))
    try:
        with pytest.raises(OutputError, match=r"can't write the checkpoint .* the last one stays"):
            fit(prior, task, iterations=9, checkpoint=file)
        with pytest.raises(OutputError, match="there is none yet"):
            fit(prior, task, iterations=9, checkpoint=tmp_path / "other.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    whole = fit(prior, task, iterations=9)
    assert_identical(fit(prior, task, iterations=9, checkpoint=file), whole)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_fit_can_go_on_to_more_iterations(noise: float, tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    fit(prior, task, iterations=20, input_noise=noise, checkpoint=file)
    whole = fit(prior, task, iterations=63, input_noise=noise)
    longer = fit(prior, task, iterations=63, input_noise=noise, checkpoint=file)
    assert_identical(longer, whole)
    if noise:
        return
    with pytest.raises(InvalidInputError, match="has 63 iterations already, 40 were asked for"):
        fit(prior, task, iterations=40, checkpoint=file)


def test_a_finished_fit_that_was_called_again_can_go_on(tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    whole = fit(prior, task, iterations=33, input_noise=0.1)
    for iterations in (20, 20, 20, 33):
        last = fit(prior, task, iterations=iterations, input_noise=0.1, checkpoint=file)
    assert_identical(last, whole)


# What dipkernels 0.1 wrote; where it ran a finished fit once more, the generators were lost.
LAYOUT = {
    "parameters", "optimiser", "record", "rates", "iteration", "seconds", "generators", "accepted",
    "accepted_mse", "rollbacks", "stopper",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("moment", [None, 12])
def test_files_of_the_first_layout_are_continued(moment: int | None, tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    options: dict[str, Any] = {"input_noise": 0.1, "seed": [2, 5], "backtracking": 0.5}
    options |= {"stop": WindowedVarianceRule(patience=200)}
    whole = fit(prior, task, iterations=60, **options)
    if moment is None:
        fit(prior, task, iterations=20, checkpoint=file, **options)
    else:
        with pytest.raises(Killed):
            fit(prior, task, iterations=20, checkpoint=file, callback=die_at(moment), **options)
    identity, state = read_checkpoint(file)
    assert set(state) == LAYOUT
    # The generators' own states, after as many draws of the code's noise as there were steps.
    for seed, content in zip(options["seed"], state["generators"], strict=True):
        generator = torch.Generator().manual_seed(derive("input-noise", seed))
        for _ in range(state["iteration"]):
            torch.empty_like(prior.code).normal_(generator=generator)
        assert torch.equal(generator.get_state(), content)
    assert_identical(fit(prior, task, iterations=60, checkpoint=file, **options), whole)
    save_checkpoint(file, identity, state | {"generators": []})
    with pytest.raises(InvalidInputError, match="lost where its input noise stood"):
        fit(prior, task, iterations=60, checkpoint=file, **options)


@pytest.mark.parametrize("between", [False, True])
def test_a_descent_is_driven_and_continued_without_a_record(between: bool) -> None:
    prior, task = make_prior(), make_task()
    settings = FitSettings(input_noise=0.1, iterations=9)
    whole = fit(prior, task, settings, seed=[2, 5])
    descent, losses = Descent(prior, [task], [2, 5], settings), []
    for i in range(10):
        if i == 4:  # what was evaluated, but no step taken from, is evaluated once more
            if between:
                descent.evaluate()
            state = descent.state()
            descent = Descent(prior, [task], [2, 5], settings, state["rates"])
            descent.load(state)
        misfits, images = descent.evaluate()
        losses.append(misfits.detach())
        if i < 9:
            descent.step(misfits, images)
        assert descent.iteration == min(i + 1, 9)
    assert np.array_equal(torch.stack(losses, dim=1), whole.loss)


@pytest.mark.slow
def test_interrupts_keep_the_checkpoint(tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"

    def interrupt(iteration: int, *_: object) -> None:
        if iteration == 23:
            raise KeyboardInterrupt

    with pytest.raises(FitInterrupted) as caught:
        fit(prior, task, iterations=40, checkpoint=file, callback=interrupt)
    assert caught.value.result.sizes["iteration"] == 24
    whole = fit(prior, task, iterations=40)
    assert_identical(fit(prior, task, iterations=40, checkpoint=file), whole)


def test_parameters_are_those_of_the_last_image(tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    result = fit(prior, task, iterations=7, checkpoint=file)
    image = prior.image(load_parameters(file))
    # Single precision; the fit may have summed in another order than the prior alone.
    torch.testing.assert_close(image, torch.from_numpy(result.final.values), rtol=0, atol=1e-5)
    several = tmp_path / "several.safetensors"
    result = fit(prior, task, iterations=7, checkpoint=several, seed=[1, 2])
    stacked = load_parameters(several)
    images = torch.func.vmap(prior.image)(stacked)
    torch.testing.assert_close(images, torch.from_numpy(result.final.values), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"learning_rate": 0.02}, "learning_rate"),
        ({"seed": 1}, "seeds"),
        ({"task": make_task(seed=1)}, "tasks"),
        ({"task": make_task().hold_out(0.1)}, "recorded|tasks"),
        ({"averaging": 0.5}, "averaging"),
        ({"task": dataclasses.replace(make_task(), noise_sigma=0.2)}, "tasks"),
        ({"task": dataclasses.replace(make_task(), clean=draw(2, *SIZE, seed=5))}, "tasks"),
        ({"stop": WindowedVarianceRule(patience=7)}, "stop"),
        ({"prior": make_prior(activation="tanh")}, "start of the network"),
        ({"prior": make_prior(initialisation="orthogonal")}, "start of the network"),
        ({"schedule": "cosine"}, "iterations|schedule"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(
    change: dict[str, Any], word: str, tmp_path: Path
) -> None:
    file = tmp_path / "state.safetensors"
    settings: dict[str, Any] = {"task": make_task(), "learning_rate": 0.01, "iterations": 3}
    settings |= {"prior": make_prior(), "stop": WindowedVarianceRule(patience=8)}
    fit(checkpoint=file, **settings)
    kept = file.read_bytes()
    with pytest.raises(OutputError, match=f"the checkpoint of another fit .({word}):"):
        fit(checkpoint=file, **(settings | change))
    assert file.read_bytes() == kept


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    prior, task, file = make_prior(), make_task(), tmp_path / "state.safetensors"
    file.write_bytes(b"not a checkpoint")
    with pytest.raises(InvalidInputError, match="can't be read as a checkpoint"):
        fit(prior, task, iterations=2, checkpoint=file)
    save_file({"a": torch.ones(2)}, file)
    with pytest.raises(InvalidInputError, match="holds tensors but is no checkpoint"):
        load_parameters(file)
    with pytest.raises(InvalidInputError, match="can't be read as a checkpoint"):
        load_parameters(tmp_path / "nothing")


def test_state_survives_with_its_types(tmp_path: Path) -> None:
    state = {
        "tensor": draw(3, 4)[:, ::2],
        "array": np.arange(6.0).reshape(2, 3),
        "nested": [{"a": (1, 2.5, None, "text", True)}, [], {}],
        0: {"moments": torch.arange(3)},
        "infinite": float("inf"),
    }
    identity = {"a": 1, "b": [1.5, "x"]}
    save_checkpoint(tmp_path / "deep" / "file", identity, state)
    loaded = load_checkpoint(tmp_path / "deep" / "file", identity)
    assert loaded is not None
    assert list(loaded) == list(state)
    assert torch.equal(loaded["tensor"], state["tensor"])
    assert np.array_equal(loaded["array"], state["array"])
    assert loaded["nested"] == state["nested"]
    assert torch.equal(loaded[0]["moments"], torch.arange(3))
    assert loaded["infinite"] == float("inf")
    assert load_checkpoint(tmp_path / "none", identity) is None
    with pytest.raises(TypeError, match=r"can't hold a set \(at /a\)"):
        save_checkpoint(tmp_path / "file", identity, {"a": {1}})
