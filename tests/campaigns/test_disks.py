"""Full disks, read-only folders, and two processes on one folder: a sentence, and nothing lost."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.campaigns import sizes
from helpers.forks import COMMANDS, FORKING, PLAN, require_same

# A limit of a file's length is met in the same places as the end of a disk.
FULL = """
command, tries, seed = json.loads(sys.argv[1])
rng, found = random.Random(seed), []
code, said = ended(*child([*command, "--output", "whole"]))
assert code == 0, said
lengths = sorted(file.stat().st_size for file in Path("whole").rglob("*") if file.is_file())
for number in range(tries):
    limit, given = int(rng.random() * rng.choice(lengths)), [*command, "--output", f"full{number}"]
    ends = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    full = ended(*child(given, ends))
    again = ended(*child(given))
    found.append({"limit": limit, "full": full, "again": again})
print(json.dumps(found))
"""
# Root may write everywhere: it becomes nobody.
LOCKED = """
(command,) = json.loads(sys.argv[1])


def nobody():
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def lock(folder):
    for item in [*Path(folder).rglob("*"), Path(folder)]:
        item.chmod(0o555 if item.is_dir() else 0o444)


found = {"whole": ended(*child([*command, "--output", "whole"]))}
lock("whole")
found["again"] = ended(*child([*command, "--output", "whole"], nobody))
Path("empty").mkdir()
lock("empty")
found["empty"] = ended(*child([*command, "--output", "empty"], nobody))
found["new"] = ended(*child([*command, "--output", "empty/new"], nobody))
os.umask(0o027)
found["group"] = ended(*child([*command, "--output", "group"]))
print(json.dumps(found))
"""
SHARED = """
command, tries = json.loads(sys.argv[1])
found = [ended(*child([*command, "--output", "whole"]))]
for number in range(tries):
    both = [child([*command, "--output", f"shared{number}"]) for _ in range(2)]
    found += [ended(*each) for each in both]
    found.append(ended(*child([*command, "--output", f"shared{number}"])))
print(json.dumps(found))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    yield folder
    shutil.rmtree(folder)


def run(script: str, given: list[Any], place: Path) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", FORKING + script, json.dumps(given)],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def is_sentence(text: str) -> bool:
    """Tell what a user can read from what is raw."""
    return "dipkernels: " in text and "Traceback" not in text


@pytest.mark.parametrize("count", sizes(0, 220)[1:])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_said_and_costs_nothing(name: str, count: int, place: Path) -> None:
    seen = Counter[str]()
    tries = run(FULL, [COMMANDS[name], max(1, count // len(COMMANDS)), count], place)
    for number, each in enumerate(tries):
        code, said = each["full"]
        assert code in (0, 2), (each["limit"], said)
        assert code == 0 or is_sentence(said), (each["limit"], said)
        assert each["again"][0] == 0, (each["limit"], each["again"][1])
        require_same(place / f"full{number}", place / "whole")
        seen["said" if code else "wrote"] += 1
    print(f"{name}: {len(tries)} full disks: {dict(seen)}, none lost")
    assert seen["said"]


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_can_only_be_read_serves_what_is_there(name: str, place: Path) -> None:
    found = run(LOCKED, [COMMANDS[name]], place)
    assert found["whole"][0] == found["again"][0] == found["group"][0] == 0, found
    for folder in ("empty", "new"):
        code, said = found[folder]
        assert code == 2 and is_sentence(said), said
    modes = {p.stat().st_mode & 0o777 for p in (place / "group").rglob("*") if p.is_file()}
    assert modes == {0o640}
    print(f"{name}: read-only: {found['empty'][1].splitlines()[-1][:200]}")


@pytest.mark.parametrize("count", sizes(0, 33)[1:])
@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_share_a_folder(name: str, count: int, place: Path) -> None:
    tries = max(1, count // len(COMMANDS))
    seen = Counter[str]()
    for code, said in run(SHARED, [COMMANDS[name], tries], place):
        assert code == 0 or is_sentence(said), said
        seen[f"exit {code}"] += 1
    for number in range(tries):
        require_same(place / f"shared{number}", place / "whole")
    print(f"{name}: {tries} folders shared by two: {dict(seen)}, none lost")
