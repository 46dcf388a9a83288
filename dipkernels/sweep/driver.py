"""Run a plan: hand out what isn't done, collect what comes back, repeat what was lost."""

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dipkernels.base.checks import checked
from dipkernels.base.devices import resolve_device
from dipkernels.base.kinds import Count
from dipkernels.base.origin import digest
from dipkernels.base.progress import Progress
from dipkernels.errors import DipkernelsError, InvalidInputError, OutputError
from dipkernels.storage.locks import holder
from dipkernels.sweep.execution import BUSY, execute, known_outcome
from dipkernels.sweep.plan import Sweep
from dipkernels.sweep.runs import Run
from dipkernels.sweep.store import DONE, FAILED, Store
from dipkernels.sweep.workers import LocalProcesses, ThisProcess, WorkerLostError

logger = logging.getLogger(__name__)

LOSSES = 3  # of its workers, after which a run counts as failed
POLL = 1.0  # seconds from one look at runs that another sweep is at to the next

Report = Callable[[Run, dict[str, Any]], None]


@checked(nan=True)
@dataclass
class Summary:
    """What has become of a sweep.

    Attributes
    ----------
    store : Path
        Where results are.
    total : int
        Runs of the plan.
    done : int
        By this call.
    skipped : int
        Done before, or by another sweep meanwhile.
    failed : dict of str to str
        Reasons by label, of earlier calls, too.
    left : int
        Neither; after Ctrl-C.
    seconds : float
        Of this call.
    """

    store: Path
    total: int
    done: int = 0
    skipped: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    left: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        counts = f"{self.done} done, {self.skipped} done before, {len(self.failed)} failed"
        left = f", {self.left} left" if self.left else ""
        lines = [f"{self.total} runs: {counts}{left}"]
        lines += [f"  failed: {label}: {reason}" for label, reason in self.failed.items()]
        return "\n".join(lines)


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep: its ``summary`` is that until then, and the same call goes on."""

    def __init__(self, summary: Summary) -> None:
        super().__init__("sweep interrupted")
        self.summary = summary


@checked
def run(
    plan: Sweep,
    store: str | Path,
    *,
    executor: Executor | None = None,
    workers: Count = 1,
    threads: Count | None = None,
    device: str = "cpu",
    retry_failed: bool = False,
    progress: bool = False,
    report: Report | None = None,
) -> Summary:
    """Run what a store doesn't hold yet of a plan.

    Parameters
    ----------
    plan : Sweep
        From `load`.
    store : str or Path
        Folder of results; made if there is none. Several sweeps may use one at the same time: a
        run that another is at is left to it, and waited for.
    executor : concurrent.futures.Executor, optional
        That carries the runs out; `connect` makes that of a Dask cluster. Its workers must have
        this package and reach the store under the same path.
    workers : int
        Without an executor: 1 runs in this process, more in so many local ones.
    threads : int, optional
        Of each local process, by default 1, so that several don't fight for cores.
    device : str
        That computes: cpu, cuda or cuda:N. With several local processes, ``cuda`` gives each one
        of the GPUs in turn.
    retry_failed : bool
        Run again what has failed before.
    progress : bool
        Show a bar, on a terminal or in a notebook.
    report : callable, optional
        Called with a run and what became of it (``status``, ``values``, ``reason``, ``seconds``)
        as soon as it's known.

    Returns
    -------
    Summary
        Counts, and why runs failed; a failed run doesn't end the sweep.

    Raises
    ------
    SweepInterrupted
        On Ctrl-C. Local runs are interrupted; those of an executor that are under way go on and
        are stored. Nothing that was done is lost.
    OutputError
        If the store can't be used.
    InvalidInputError
        If an option is out of range or has no effect.

    Notes
    -----
    A run whose worker is lost is given to another, three times at most. Bookkeeping takes some
    milliseconds a run: a folder, a lock, and three files that are written whole or not at all.

    Examples
    --------
    >>> import tempfile
    >>> from dipkernels import sweep
    >>> fit = {"name": "fit", "iterations": 2}
    >>> plan = sweep.load({"priors": "vit", "images": "camera", "sizes": 8, "measure": fit})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     first, again = (sweep.run(plan, folder) for _ in range(2))
    >>> first.done, again.done, again.skipped
    (1, 0, 1)
    """
    if executor is not None and (workers != 1 or threads is not None):
        raise InvalidInputError("workers and threads have no effect on an executor of your own")
    if threads is not None and workers == 1:
        raise InvalidInputError("threads has no effect on this process: use torch.set_num_threads")
    if executor is None and device != "cpu":
        resolve_device(device)
    opened = Store.open(store, create=True)
    keys = digest(*(each.key for each in plan.runs))[:16]
    opened.note_sweep({each.key: each.label for each in plan.runs}, plan.source, plan.text, keys)
    own = executor is None
    if executor is None:
        executor = ThisProcess()
        if workers > 1:
            executor = LocalProcesses(workers, threads=threads or 1, gpus=device == "cuda")
    sweep = _Sweep(plan, opened, executor, device, retry_failed, report)
    try:
        return sweep.run(progress)
    except BaseException as error:
        for future in sweep.pending:
            future.cancel()
        if own and isinstance(executor, LocalProcesses):
            executor.stop()
        if isinstance(error, KeyboardInterrupt):
            raise SweepInterrupted(sweep.summarised()) from None
        raise
    finally:
        if own:
            executor.shutdown()


class _Sweep:
    """The state of one call of `run`."""

    def __init__(
        self,
        plan: Sweep,
        store: Store,
        executor: Executor,
        device: str,
        retry_failed: bool,
        report: Report | None,
    ) -> None:
        self.plan, self.store, self.executor, self.device = plan, store, executor, device
        self.retry_failed, self.report = retry_failed, report
        self.summary = Summary(store.path, len(plan))
        self.pending: dict[Future, Run] = {}
        self.waiting: list[Run] = []  # for others to end them
        self.losses: dict[str, int] = {}
        self.known: dict[str, int] = {}  # failures that don't count
        self.start = time.perf_counter()

    def run(self, progress: bool) -> Summary:
        todo = self._todo()
        with Progress(len(todo), "runs", enabled=progress) as bar:
            for each in todo:
                self._submit(each)
                self._collect(bar, timeout=0.0)
            looked = time.monotonic()
            while self.pending or self.waiting:
                self._collect(bar, timeout=POLL)
                if self.waiting and time.monotonic() - looked >= POLL:
                    self._look(bar)
                    looked = time.monotonic()
        return self.summarised()

    def summarised(self) -> Summary:
        self.summary.seconds = time.perf_counter() - self.start
        counted = self.summary.done + self.summary.skipped + len(self.summary.failed)
        self.summary.left = self.summary.total - counted
        return self.summary

    def _todo(self) -> list[Run]:
        todo = []
        for each in self.plan.runs:
            failure = self.store.failure(each.key) if self.retry_failed else None
            self.known[each.key] = 0 if failure is None else int(failure.get("attempts", 1))
            found = known_outcome(self.store, each.key, self.known[each.key])
            if found is None:
                todo.append(each)
            else:
                self._count(each, found)
        return todo

    def _submit(self, each: Run) -> None:
        where, failures = str(self.store.path.resolve()), self.known[each.key]
        try:
            future = self.executor.submit(execute, asdict(each), where, self.device, failures)
        except RuntimeError as error:  # it's broken, or was shut down
            raise DipkernelsError(
                f"the executor takes no more runs ({error}): what is done is kept in "
                f"{self.store.path}; run the same sweep again"
            ) from error
        self.pending[future] = each

    def _collect(self, bar: Progress, timeout: float) -> None:
        if not self.pending:
            time.sleep(timeout)
            return
        ended, _ = wait(self.pending, timeout, FIRST_COMPLETED)
        for future in ended:
            each = self.pending.pop(future)
            found = self._outcome(each, future)
            if found is None:
                self._submit(each)
            elif found["status"] == BUSY:
                logger.info("%s is left to another sweep, which is at it", each.label)
                self.waiting.append(each)
            else:
                self._tell(each, found, bar)

    # What a future says; None if its worker was lost and the run goes to another.
    def _outcome(self, each: Run, future: Future) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = future.result()
            return found
        except OutputError:
            raise
        except CancelledError as error:
            raise DipkernelsError(
                "the executor cancelled its runs: was it shut down? What is done is kept in "
                f"{self.store.path}; run the same sweep again"
            ) from error
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            if isinstance(error, WorkerLostError | BrokenExecutor):
                self.losses[each.key] = self.losses.get(each.key, 0) + 1
                if self.losses[each.key] < LOSSES:
                    logger.warning("%s goes to another worker: %s", each.label, error)
                    return None
                reason = f"{error}, {LOSSES} times"
            folder = self.store.folder(each.key).path
            folder.mkdir(exist_ok=True)
            self.store.begin(each)
            self.store.fail(each, reason, type(error).__name__, f"{reason}\n")
            return {"status": FAILED, "here": True, "reason": reason}

    # Runs that another sweep is at: have they ended, or was it lost?
    def _look(self, bar: Progress) -> None:
        waiting, self.waiting = self.waiting, []
        for each in waiting:
            found = known_outcome(self.store, each.key, self.known[each.key])
            if found is not None:
                self._tell(each, found, bar)
                continue
            who = holder(self.store.folder(each.key).path)
            if who is None or who.lost():
                logger.warning("%s is begun again: the other sweep left it", each.label)
                self._submit(each)
            else:
                self.waiting.append(each)

    def _tell(self, each: Run, found: Mapping[str, Any], bar: Progress) -> None:
        self._count(each, found)
        bar.advance()
        bar.note(f"{len(self.summary.failed)} failed" if self.summary.failed else "")
        if self.report is not None:
            self.report(each, dict(found))

    def _count(self, each: Run, found: Mapping[str, Any]) -> None:
        if found["status"] == FAILED:
            self.summary.failed[each.label] = str(found["reason"])
        elif found["status"] == DONE and found["here"]:
            self.summary.done += 1
        else:
            self.summary.skipped += 1
