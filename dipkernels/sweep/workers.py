"""Executors: this process, processes of this machine, a Dask cluster. Any other serves, too."""

import contextlib
import logging
import os
import pickle
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from types import FrameType
from typing import IO, Any

from dipkernels.base.checks import checked
from dipkernels.errors import (
    DipkernelsError,
    InvalidInputError,
    MissingExtraError,
    install_command,
)

logger = logging.getLogger(__name__)

LENGTH = struct.Struct("!Q")
PATIENCE = 10.0  # seconds that a process has to end when it's told to
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class WorkerLostError(DipkernelsError, RuntimeError):
    """A worker that ended in the middle of a run."""


class ThisProcess(Executor):
    """Carries calls out at once, where they are submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Carry a call out in this process, at once."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class LocalProcesses(Executor):
    """Processes of this machine; one that is lost is replaced, and takes one call with it.

    Unlike `concurrent.futures.ProcessPoolExecutor`, which breaks as a whole. They don't import
    ``__main__``, so that scripts need no guard; Ctrl-C on the terminal reaches their parent alone;
    and they end when it does, after the call that they're at.
    """

    def __init__(self, workers: int, *, threads: int = 1, gpus: bool = False) -> None:
        if min(workers, threads) < 1:
            raise InvalidInputError(
                f"workers and threads must be at least 1, got {workers}, {threads}"
            )
        self._threads = threads
        self._devices = _visible_gpus() if gpus else []
        self._calls: queue.Queue[tuple[Future, bytes] | None] = queue.Queue()
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._ending = threading.Event()
        self._closed = False
        self._slots = [
            threading.Thread(target=self._serve, args=(slot,), daemon=True)
            for slot in range(workers)
        ]
        for slot in self._slots:
            slot.start()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """Queue a call."""
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future: Future = Future()
        self._calls.put((future, pickle.dumps((fn, args, kwargs))))
        return future

    def processes(self) -> list[int]:
        """List the numbers of the processes that there are now."""
        return [each.pid for each in self._processes.values() if each.poll() is None]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes."""
        self._closed = True
        if cancel_futures:
            self._cancel()
        for _ in self._slots:
            self._calls.put(None)
        if wait:
            for slot in self._slots:
                slot.join()

    def stop(self) -> None:
        """End the processes now: what they are at is interrupted, and lost."""
        self._ending.set()
        self._cancel()
        for process in list(self._processes.values()):
            with contextlib.suppress(OSError):
                process.terminate()
        for process in list(self._processes.values()):
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        self.shutdown()

    def _cancel(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                call = self._calls.get_nowait()
                if call is not None:
                    call[0].cancel()

    # One thread for each process: hands it calls and waits for it.
    def _serve(self, slot: int) -> None:
        while True:
            call = self._calls.get()
            if call is None or self._ending.is_set():
                if call is not None:
                    call[0].cancel()
                break
            future, message = call
            if not future.set_running_or_notify_cancel():
                continue
            try:
                process = self._processes.get(slot)
                if process is None or process.poll() is not None:
                    process = self._processes[slot] = self._start(slot)
                if self._ending.is_set():  # it was told to end before this one was there
                    process.terminate()
                succeeded, result = _ask(process, message)
            except (OSError, EOFError, pickle.UnpicklingError) as error:
                self._close(slot)
                future.set_exception(self._loss(slot, error))
                continue
            except Exception as error:  # an answer that can't be read here: all came, none is lost
                future.set_exception(error)
                continue
            if succeeded:
                future.set_result(result)
            else:
                future.set_exception(result)
        self._close(slot)
        self._processes.pop(slot, None)

    def _start(self, slot: int) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, **dict.fromkeys(THREADS, str(self._threads))}
        environment["PYTHONPATH"] = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
        if self._devices:
            environment["CUDA_VISIBLE_DEVICES"] = self._devices[slot % len(self._devices)]
        logger.debug("worker %d starts", slot)
        return subprocess.Popen(
            [sys.executable, "-m", "dipkernels.sweep.workers", str(self._threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )

    def _close(self, slot: int) -> None:
        process = self._processes.get(slot)
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _loss(self, slot: int, error: Exception) -> WorkerLostError:
        code = self._processes[slot].returncode if slot in self._processes else None
        if code is not None and code < 0:
            named = {each.value: each.name for each in signal.Signals}
            name = named.get(-code, f"signal {-code}")  # those of real time have none
            hint = ", as when memory runs out" if name == "SIGKILL" else ""
            return WorkerLostError(f"its process was ended by {name}{hint}")
        said = f"exit code {code}" if code is not None else str(error)
        return WorkerLostError(f"its process ended ({said})")


@contextlib.contextmanager
@checked
def connect(scheduler: str) -> Iterator[Executor]:
    """Use the workers of a running Dask cluster.

    Parameters
    ----------
    scheduler : str
        Its address, such as ``tcp://HOST:8786``.

    Yields
    ------
    Executor
        Its workers must reach the store under the same path, and have this package.

    Raises
    ------
    MissingExtraError
        Without ``distributed``, the extra ``cluster``.
    InvalidInputError
        If nobody answers there.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingExtraError(
            f"a Dask cluster needs the package distributed: {install_command('cluster')}"
        ) from error
    try:
        client = distributed.Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"no Dask scheduler answers at {scheduler} ({error}): 'dask scheduler' starts one and "
            "says its address"
        ) from error
    try:
        # Not pure: a run that is repeated isn't what it was.
        yield client.get_executor(pure=False)
    finally:
        client.close()


def _visible_gpus() -> list[str]:
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given:
        return given.split(",")
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _ask(process: "subprocess.Popen[bytes]", message: bytes) -> tuple[bool, Any]:
    if process.stdin is None or process.stdout is None:
        raise EOFError("no pipes")
    _send(process.stdin, message)
    found: tuple[bool, Any] = pickle.loads(_receive(process.stdout))
    return found


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(LENGTH.pack(len(message)) + message)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    head = pipe.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError("the pipe was closed")
    (length,) = LENGTH.unpack(head)
    message = pipe.read(length)
    if len(message) < length:
        raise EOFError("the pipe was closed")
    return message


def _work(threads: int) -> None:
    """Answer calls from standard input until it ends."""
    # What runs may print; answers go where nobody else writes.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calls = sys.stdin.buffer

    def end(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt  # so that locks are let go

    signal.signal(signal.SIGTERM, end)
    import torch

    torch.set_num_threads(threads)
    while True:
        try:
            message = _receive(calls)
        except EOFError:
            return
        try:
            fn, args, kwargs = pickle.loads(message)
            answer = pickle.dumps((True, fn(*args, **kwargs)))
        except Exception as error:
            answer = pickle.dumps((False, _sendable(error)))
        with contextlib.suppress(BrokenPipeError):
            _send(answers, answer)


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    try:
        _work(int(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGTERM)
