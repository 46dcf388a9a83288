"""What a worker does: one run, from its record to its place in the store."""

import logging
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dipkernels.errors import OutputError
from dipkernels.storage.locks import claim
from dipkernels.sweep.runs import Run, from_record
from dipkernels.sweep.store import DONE, FAILED, Store

logger = logging.getLogger(__name__)

BUSY = "busy"
LONGEST = 500  # of a reason


def execute(
    record: Mapping[str, Any], path: str, device: str = "cpu", failures: int = 0
) -> dict[str, Any]:
    """Carry out a run, unless it's done or somebody else does; used on workers."""
    run, store = from_record(record), Store(Path(path))
    folder = store.folder(run.key).path
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"can't write {folder}: {error}") from error
    known = known_outcome(store, run.key, failures)
    if known is not None:
        return known
    with claim(folder) as held:
        if not held:
            return {"status": BUSY, "here": False}
        known = known_outcome(store, run.key, failures)
        if known is not None:
            return known
        for moved in store.set_aside(run.key):
            logger.warning("%s: what can't be read is set aside as %s", run.label, moved)
        store.begin(run)
        return _carry_out(run, store, device)


def known_outcome(store: Store, key: str, failures: int) -> dict[str, Any] | None:
    """Tell what has become of a run already."""
    row = store.row(key)
    if row is not None:
        return {"status": DONE, "here": False, "values": row["values"], "seconds": row["seconds"]}
    failure = store.failure(key)
    if failure is not None and int(failure.get("attempts", 1)) > failures:
        return {"status": FAILED, "here": False, "reason": failure.get("reason", "unknown")}
    return None


def _carry_out(run: Run, store: Store, device: str) -> dict[str, Any]:
    start = time.perf_counter()
    try:
        measured = run.measure(device)
    except (Exception, SystemExit) as error:  # whatever it is, the other runs go on
        return _fail(run, store, error, time.perf_counter() - start)
    seconds = time.perf_counter() - start
    try:
        store.finish(run, measured, seconds, device)
    except OutputError:  # of the store: no other run could be kept either
        raise
    except Exception as error:  # of the result, which no file can hold
        return _fail(run, store, error, seconds)
    return {"status": DONE, "here": True, "seconds": seconds, "values": dict(measured.values)}


def _fail(run: Run, store: Store, error: BaseException, seconds: float) -> dict[str, Any]:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:LONGEST]
    store.fail(run, reason, type(error).__name__, "".join(traceback.format_exception(error)))
    return {"status": FAILED, "here": True, "reason": reason, "seconds": seconds}
