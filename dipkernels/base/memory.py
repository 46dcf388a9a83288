"""Memory that this process may still take, and what nobody holds any more."""

import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from dipkernels.base.words import readable_bytes
from dipkernels.errors import MemoryLimitError

GROWTH = 2**28  # bytes that may be lost in cycles for a while
_resident = 0  # after the last collection
# Files of a control group, of its first version and its second: limits of memory, what is taken,
# and in the table of it what the kernel takes back when asked.
FIRST = (("memory.limit_in_bytes",), "memory.usage_in_bytes", "total_inactive_file")
SECOND = (("memory.max", "memory.high"), "memory.current", "inactive_file")


def free_bytes() -> int:
    """Memory that is free now: of the machine, within the limits of container and process."""
    try:
        free = linux_bytes("/proc/meminfo", "MemAvailable")
    except (OSError, KeyError, ValueError):
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(0, min([free, *within_groups(), *_within_process()]))


def within_groups(
    groups: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> Iterator[int]:
    """Say what the limit of each control group, from the process's up to the top, leaves free."""
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except OSError:  # another system
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = mount / "memory" if controllers else mount
        # A container often sees its own group at the top, and the path that it has outside.
        inner = top / path.lstrip("/")
        for folder in (inner, *inner.parents):
            yield from _left_by(folder, *(FIRST if controllers else SECOND))
            if folder == top:
                break


def _left_by(folder: Path, limits: tuple[str, ...], taken: str, cache: str) -> Iterator[int]:
    for name in limits:
        with contextlib.suppress(OSError, ValueError):  # there is none, or it is "max"
            limit = int((folder / name).read_text(encoding="ascii"))
            used = int((folder / taken).read_text(encoding="ascii"))
            table = (folder / "memory.stat").read_text(encoding="ascii").split()
            kept = dict(zip(table[::2], table[1::2], strict=True))
            yield limit - max(0, used - int(kept.get(cache, 0)))


# The limit of the address space (ulimit -v).
def _within_process() -> Iterator[int]:
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with contextlib.suppress(OSError, KeyError, ValueError):
            yield limit - linux_bytes("/proc/self/status", "VmSize")


def require_free(size: int, what: str, remedy: str) -> None:
    """Refuse what doesn't fit into memory, before it is begun."""
    free = free_bytes()
    if size > free:
        raise MemoryLimitError(
            f"{what} needs about {readable_bytes(size)} of memory, and {readable_bytes(free)} are "
            f"free: {remedy}"
        )


def linux_bytes(table: str, name: str) -> int:
    """Read a line such as "VmHWM:   1234 kB" of one of Linux's tables."""
    lines = Path(table).read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields[name].split()[0]) * 1024


# A collection looks at every object of the process: 0.3 s once torch is imported.
def collect_if_grown() -> None:
    """Free what is lost in cycles, if the process has grown by much since this was last done."""
    global _resident
    try:
        if linux_bytes("/proc/self/status", "VmRSS") < _resident + GROWTH:
            return
        gc.collect()
        _resident = linux_bytes("/proc/self/status", "VmRSS")
    except (OSError, KeyError, ValueError):  # another system
        gc.collect()


@contextlib.contextmanager
def collected() -> Iterator[None]:
    """Free what a block leaves in cycles, without a look at what was there before it."""
    theirs = gc.get_freeze_count()  # of a caller who froze objects: they stay so
    if not theirs:
        gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if not theirs:
            gc.unfreeze()
