"""Counts the memory of tensors as they come and go, and what a process takes for them."""

import bisect
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Event = tuple[int, int]  # number of a block of memory, and its bytes, or 0 where it's given back
MMAP_THRESHOLD = 128 * 2**10
LARGEST_MMAP_THRESHOLD = 32 * 2**20
SPLITTABLE = 1024
ALIGNMENT = 96  # 64 bytes, and the least that glibc can split off
LARGE = 2**20
# What libraries take for themselves besides: the offset of the cases of benchmarks/plan.py.
LIBRARY_BYTES = 10_000_000
CPU = torch.device("cpu")


class Ledger(TorchDispatchMode):
    """Watches every tensor that torch makes while it's active; also those that hold no numbers."""

    def __init__(self, device: torch.device = CPU) -> None:
        super().__init__()
        self._copies = device.type == "cpu"
        self.live = self.peak = 0
        self.events: list[Event] = []
        self._serial = 0
        self._held: dict[int, Event] = {}

    def begin_anew(self) -> None:
        """Forget what was taken and given back, as if what is held now had been taken just now."""
        self.events = list(self._held.values())
        self.peak = self.live

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._copies and "convolution" in func.name():
            backward = "backward" in func.name()
            self._note_workspace([t for t in args[: 1 + backward] if isinstance(t, Tensor)])
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._take(tensor.untyped_storage())
        return result

    def _note_workspace(self, copied: list[Tensor]) -> None:
        size = sum(t.numel() * t.element_size() for t in copied)
        if size:
            self.peak = max(self.peak, self.live + size)
            self._serial += 1
            self.events += [(self._serial, size), (self._serial, 0)]

    def _take(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._held or not size:
            return
        self._serial += 1
        self._held[key] = (self._serial, size)
        weakref.finalize(storage, self._give_back, key)
        self.events.append((self._serial, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _give_back(self, key: int) -> None:
        serial, size = self._held.pop(key)
        self.events.append((serial, 0))
        self.live -= size


def resident_growth(events: Sequence[Event]) -> int:
    """By how much a process on Linux grows that takes and gives back memory in this order."""
    # A model of glibc's malloc, coarse but for what matters. Blocks above a threshold are given
    # back to the system at once; the threshold begins at 128 KiB and rises to the largest of them
    # that was given back, up to 32 MiB. Smaller ones stay with the process, which takes the best
    # fit of its free blocks, splits it, and grows where none fits. Free neighbours are taken as
    # never joined, since small objects come to lie between them. Torch asks for aligned memory, for
    # which glibc looks for more than it hands out, so that a block cut out for one tensor is too
    # small for the next of that size; large ones are often joined with a free neighbour, and serve.
    # Cost: a binary search and an insertion an event.
    free: list[int] = []
    held: dict[int, tuple[int, bool]] = {}
    heap = mapped = peak = 0
    threshold = MMAP_THRESHOLD
    for serial, size in events:
        if not size:
            size, is_mapped = held.pop(serial)
            if not is_mapped:
                bisect.insort(free, size)
                continue
            mapped -= size
            if threshold < size <= LARGEST_MMAP_THRESHOLD:
                threshold = size
            continue
        wanted = size + (ALIGNMENT if size < LARGE else 0)
        place = bisect.bisect_left(free, wanted)
        if place < len(free):
            block = free.pop(place)
            if block - size >= SPLITTABLE:
                bisect.insort(free, block - size)
                block = size
            held[serial] = (block, False)
            continue
        is_mapped = size >= threshold
        held[serial] = (wanted, is_mapped)
        mapped, heap = mapped + wanted * is_mapped, heap + wanted * (not is_mapped)
        peak = max(peak, mapped + heap)
    return peak
