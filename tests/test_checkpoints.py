"""When states are saved, and that what shares memory survives; fits test the rest."""

import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dipkernels.storage import checkpoints
from dipkernels.storage.checkpoints import Saver, load_checkpoint, save_checkpoint


def test_views_of_one_tensor_are_saved_as_they_are(tmp_path: Path) -> None:
    rows = torch.arange(24.0).reshape(6, 4)
    state = {"first": rows[:3], "again": rows[:3], "overlap": rows[2:], "whole": rows}
    save_checkpoint(tmp_path / "file", {}, state)
    loaded = load_checkpoint(tmp_path / "file", {})
    assert loaded is not None
    for key, value in state.items():
        assert torch.equal(loaded[key], value)
    # 3, 3, 4 and 6 rows of 16 bytes: no storage was written whole for a part of it
    assert 16 * 16 < (tmp_path / "file").stat().st_size < 16 * 16 + 1500


def test_saving_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, saves = [1000.0], []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def slow(path: Path, identity: dict[str, Any], state: dict[str, Any]) -> None:
        saves.append(clock[0])
        clock[0] += 4.0  # which 5 % allows every 80 s

    monkeypatch.setattr(checkpoints, "save_checkpoint", slow)
    saver = Saver(tmp_path / "file", {})
    for _ in range(2000):
        clock[0] += 0.25
        saver.save_if_due(dict)
    assert saves[0] == 1030.0
    gaps = {later - earlier for earlier, later in itertools.pairwise(saves)}
    assert gaps == {84.0}
    assert len(saves) == 1 + int((2000 * 0.25 - 30) / 80)


SAVING = """
import sys
import torch
from pathlib import Path
from dipkernels.storage.checkpoints import save_checkpoint
from dipkernels.priors.memory import resident_bytes
save_checkpoint(Path(sys.argv[1]), {}, {"small": torch.rand(10)})
state = {"large": [torch.rand(5_000_000) for _ in range(4)]}
before = resident_bytes()
save_checkpoint(Path(sys.argv[1]), {}, state)
print(resident_bytes() - before)
"""


@pytest.mark.slow
def test_saving_copies_no_tensor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SAVING, str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8_000_000  # of 80 MB
