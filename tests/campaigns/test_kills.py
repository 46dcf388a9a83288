"""Kills at any instant, of every command that stores: what follows ends with the same bits."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.campaigns import sizes
from helpers.forks import COMMANDS, FORKING, PLAN, require_same

SCRIPT = (
    FORKING
    + """
command, kills, seed = json.loads(sys.argv[1])
rng = random.Random(seed)
start = time.monotonic()
code, said = ended(*child([*command, "--output", "whole"]))
assert code == 0, said
took, killed = time.monotonic() - start, 0
while killed < kills:
    process, read = child([*command, "--output", "killed"], mute)
    os.close(read)
    kind = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    time.sleep(rng.uniform(0, 1.1 * took))
    try:
        os.killpg(process, kind)
    except ProcessLookupError:
        pass
    _, status = os.waitpid(process, 0)
    killed += 1
    if status == 0:  # it was done, perhaps of what others had begun
        Path("killed").rename(f"killed{killed}")
code, said = ended(*child([*command, "--output", "killed"]))
assert code == 0, said
print(json.dumps({"killed": killed, "took": took}))
"""
)


@pytest.mark.parametrize("count", sizes(0, 330)[1:])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_killed_ends_with_the_same_bits(name: str, count: int, tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(PLAN, encoding="utf-8")
    given = json.dumps([COMMANDS[name], max(1, count // len(COMMANDS)), count])
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
    print(f"{name}: {said['killed']} kills of {said['took']:.1f} s, none lost")
    for folder in tmp_path.glob("killed*"):
        require_same(folder, tmp_path / "whole")
