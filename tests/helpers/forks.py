"""Commands in processes of their own, which are forked: to import everything takes ten seconds."""

from pathlib import Path
from typing import Any

from dipkernels.storage import load

SIZE = ["--size", "8", "--seed", "1"]
SMALL = ["deep-decoder", *SIZE, "--options", "width=4"]
# Every command that stores what it computes.
COMMANDS: dict[str, list[str]] = {
    "fit": ["fit", *SMALL, "--iterations", "120"],
    "posterior": ["posterior", *SMALL, "--iterations", "120", "--chains", "2"],
    "ntk": ["ntk", "deep-decoder", *SIZE, "--steps", "6", "--probes", "2"],
    "compare": ["compare", "--priors", "deep-decoder", *SIZE, "--iterations", "40"],
    "fingerprint": [
        *("fingerprint", "deep-decoder", "--size", "16", "--iterations", "20", "--steps", "6"),
        *("--samples", "8"),
    ],
    "sweep": ["sweep", "plan.yaml"],
    "spectrum": ["spectrum", "deep-decoder", *SIZE, "--steps", "6", "--probes", "2"],
    "score": ["score", "deep-decoder", *SIZE],
    "audit": ["audit", *SMALL, "--iterations", "24", "--checks", "4 24"],
    "covariance": ["covariance", *SMALL, "--samples", "8"],
    "gp": ["gp", *SMALL, "--kernel", "samples", "--samples", "8"],
}
PLAN = """\
priors: {name: deep-decoder, options: {width: 4}}
images: camera
sizes: 8
seeds: [0, 1, 2]
measure: {name: fit, iterations: 60}
"""
# How a script begins that runs commands by `child`, and waits for them by `ended`.
FORKING = """
import json, math, os, random, resource, shutil, signal, sys, time, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
import dipkernels.sampling, dipkernels.fingerprints, dipkernels.sweep, dipkernels.reports
import dipkernels.plotting, dipkernels.stages.comparison, scipy.stats, skimage.metrics
from dipkernels.cli import main
from dipkernels.storage import checkpoints
checkpoints.SECONDS, checkpoints.SHARE = 0.0, math.inf  # saves all the time


def child(command, before=lambda: None):
    read, write = os.pipe()
    process = os.fork()
    if process:
        os.close(write)
        return process, read
    os.setpgid(0, 0)
    os.dup2(write, 1)
    os.dup2(write, 2)
    sys.argv, code = ["dipkernels", *command], 3
    try:
        before()
        main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def mute():
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def ended(process, read):
    with os.fdopen(read, errors="replace") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text
"""


def stored(folder: Path) -> dict[str, Any]:
    """What was computed, without when and how fast."""
    found = {}
    for file in sorted(folder.rglob("*.nc")):
        result = load(file).drop_attrs()
        timed = [name for name in result.variables if name == "time" or "seconds" in str(name)]
        found[file.relative_to(folder).as_posix()] = result.drop_vars(timed)
    return found


def require_same(found: Path, whole: Path) -> None:
    """Require that two folders hold files of the same names, and the same results bit by bit."""
    names = [
        {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
        for folder in (found, whole)
    ]
    assert names[0] == names[1]
    here, there = stored(found), stored(whole)
    for name, expected in there.items():
        assert here[name].identical(expected), f"{found / name} differs"
