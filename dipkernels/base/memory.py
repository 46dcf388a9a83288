"""Memory of this machine that is free, and what nobody holds any more."""

import contextlib
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from dipkernels.base.words import readable_bytes
from dipkernels.errors import MemoryLimitError

GROWTH = 2**28  # bytes that may be lost in cycles for a while
_resident = 0  # after the last collection


def free_bytes() -> int:
    """Memory of the machine that is free now."""
    try:
        return linux_bytes("/proc/meminfo", "MemAvailable")
    except (OSError, KeyError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
