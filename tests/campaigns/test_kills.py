"""Kills at any instant, of every command that stores: what follows ends with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dipkernels.storage import load
from helpers.campaigns import sizes

SIZE = ["--size", "8", "--seed", "1"]
COMMANDS: dict[str, list[str]] = {
    "fit": ["fit", "deep-decoder", *SIZE, "--iterations", "120", "--options", "width=4"],
    "posterior": [
        *("posterior", "deep-decoder", *SIZE, "--iterations", "120", "--chains", "2"),
        *("--options", "width=4"),
    ],
    "ntk": ["ntk", "deep-decoder", *SIZE, "--steps", "6", "--probes", "2"],
    "compare": ["compare", "--priors", "deep-decoder", *SIZE, "--iterations", "40"],
    "fingerprint": [
        *("fingerprint", "deep-decoder", "--size", "16", "--iterations", "20", "--steps", "6"),
        *("--samples", "8"),
    ],
    "sweep": ["sweep", "plan.yaml"],
}
PLAN = """\
priors: {name: deep-decoder, options: {width: 4}}
images: camera
sizes: 8
seeds: [0, 1, 2]
measure: {name: fit, iterations: 60}
"""
# One process imports everything, and forks children that are killed: 300 imports would take hours.
SCRIPT = """
import json, math, os, random, signal, sys, time
sys.argv[0] = "dipkernels"
import torch
torch.set_num_threads(1)
import dipkernels.sampling, dipkernels.fingerprints, dipkernels.sweep, dipkernels.reports
import dipkernels.plotting, dipkernels.stages.comparison, scipy.stats, skimage.metrics
from dipkernels.cli import app
from dipkernels.storage import checkpoints
checkpoints.SECONDS, checkpoints.SHARE = 0.0, math.inf  # saves all the time
command, output, kills, seed = json.loads(sys.argv[1])
rng = random.Random(seed)


def child():
    process = os.fork()
    if process == 0:
        os.setpgid(0, 0)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            code = app(command, standalone_mode=False)  # which doesn't exit
        except BaseException as error:
            os._exit(getattr(error, "exit_code", 3))
        os._exit(code if isinstance(code, int) else 0)
    return process


start = time.monotonic()
whole = child()  # into a folder of its own, to be compared with
assert os.waitpid(whole, 0)[1] == 0
took = time.monotonic() - start
command[command.index("--output") + 1] = output
killed = 0
while killed < kills:
    process = child()
    kind = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    time.sleep(rng.uniform(0, 1.1 * took))
    try:
        os.killpg(process, kind)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(process, 0)
    killed += 1
    if status == 0:  # it was done before: begin anew
        import shutil
        shutil.rmtree(output)
process = child()
assert os.waitpid(process, 0)[1] == 0
print(json.dumps({"killed": killed, "took": took}))
"""


def stored(folder: Path) -> dict[str, Any]:
    """What was computed, without when and how fast."""
    return {
        file.relative_to(folder).as_posix(): load(file).drop_attrs()
        for file in sorted(folder.rglob("*.nc"))
    }


@pytest.mark.parametrize("count", sizes(0, 300)[1:])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_killed_ends_with_the_same_bits(name: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    command = [*COMMANDS[name], "--output", "whole"]
    given = json.dumps([command, "killed", max(1, count // len(COMMANDS)), count])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, given],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {said['killed']} kills, none lost")
    whole, killed = stored(tmp_path / "whole"), stored(tmp_path / "killed")
    assert whole
    assert whole.keys() == killed.keys()
    for file, expected in whole.items():
        for variable in expected.variables:
            if variable in ("seconds", "time") or "seconds" in str(variable):
                continue
            np.testing.assert_array_equal(
                killed[file][variable].values, expected[variable].values, err_msg=file
            )
    assert not list((tmp_path / "killed").rglob(".*.partial"))
