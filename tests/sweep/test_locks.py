"""Locks of runs: one holder, taken over from the dead and the silent only."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import pytest

from dipkernels.sweep import locks


def lock(folder: Path, number: int, process: int, host: str | None = None) -> Path:
    """Leave a lock behind, as somebody who was lost does."""
    file = folder / f"lock.{number}"
    text = {"token": uuid.uuid4().hex, "host": host or locks.this_host(), "process": process}
    file.write_text(json.dumps(text), encoding="utf-8")
    return file


def dead_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time_and_nothing_is_left(tmp_path: Path) -> None:
    with locks.claim(tmp_path) as first, locks.claim(tmp_path) as second:
        assert (first, second) == (True, False)
        found = locks.holder(tmp_path)
        assert found is not None
        assert found.process == os.getpid()
        assert not found.lost()
    assert list(tmp_path.iterdir()) == []


def test_a_dead_holder_is_followed_at_once_and_a_silent_one_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lock(tmp_path, 0, dead := dead_process())
    with locks.claim(tmp_path) as mine:
        assert mine
        assert {file.name for file in tmp_path.iterdir()} == {"lock.0", "lock.1"}
    assert f"{tmp_path} is taken over: process {dead} of " in caplog.text
    assert list(tmp_path.iterdir()) == []
    elsewhere = lock(tmp_path, 0, 1, host="another machine")
    with locks.claim(tmp_path) as mine:
        assert not mine
    old = time.time() - locks.STALE - 10
    os.utime(elsewhere, (old, old))
    with locks.claim(tmp_path) as mine:
        assert mine
    monkeypatch.setattr(locks, "BEAT", 0.01)
    with locks.claim(tmp_path) as mine:
        assert mine
        os.utime(tmp_path / "lock.0", (old, old))
        time.sleep(0.1)
        found = locks.holder(tmp_path)
        assert found is not None
        assert not found.lost()  # its heart has beaten since


def test_half_a_lock_counts_until_it_is_old(tmp_path: Path) -> None:
    file = tmp_path / "lock.0"
    file.write_text('{"tok', encoding="utf-8")
    with locks.claim(tmp_path) as mine:
        assert not mine
    old = time.time() - locks.STALE - 10
    os.utime(file, (old, old))
    with locks.claim(tmp_path) as mine:
        assert mine


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_want_a_run_never_two_hold_it(tmp_path: Path, stale: bool) -> None:
    inside, most, held = [0], [0], [0]
    guard, start = threading.Lock(), threading.Barrier(8)

    def want() -> None:
        start.wait()
        for _ in range(30):
            with locks.claim(tmp_path) as mine:
                if not mine:
                    continue
                with guard:
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    held[0] += 1
                time.sleep(0.0005)
                with guard:
                    inside[0] -= 1

    if stale:
        lock(tmp_path, 0, dead_process())
    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert held[0] >= 1
    assert list(tmp_path.iterdir()) == []


def test_the_race_of_two_that_find_a_dead_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one had seen the dead one's lock before the faster took over and let go."""
    lock(tmp_path, 0, dead_process())
    make = locks._make

    def late(folder: Path, number: int) -> locks.Holder | None:
        monkeypatch.setattr(locks, "_make", make)
        with locks.claim(folder) as faster:
            assert faster
        lock(folder, 0, os.getpid())  # and a third has begun since
        return make(folder, number)

    monkeypatch.setattr(locks, "_make", late)
    with locks.claim(tmp_path) as slower:
        assert not slower
    assert {file.name for file in tmp_path.iterdir()} == {"lock.0"}


def test_a_lock_that_another_cleared_away_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends removes every lock below its own, also one that was made in that moment."""
    make = locks._make

    def cleared(folder: Path, number: int) -> locks.Holder | None:
        mine = make(folder, number)
        (folder / f"lock.{number}").unlink()
        return mine

    monkeypatch.setattr(locks, "_make", cleared)
    with locks.claim(tmp_path) as held:
        assert not held
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_can_only_be_read_tells_who_holds_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lock(tmp_path, 0, 1, host="another machine")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "read-only")

    monkeypatch.setattr(Path, "touch", refused)
    monkeypatch.setattr(Path, "unlink", refused)
    found = locks.holder(tmp_path)
    assert found is not None
    assert not found.lost()
    old = time.time() - locks.STALE - 10
    os.utime(file, (old, old))
    assert found.lost()
