"""Memory of this machine that is free."""

import os
from pathlib import Path

from dipkernels.base.words import readable_bytes
from dipkernels.errors import MemoryLimitError


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
