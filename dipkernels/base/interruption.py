"""Ctrl-C: what was computed until then is kept, and the first one waits for an iteration to end."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import xarray as xr


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during a computation; ``result`` holds what was computed until then."""

    def __init__(self, message: str, result: xr.Dataset) -> None:
        super().__init__(message)
        self.result = result


@runtime_checkable
class Interruptible(Protocol):
    """A loop that ends before its next iteration once it is told to."""

    interrupted: bool


@contextlib.contextmanager
def ctrl_c_between_iterations(loop: Interruptible, *, resumable: bool) -> Iterator[None]:
    """Let the first Ctrl-C wait for the iteration to end, so that all is saved."""
    plain = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nobody else's
    if not resumable or not plain or threading.current_thread() is not threading.main_thread():
        yield
        return

    def note(*_: object) -> None:
        loop.interrupted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
