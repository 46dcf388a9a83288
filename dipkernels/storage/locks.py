"""Who works on a run: a file that one process alone can make, with a heartbeat.

A run's locks are numbered. Whoever makes the file with the lowest free number above all others
holds the run. The holder touches its file again and again; if it is dead, or hasn't done so for
long, another may make the file with the next number. Nothing is ever removed to take a lock over,
so that two can't both believe to have removed a dead one's.
"""

import contextlib
import functools
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dipkernels.base.files import is_running
from dipkernels.errors import OutputError

logger = logging.getLogger(__name__)

PREFIX = "lock."
BEAT = 5.0  # seconds from one heartbeat to the next
STALE = 60.0  # without one for so long, its holder counts as lost


@dataclass(frozen=True)
class Holder:
    """Who made a lock."""

    file: Path
    number: int
    token: str
    host: str
    process: int

    def lost(self) -> bool:
        """Say whether it is dead or silent."""
        if self.host == this_host() and not is_running(self.process):
            return True
        try:
            beat = self.file.stat().st_mtime
        except FileNotFoundError:
            return False
        return _now(self.file.parent) - beat > STALE


def holder(folder: Path) -> Holder | None:
    """Find who holds a run."""
    numbers = _numbers(folder)
    return _read(folder, numbers[-1]) if numbers else None


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold a run while a block is carried out, if nobody else does."""
    mine = _acquire(folder)
    if mine is None:
        yield False
        return
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(mine.file, stop), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        stop.set()
        beating.join()
        # From the lowest up: while one of ours is left, nobody takes it for the first.
        for number in _numbers(folder):
            if number <= mine.number:
                with contextlib.suppress(OSError):
                    (folder / f"{PREFIX}{number}").unlink()


@functools.cache
def this_host() -> str:
    """Name this machine, such that process numbers mean the same wherever the name does."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    if len(parts) < 3:
        parts.append(f"{uuid.getnode():x}")
    return " ".join(parts)


def _acquire(folder: Path) -> Holder | None:
    before = holder(folder)
    if before is not None and not before.lost():
        return None
    number = 0 if before is None else before.number + 1
    mine = _make(folder, number)
    if mine is None:
        return None
    # Had the one that was lost let go in between, another might have begun below.
    numbers = _numbers(folder)
    below = None if before is None else _read(folder, before.number)
    same = before is None or (below is not None and below.token == before.token)
    if numbers[-1:] == [number] and same and (before is not None or numbers == [0]):
        if before is not None:
            logger.warning(
                "%s is taken over: process %d of %s, which held it, is dead or silent",
                *(folder, before.process, before.host or "an unknown machine"),
            )
        return mine
    mine.file.unlink(missing_ok=True)  # whoever ended above this one has removed it, perhaps
    return None


def _make(folder: Path, number: int) -> Holder | None:
    file = folder / f"{PREFIX}{number}"
    mine = Holder(file, number, uuid.uuid4().hex, this_host(), os.getpid())
    text = {"token": mine.token, "host": mine.host, "process": mine.process}
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(json.dumps(text))
    except FileExistsError:
        return None
    except OSError as error:
        raise OutputError(f"can't make a lock in {folder}: {error}") from error
    return mine


def _read(folder: Path, number: int) -> Holder | None:
    file = folder / f"{PREFIX}{number}"
    try:
        text: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Holder(file, number, text["token"], text["host"], int(text["process"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return Holder(file, number, "", "", 0)  # perhaps being written; lost once it is old


def _numbers(folder: Path) -> list[int]:
    names = (
        entry.name.removeprefix(PREFIX)
        for entry in os.scandir(folder)
        if entry.name.startswith(PREFIX)
    )
    return sorted(int(name) for name in names if name.isdigit())


def _beat(file: Path, stop: threading.Event) -> None:
    while not stop.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(file)


# The clock of the file system, which is that of the heartbeats.
def _now(folder: Path) -> float:
    probe = folder / f".now.{uuid.uuid4().hex}"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:  # a store that can only be looked at; to claim a run, it must be written
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
